"""Reads run folders as pandas frames, part by part; loads no torch."""
