"""What does deleting blocks of a trained network cost?"""

from analyses.skips.lesions.measure import TABLE as LESIONS
from analyses.skips.lesions.measure import cost_difference, lesions_of

__all__ = ["LESIONS", "cost_difference", "lesions_of"]
