"""The terms of a loss: what each of them asks of layers and parameters."""
