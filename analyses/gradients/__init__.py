"""Gradients and activations: their size by depth and epoch, and the loss around the weights."""
