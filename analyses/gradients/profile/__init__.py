"""Do the gradients vanish or explode on their way from the loss to the first layer?"""

from analyses.gradients.profile.measure import over_depth, profile

__all__ = ["over_depth", "profile"]
