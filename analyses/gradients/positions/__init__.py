"""What of the gradient reaches each position of a sequence."""
