"""Gradients of single images: coherence, noise scale, and shattering between two images."""
