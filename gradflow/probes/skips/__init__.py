"""Skips and branches changed one at a time: lesions, path lengths, scaled skips."""
