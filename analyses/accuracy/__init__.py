"""Questions about accuracy: its curve, its jumps, which network is ahead, and which classes."""
