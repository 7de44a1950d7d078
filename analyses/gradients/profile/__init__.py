"""Do the gradients vanish or explode on their way from the loss to the first layer?"""

from analyses.gradients.profile.measure import factor_over_depth, gradient_profile

__all__ = ["factor_over_depth", "gradient_profile"]
