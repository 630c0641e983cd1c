"""Trains the learned layer: makes pairs, fits the networks, exports their integers."""
