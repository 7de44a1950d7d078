"""The loops over tensors on the CPU: of one tensor, of groups, in threads; compiled by numba."""
