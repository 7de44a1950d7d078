"""The hooks on layers and residual additions, and the passes that they follow."""
