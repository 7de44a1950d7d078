"""Records gradients and activations of any `nn.Module` through forward and tensor hooks."""
