"""Trains the learned layer; at present: makes the pairs that it learns from."""
