"""Writes a run folder: parts are written atomically and merged as the run grows."""
