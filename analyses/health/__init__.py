"""Is the network healthy: do gradients, units and updates do what training needs?"""

from analyses.health.condition import NotAsked
from analyses.health.conditions import Thresholds, read_health
from analyses.health.conditions.gradients import shattering_answer, shattering_of
from analyses.health.conditions.units import dead_answer, dead_counts
from analyses.health.findings import condition_finding
from analyses.health.overall import Unasked, overall_finding
from gradflow.conditions.dead import is_dead

__all__ = [
    "NotAsked",
    "Thresholds",
    "Unasked",
    "condition_finding",
    "dead_answer",
    "dead_counts",
    "is_dead",
    "overall_finding",
    "read_health",
    "shattering_answer",
    "shattering_of",
]
