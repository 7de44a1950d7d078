"""Writes a run folder: parts that appear whole or not at all, merged as the run grows."""
