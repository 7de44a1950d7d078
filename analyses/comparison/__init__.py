"""What differs between two runs, or between experiments?"""

from analyses.comparison.combination import combine
from analyses.comparison.runs import compare_runs

__all__ = ["combine", "compare_runs"]
