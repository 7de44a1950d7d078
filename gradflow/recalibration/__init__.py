"""Batch-norm statistics: how stale the running ones are, and what re-estimated ones change."""
