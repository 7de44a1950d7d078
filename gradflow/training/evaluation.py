"""How a network does on the validation images, and whether it does differently than before."""

from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import binomtest
from torch import Tensor, nn
from torch.nn import functional as F

from gradflow.probes.network.predictions import Predictions, predictions_from
from gradflow.training.job import Job


@dataclass(frozen=True, eq=False)
class Evaluation(Predictions):
    """A pass over the validation images: their predictions, and their mean cross-entropy."""

    loss: float

    @property
    def accuracy(self) -> float:
        """The fraction of images predicted right."""
        return float(self.correct.double().mean())

    @property
    def correct(self) -> Tensor:
        """Whether each image was predicted right: bool [V]."""
        return self.prediction == self.target

    def matches(self, job: Job) -> bool:
        """Whether it can be of the validation images of `job`: what was read need not be."""
        images = job.split.validation
        values = (self.image, self.target, self.prediction, self.probability)
        return (
            all(isinstance(value, Tensor) and value.shape == images.shape for value in values)
            and torch.equal(self.image.cpu(), images)
            and isinstance(self.loss, float)
        )

    def columns(self) -> dict[str, Any]:
        """One row an image, as the tables `predictions` and `recalibration` store them."""
        names = ("image", "target", "prediction", "probability")
        return {name: getattr(self, name).cpu().numpy() for name in names}


@torch.no_grad()
def evaluate(model: nn.Module, job: Job) -> Evaluation:
    """Classify the job's validation images in evaluation mode; the mode is then as it was."""
    was_training = model.training
    model.eval()
    parts = [(batch, model(batch.images)) for batch in job.validation_batches()]
    model.train(was_training)
    found = predictions_from(parts)
    loss = float(F.cross_entropy(torch.cat([logits for _, logits in parts]), found.target))
    return Evaluation(**vars(found), loss=loss)


def accuracy_changed(before: Evaluation, after: Evaluation, level: float = 0.05) -> bool:
    """Whether accuracy changed by more than sampling noise: exact McNemar test at `level`.

    Source: McNemar 1947; the images that only one of two passes got right are a fair coin's throws
    where there is no change.
    """
    gained = int((after.correct & ~before.correct).sum())
    lost = int((before.correct & ~after.correct).sum())
    if gained + lost == 0:
        return False
    return bool(binomtest(gained, gained + lost).pvalue < level)
