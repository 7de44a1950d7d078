"""Evaluates a network on the validation images, and tests whether its accuracy changed."""

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
    """The predictions for all validation images, and their mean cross-entropy in nats."""

    loss: float

    @property
    def accuracy(self) -> float:
        """The fraction of correctly predicted images."""
        return float(self.correct.double().mean())

    @property
    def balanced_accuracy(self) -> float:
        """The mean, over the classes that occur, of the fraction of correctly predicted images.

        Source: Brodersen et al. 2010, The balanced accuracy and its posterior distribution.
        """
        _, target = self.target.unique(return_inverse=True)
        of_class = torch.bincount(target).double()
        right = torch.bincount(target, weights=self.correct.double())
        return float((right / of_class).mean())

    @property
    def correct(self) -> Tensor:
        """Whether each image was predicted correctly: bool [V]."""
        return self.prediction == self.target

    def matches(self, job: Job) -> bool:
        """Whether the images are the validation images of `job`. A damaged state has others."""
        images = job.split.validation
        values = (self.image, self.target, self.prediction, self.probability)
        return (
            all(isinstance(value, Tensor) and value.shape == images.shape for value in values)
            and torch.equal(self.image.cpu(), images)
            and isinstance(self.loss, float)
        )

    def columns(self) -> dict[str, Any]:
        """The columns of the tables `predictions` and `recalibration`, one row per image."""
        names = ("image", "target", "prediction", "probability")
        return {name: getattr(self, name).cpu().numpy() for name in names}


@torch.no_grad()
def evaluate(model: nn.Module, job: Job) -> Evaluation:
    """Classify the job's validation images in evaluation mode, then restore the model's mode.

    The precision is that of the training.
    """
    was_training = model.training
    model.eval()
    forward = job.computation.forward
    parts = [(batch, forward(model, batch.images)) for batch in job.validation_batches()]
    model.train(was_training)
    found = predictions_from(parts)
    loss = float(F.cross_entropy(torch.cat([logits for _, logits in parts]), found.target))
    return Evaluation(**vars(found), loss=loss)


def accuracy_changed(before: Evaluation, after: Evaluation, level: float = 0.05) -> bool:
    """Whether accuracy changed by more than sampling noise: exact McNemar test at `level`.

    Source: McNemar 1947. Without a change, an image that only one of the two evaluations got right
    is equally likely to be one gained or one lost.
    """
    gained = int((after.correct & ~before.correct).sum())
    lost = int((before.correct & ~after.correct).sum())
    if gained + lost == 0:
        return False
    return bool(binomtest(gained, gained + lost).pvalue < level)
