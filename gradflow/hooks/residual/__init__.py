"""Finds the residual additions of a model in the autograd graph of its forward pass."""
