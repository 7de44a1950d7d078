"""Batches of images, normalized for a network: shuffled and augmented, or in order."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from gradflow.data.images import ImageData
from gradflow.data.on_device.augmentation import Draws, augment, draw, images_at_once
from gradflow.data.on_device.placement import to_device
from gradflow.errors import ConfigurationError
from gradflow.seeding import derived_seed

# Red, green and blue of ImageNet's training images, scaled to [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch of images on the requested device.

    Fields:
        images: float32 [B, 3, H, W], ImageNet's mean subtracted, divided by its standard deviation.
        targets: int64 [B], indices of the classes.
        indices: int64 [B], the images' positions in the data set.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor


def steps_per_epoch(n: int, batch_size: int) -> int:
    """The number of batches that `training_batches` makes of `n` images.

    No image is left out, so the last batch may be smaller. If it would hold a single image, that
    image joins the batch before it, because batch normalization cannot train on one image.

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
    """One epoch over the images at `indices` [T], shuffled, and augmented if `augment`.

    The order depends only on `indices`, `seed` and `epoch`; an image's augmentation only on the
    seed, the epoch and its index. Neither reads or advances the global random state. For the sizes
    of the batches see `steps_per_epoch`.

    Raises:
        ConfigurationError: The batch size is less than 1 or exceeds the number of images.
    """
    sizes = _batch_sizes(len(indices), batch_size)
    device = torch.device(device)
    generator = torch.Generator().manual_seed(derived_seed(seed, epoch, "order"))
    order = indices[torch.randperm(len(indices), generator=generator)]
    chunks = torch.split(order, sizes)
    if not augment:
        return (_batch(data, chosen, device) for chosen in chunks)
    return _augmented_batches(data, chunks, seed=seed, epoch=epoch, device=device)


def evaluation_batches(
    data: ImageData, indices: Tensor, *, batch_size: int, device: torch.device | str
) -> Iterator[Batch]:
    """The images at `indices` [V], unaugmented and in that order; the last batch may be smaller.

    Raises:
        ConfigurationError: The batch size is less than 1.
    """
    _require_positive(batch_size)
    device = torch.device(device)
    chunks = torch.split(indices, batch_size)
    return (_batch(data, chosen, device) for chosen in chunks if len(chosen))


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
    data: ImageData, chunks: tuple[Tensor, ...], *, seed: int, epoch: int, device: torch.device
) -> Iterator[Batch]:
    shape = data.images.shape[1:]
    for group in _groups(chunks, images_at_once(shape, device)):
        chosen = torch.cat(group)
        draws = draw(chosen.tolist(), seed=seed, epoch=epoch, channels=shape[0], flips=data.flips)
        whole = _batch(data, chosen, device, draws)
        sizes = [len(part) for part in group]
        parts = (value.split(sizes) for value in (whole.images, whole.targets, whole.indices))
        yield from (Batch(*part) for part in zip(*parts, strict=True))


def _groups(chunks: tuple[Tensor, ...], largest: int) -> Iterator[list[Tensor]]:
    """The `chunks`, those together that have up to `largest` images."""
    group: list[Tensor] = []
    for chosen in chunks:
        if group and sum(map(len, group)) + len(chosen) > largest:
            yield group
            group = []
        group.append(chosen)
    if group:
        yield group


def _batch(
    data: ImageData, chosen: Tensor, device: torch.device, draws: Draws | None = None
) -> Batch:
    """The images at the indices `chosen`, augmented with `draws`, normalized."""
    indices = to_device(chosen, device)
    if data.images.device.type == "cpu":
        images = to_device(data.images[chosen], device)
    else:
        images = data.images[indices]
    images = images.float() / 255
    if draws is not None:
        images = augment(images, draws)
    return Batch(normalize(images), to_device(data.labels[chosen], device), indices)


def normalize(images: Tensor) -> Tensor:
    """Float [B, 1 or 3, H, W] in [0, 1] to float32 [B, 3, H, W], normalized as for ImageNet."""
    mean, std = _constants(images.device, images.dtype)
    return (images - mean) / std


def pixels(images: Tensor) -> Tensor:
    """The inverse of `normalize`: from its result to pixels, uint8 [B, 3, H, W], 0 to 255."""
    mean, std = _constants(images.device, images.dtype)
    return ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


@cache
def _constants(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """ImageNet's mean and standard deviation of each color, [3, 1, 1], placed on a device once."""
    mean, std = (
        torch.tensor(values, dtype=dtype, device=device).view(3, 1, 1)
        for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return mean, std
