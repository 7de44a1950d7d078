"""Hooks on layers and residual additions, and the forward and backward passes that they observe."""
