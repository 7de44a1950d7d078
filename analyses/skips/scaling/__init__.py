"""What happens to a trained residual network when its skips are scaled down?"""

from analyses.skips.scaling.measure import TABLE as SKIP_SCALES
from analyses.skips.scaling.measure import scaling_response

__all__ = ["SKIP_SCALES", "scaling_response"]
