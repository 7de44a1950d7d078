"""Reduces a tensor to its statistics in one read: in main memory by numba, on CUDA by Triton."""
