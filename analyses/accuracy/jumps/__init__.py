"""Which jumps of validation accuracy are beyond sampling noise?"""

from analyses.accuracy.jumps.measure import FALSE_DISCOVERY_RATE, changes_of_network

__all__ = ["FALSE_DISCOVERY_RATE", "changes_of_network"]
