"""Writes numbers, lists and verdicts as they appear in sentences."""
