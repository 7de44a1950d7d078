"""Rebuilds the report of a run during training, and serves it to a browser."""
