"""The statistics of many tensors from their moments, as columns of the recorded tables."""
