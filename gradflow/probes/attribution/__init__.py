"""What predictions rest on: pixels, and the two ways through each residual block."""
