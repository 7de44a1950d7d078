"""Records the residual additions of each forward pass, and the gradients at them."""
