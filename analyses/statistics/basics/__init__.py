"""Distributions and ranks, by `scipy.special` alone: `scipy.stats` takes half a second to load."""
