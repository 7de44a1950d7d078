"""Image data sets, their split into training and validation, and the batches made of them."""

from gradflow.data.batches import Batch, evaluation_batches, steps_per_epoch, training_batches
from gradflow.data.images import ImageData
from gradflow.data.labelled_files import Reading
from gradflow.data.sources import load
from gradflow.data.splits import Duplicates, Split, find_duplicates, split

__all__ = [
    "Batch",
    "Duplicates",
    "ImageData",
    "Reading",
    "Split",
    "evaluation_batches",
    "find_duplicates",
    "load",
    "split",
    "steps_per_epoch",
    "training_batches",
]
