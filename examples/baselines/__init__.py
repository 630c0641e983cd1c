"""The systems that the paper compares, and ours, under one interface."""
