"""Accuracy: how it develops, why it jumps, which network is ahead, and in which classes."""
