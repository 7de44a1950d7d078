"""How do loss and accuracy develop?"""

from analyses.accuracy.learning_curves.question import curves_of

__all__ = ["curves_of"]
