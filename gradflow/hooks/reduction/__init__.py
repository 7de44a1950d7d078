"""Reduces a tensor to its statistics in one read: on the CPU with numba, on CUDA with Triton."""
