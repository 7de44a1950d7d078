"""Accuracy and gradients, over depth and epochs, in one picture."""
