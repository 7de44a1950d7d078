"""Is the network healthy: do gradients, units and updates do what training needs?"""

from analyses.health.conditions import Thresholds
from analyses.health.findings import condition_finding, overall_finding
from analyses.health.gradients import shattering_of, shattering_reading
from analyses.health.units import dead_counts, dead_reading, is_dead

__all__ = [
    "Thresholds",
    "condition_finding",
    "dead_counts",
    "dead_reading",
    "is_dead",
    "overall_finding",
    "shattering_of",
    "shattering_reading",
]
