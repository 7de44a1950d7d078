"""Norms, products and copies of parameters and their gradients, in few calls for many."""
