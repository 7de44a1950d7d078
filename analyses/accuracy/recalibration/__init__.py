"""How much of the jumps goes away with re-estimated batch-norm statistics?"""

from analyses.accuracy.recalibration.measure import RecalibrationSeries, recalibration_series

__all__ = ["RecalibrationSeries", "recalibration_series"]
