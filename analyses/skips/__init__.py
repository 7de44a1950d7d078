"""Skip connections: the gradient they carry, and what happens to a network without them."""
