"""Plain and residual networks (He et al. 2015), built by name."""

from gradflow.models.builder import MODEL_NAMES, build

__all__ = ["MODEL_NAMES", "build"]
