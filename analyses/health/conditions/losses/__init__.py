"""Conditions that show in the loss: of training, of validation, and of single steps."""
