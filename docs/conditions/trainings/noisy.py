"""Single samples, most of them with labels at random: nothing is left of the mean gradient."""

from functools import partial
from pathlib import Path

import torch
from small_training import digits, perceptron, train

from gradflow.probes.gradients.noise_scale import noise_scale


def trained(folder: Path, batch: int, rate: float, wrong: float) -> Path:
    """Train in such batches, with labels of which this share is drawn at random."""
    pixels, classes = digits()
    others = torch.randint(10, classes.shape)
    classes = torch.where(torch.rand(len(classes)) < wrong, others, classes)
    probe = partial(noise_scale, draws=16, large_batch=256)
    return train(
        perceptron(), folder, rate=rate, batch=batch, data=(pixels, classes), epochs=1, probe=probe
    )


def ill(folder: Path) -> Path:
    """One sample at a time, nine of ten labels at random."""
    return trained(folder, batch=1, rate=0.003, wrong=0.9)


def mended(folder: Path) -> Path:
    """With 64 samples at a time, and the labels as they are."""
    return trained(folder, batch=64, rate=0.2, wrong=0.0)
