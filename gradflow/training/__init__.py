"""Trains networks x seeds, traced from the first step to the last, and goes on where it stopped."""
