"""How do activations travel through the depth, and how many channels are dead?"""

from analyses.gradients.signals.measure import dead_fraction

__all__ = ["dead_fraction"]
