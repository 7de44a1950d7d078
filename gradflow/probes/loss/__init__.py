"""The training loss around the weights: slices along lines, and sharpness."""
