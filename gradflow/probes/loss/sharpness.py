"""The probe `sharpness`: the curvature of the training loss along its own gradient.

It uses one batch and runs at two epochs only: a product with the Hessian costs several gradients.
"""

from gradflow.probes.loss.training_loss import (
    batch_statistics,
    count_images,
    curvature_along_gradient,
    first_batches,
)
from gradflow.probes.probe import Probe, Subject, Tables, When

BATCHES = 1


def measure(subject: Subject) -> Tables:
    """The table `sharpness`, with one row."""
    batches = first_batches(subject, BATCHES)
    with batch_statistics(subject.model):
        norm, curvature = curvature_along_gradient(subject.model, batches[0])
    return {
        "sharpness": {
            "gradient_norm": [norm],
            "curvature": [curvature],
            "images": [count_images(batches)],
        }
    }


PROBE = Probe(name="sharpness", tables=("sharpness",), when=When.FIRST_AND_LAST, measure=measure)
