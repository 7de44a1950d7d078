"""Skip connections: what gradient they carry, and what becomes of a network without them."""
