"""What reaches the optimizer of what backward has left, in all and by named group."""
