"""How much of the jumps goes away with re-estimated batch-norm statistics?"""

from analyses.accuracy.recalibration.measure import Pair, pair_of

__all__ = ["Pair", "pair_of"]
