"""Checks a run folder against what was written, and repairs it."""
