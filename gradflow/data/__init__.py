"""Image data sets, their split into training and validation, and the batches made of them."""

from gradflow.data.batches import Batch, evaluation_batches, steps_per_epoch, training_batches
from gradflow.data.images import ImageData
from gradflow.data.sources import load
from gradflow.data.splits import Split, split

__all__ = [
    "Batch",
    "ImageData",
    "Split",
    "evaluation_batches",
    "load",
    "split",
    "steps_per_epoch",
    "training_batches",
]
