"""Checks whether the files of a run are as they were written, and repairs the run."""
