"""Batches of images, normalized for a network: shuffled and augmented, or in order."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gradflow.data.augmentation import augment, augmentation
from gradflow.data.images import ImageData
from gradflow.errors import ConfigurationError
from gradflow.seeding import derived_seed

# Red, green and blue of ImageNet's training images, scaled to [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False)
class Batch:
    """Images on the device they were asked for.

    Fields:
        images: float32 [B, 3, H, W], ImageNet's mean subtracted, divided by its standard deviation.
        targets: int64 [B], indices of the classes.
        indices: int64 [B], the images' places in the data set.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor


def steps_per_epoch(n: int, batch_size: int) -> int:
    """How many batches `training_batches` makes of `n` images.

    The last batch may be smaller. A single image left over joins the batch before it instead,
    since batch normalization cannot train on one; no image is left out.

    Raises:
        ConfigurationError: The batch size is less than 1 or exceeds the number of images.
    """
    return len(_batch_sizes(n, batch_size))


def training_batches(
    data: ImageData,
    indices: Tensor,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    augment: bool,
    device: torch.device | str,
) -> Iterator[Batch]:
    """One epoch over the images at `indices` [T], shuffled, and augmented if asked for.

    The order depends on `indices`, `seed` and `epoch` alone, an image's augmentation on the seed,
    the epoch and its index; neither reads or advances the global random state. For the sizes of
    the batches see `steps_per_epoch`.

    Raises:
        ConfigurationError: The batch size is less than 1 or exceeds the number of images.
    """
    sizes = _batch_sizes(len(indices), batch_size)
    generator = torch.Generator().manual_seed(derived_seed(seed, epoch, "order"))
    order = indices[torch.randperm(len(indices), generator=generator)]
    if not augment:
        return (_batch(data, part, device) for part in torch.split(order, sizes))
    return _augmented_batches(
        data, torch.split(order, sizes), seed=seed, epoch=epoch, device=device
    )


def evaluation_batches(
    data: ImageData, indices: Tensor, *, batch_size: int, device: torch.device | str
) -> Iterator[Batch]:
    """The images at `indices` [V] as they are, in that order; the last batch may be smaller.

    Raises:
        ConfigurationError: The batch size is less than 1.
    """
    _require_positive(batch_size)
    return (_batch(data, part, device) for part in torch.split(indices, batch_size) if len(part))


def _batch_sizes(n: int, batch_size: int) -> list[int]:
    _require_positive(batch_size)
    if batch_size > n:
        raise ConfigurationError(
            f"batch size {batch_size} is larger than the {n} training images; choose a smaller one"
        )
    full, rest = divmod(n, batch_size)
    sizes = [batch_size] * full
    if rest == 1:
        sizes[-1] += 1
    elif rest:
        sizes.append(rest)
    return sizes


def _require_positive(batch_size: int) -> None:
    if batch_size < 1:
        raise ConfigurationError(f"a batch needs at least 1 image, not {batch_size}")


def _augmented_batches(
    data: ImageData,
    parts: tuple[Tensor, ...],
    *,
    seed: int,
    epoch: int,
    device: torch.device | str,
) -> Iterator[Batch]:
    transform = augmentation(channels=data.images.shape[1], flips=data.flips)
    for part in parts:
        images = data.images[part].float() / 255
        changed = augment(images, part.tolist(), transform, seed=seed, epoch=epoch)
        yield Batch(normalize(changed.to(device)), data.labels[part].to(device), part.to(device))


def _batch(data: ImageData, part: Tensor, device: torch.device | str) -> Batch:
    images = data.images[part].to(device).float() / 255
    return Batch(normalize(images), data.labels[part].to(device), part.to(device))


def normalize(images: Tensor) -> Tensor:
    """Float [B, 1 or 3, H, W] in [0, 1] to float32 [B, 3, H, W], normalized as ImageNet's are."""
    mean, std = _mean_and_std(images)
    return (images - mean) / std


def pixels(images: Tensor) -> Tensor:
    """What `normalize` was given, from what it gave: uint8 [B, 3, H, W], 0 to 255."""
    mean, std = _mean_and_std(images)
    return ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def _mean_and_std(images: Tensor) -> tuple[Tensor, Tensor]:
    """ImageNet's, of each color, [3, 1, 1] each, in the dtype and on the device of `images`."""
    mean, std = (
        images.new_tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return mean, std
