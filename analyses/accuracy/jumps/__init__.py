"""Which jumps of validation accuracy are beyond sampling noise?"""

from analyses.accuracy.jumps.measure import RATE, jumps

__all__ = ["RATE", "jumps"]
