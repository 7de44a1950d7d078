"""What makes a training ill, in numbers: bounds and rules of the recording and the analyses."""
