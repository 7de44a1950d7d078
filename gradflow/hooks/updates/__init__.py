"""What each step does to the parameters: their optimizers, gradients, updates and loss scale."""
