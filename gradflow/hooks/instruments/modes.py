"""The mode of the whole model in each recorded step, and what depends on it."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from torch import nn

from gradflow.hooks.instruments.instrument import Instrument
from gradflow.hooks.recording.records import Columns, StepRecord

# Layers of other libraries, by their class: timm's DropPath, torchvision's StochasticDepth.
_DROPS = re.compile(r"Drop|StochasticDepth")


class ModelMode(Instrument):
    """Fills the column `mode` of the table `steps` with the mode that the model is trained in.

    It is that at the step's last backward pass. A step may end only after an evaluation: with the
    epoch, if one of several optimizers has not stepped.
    """

    key = "mode"
    several_processes = True

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def backward_begins(self, record: StepRecord) -> None:
        """Note the mode."""
        record.further[self.key] = self._mode()

    def end_step(self, record: StepRecord) -> None:
        """Note the mode, if no backward pass was seen."""
        record.further.setdefault(self.key, self._mode())

    def _mode(self) -> str:
        return "training" if self._model.training else "evaluation"

    def columns(self, records: Sequence[StepRecord]) -> Mapping[str, Columns]:
        """Return the column of the table `steps`."""
        modes = np.array([one.further[self.key] for one in records], dtype=object)
        return {"steps": {"mode": np.ma.array(modes, mask=False)}}


def acts_in_training(model: nn.Module) -> dict[str, int]:
    """Count the modules that act otherwise in training than in evaluation, by class."""
    return dict(Counter(type(one).__name__ for one in model.modules() if _depends_on_mode(one)))


def _depends_on_mode(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return bool(module.track_running_stats)
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return bool(module.p > 0)
    if isinstance(module, nn.RNNBase):
        return bool(module.dropout > 0 and module.num_layers > 1)
    if isinstance(module, nn.MultiheadAttention):
        return bool(module.dropout > 0)
    return next(module.children(), None) is None and bool(_DROPS.search(type(module).__name__))
