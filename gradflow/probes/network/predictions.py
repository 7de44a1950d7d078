"""The predictions of a network: predicted class and probability for each image."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradflow.data import Batch


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for V images; every field has shape [V].

    Fields:
        image: int64, indices in the data set.
        target, prediction: int64, true and predicted class.
        probability: float, softmax probability of the predicted class.
    """

    image: Tensor
    target: Tensor
    prediction: Tensor
    probability: Tensor


def predictions_from(parts: Sequence[tuple[Batch, Tensor]]) -> Predictions:
    """The predictions for all batches, given each batch with the logits [B, classes]."""
    probability, prediction = torch.cat([logits for _, logits in parts]).softmax(1).max(1)
    return Predictions(
        torch.cat([batch.indices for batch, _ in parts]),
        torch.cat([batch.targets for batch, _ in parts]),
        prediction,
        probability,
    )
