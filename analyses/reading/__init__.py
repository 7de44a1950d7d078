"""Reads from the frames of a run what several analyses need in the same form."""
