"""Puts images and numbers on the training's device: once if they fit, without waiting for them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradflow.data.images import ImageData

# The network, its optimizer and its activations need the rest.
LARGEST_SHARE = 0.25


@dataclass(frozen=True)
class Placement:
    """Where the images of a training are.

    Fields:
        device: the type of the device that holds them.
        bytes: their size.
        free_bytes: how many bytes were free on the training's device before; None on the CPU, and
            where the device does not tell.
    """

    device: str
    bytes: int
    free_bytes: int | None


def placed(data: ImageData, device: torch.device) -> tuple[ImageData, Placement]:
    """`data` with its images on `device`, if they take at most a quarter of the memory free there.

    Otherwise they stay in main memory, from where each batch is sent. The labels always stay there.
    """
    size = data.images.nbytes
    free = None if device.type == "cpu" else _free_bytes(device)
    if free is None or size > LARGEST_SHARE * free:
        return data, Placement("cpu", size, free)
    return replace(data, images=data.images.to(device)), Placement(device.type, size, free)


def _free_bytes(device: torch.device) -> int | None:
    """The bytes free on a device other than the CPU; None if it does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return None


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """`values`, from the CPU to `device`; nothing waits until they are there."""
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)
