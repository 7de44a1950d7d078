"""How long are the paths that the gradient takes?"""

from analyses.skips.path_lengths.measure import TABLE as PATHS
from analyses.skips.path_lengths.measure import by_length, skips_only, weighted_length

__all__ = ["PATHS", "by_length", "skips_only", "weighted_length"]
