"""Random changes to training images, drawn for each image from its own seed.

The random numbers for an image depend only on the seed, the epoch and the image's index. Networks
with one seed therefore see the same pixels, whatever batch the image is in.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms import v2

from gradflow.seeding import derived_seed


def augmentation(*, channels: int, flips: bool) -> v2.Transform:
    """Mirroring (if `flips`), rotation and color jitter, for one image [C, H, W].

    A horizontal flip with probability 0.5; a rotation within 15 degrees, nearest pixel, corners
    black; brightness, contrast and saturation within 20 percent and hue within 0.1 of a turn. Gray
    images have no saturation or hue.
    """
    color = {"saturation": 0.2, "hue": 0.1} if channels == 3 else {}
    return v2.Compose(
        [
            *([v2.RandomHorizontalFlip(0.5)] if flips else []),
            v2.RandomRotation(15),
            v2.ColorJitter(brightness=0.2, contrast=0.2, **color),
        ]
    )


def augment(
    images: Tensor, indices: Sequence[int], transform: v2.Transform, *, seed: int, epoch: int
) -> Tensor:
    """The images [B, C, H, W], float in [0, 1], each changed by `transform` with its own seed.

    `indices` are the images' positions in the data set. The transform is called on each image,
    because on a batch it would use the same random numbers for all images.
    """
    with torch.random.fork_rng(devices=[]):
        changed = []
        for image, index in zip(images, indices, strict=True):
            # torch.manual_seed would reseed the accelerators too
            torch.default_generator.manual_seed(derived_seed(seed, epoch, index))
            changed.append(transform(image))
    return torch.stack(changed)
