"""Reads the frames of a run into forms that several analyses use."""
