"""Probes of any model, as functions: its residual additions are found in the autograd graph."""
