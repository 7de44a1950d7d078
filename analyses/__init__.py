"""Analyses of recorded runs: each asks one question and answers with frozen findings.

The package reads pandas frames and never loads torch.
"""
