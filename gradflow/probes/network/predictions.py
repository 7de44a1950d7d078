"""What a network predicts for images, one value an image."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradflow.data import Batch


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for V images; every field has shape [V].

    Fields:
        image: int64, places in the data set.
        target, prediction: int64, classes.
        probability: float, softmax probability of the predicted class.
    """

    image: Tensor
    target: Tensor
    prediction: Tensor
    probability: Tensor


def predictions_from(parts: Sequence[tuple[Batch, Tensor]]) -> Predictions:
    """From batches, each with the logits [B, classes] of its images, in order."""
    probability, prediction = torch.cat([logits for _, logits in parts]).softmax(1).max(1)
    return Predictions(
        torch.cat([batch.indices for batch, _ in parts]),
        torch.cat([batch.targets for batch, _ in parts]),
        prediction,
        probability,
    )
