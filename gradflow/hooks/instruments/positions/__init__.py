"""Gradients and outputs by position in a sequence, and by the calls of a module in a loop."""
