"""Plain and residual networks of any depth, from one builder."""

from gradflow.models.builder import MODEL_NAMES, build

__all__ = ["MODEL_NAMES", "build"]
