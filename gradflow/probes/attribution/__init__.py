"""Attributes predictions to pixels, and to the skip and the branch of each residual block."""
