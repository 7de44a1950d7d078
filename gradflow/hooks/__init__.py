"""Records gradients and activations of any `nn.Module` through forward and tensor hooks.

Most users need only `Tracer`. The schedules choose the steps that it records.
"""

from typing import TYPE_CHECKING

from gradflow.lazy_names import lazy_names

if TYPE_CHECKING:
    from gradflow.hooks.selection.schedules import Budget, every, first_then_every, log_spaced
    from gradflow.hooks.tracer import Tracer

_HOME = {
    "Tracer": "gradflow.hooks.tracer",
    "Budget": "gradflow.hooks.selection.schedules",
    "every": "gradflow.hooks.selection.schedules",
    "first_then_every": "gradflow.hooks.selection.schedules",
    "log_spaced": "gradflow.hooks.selection.schedules",
}

__all__ = ["Budget", "Tracer", "every", "first_then_every", "log_spaced"]

__getattr__ = lazy_names(__name__, _HOME)
