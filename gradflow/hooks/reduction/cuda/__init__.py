"""The kernels that reduce tensors on CUDA, and how they are launched: one by one, or in groups."""
