"""The squares of a tensor by position in a sequence, and the bins of positions that are stored.

Axis letters: N batch, T positions, H everything else.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradflow.hooks.reduction.fused import moments_if_any

MOST_BINS = 32


@dataclass(frozen=True)
class Squares:
    """Sums of squares over N and H, still on the device.

    Fields:
        values: [T], or [rows] of a packed sequence.
        sizes: of a packed sequence, how many rows each position has, [T]; otherwise None.
        elements: of all positions together.
    """

    values: Tensor | np.ndarray
    sizes: Tensor | None
    elements: int

    @property
    def positions(self) -> int:
        """T."""
        return len(self.values if self.sizes is None else self.sizes)


def squares_of(x: Tensor, axis: int, sizes: Tensor | None = None) -> Squares | None:
    """Return the sums of squares of x along its time axis; None if its type has none.

    `sizes` are those of a packed sequence, whose rows x [rows, H] holds position by position.
    """
    seen = moments_if_any(x.detach(), 0 if sizes is not None else axis)
    if seen is None:
        return None
    # Behind the sums by channel, which are positions here, come the sums of squares.
    squares = seen.values[seen.channels : 2 * seen.channels]
    return Squares(squares, sizes, seen.elements)


def on_host(found: list[Squares]) -> list[np.ndarray]:
    """Return the sums of squares by position, [T] each, with a single transfer."""
    held = [one.values for one in found if isinstance(one.values, Tensor)]
    moved = torch.cat(held).cpu().double().numpy() if held else np.empty(0)
    parts = iter(np.split(moved, np.cumsum([len(one) for one in held])[:-1]))
    rows = [next(parts) if isinstance(one.values, Tensor) else one.values for one in found]
    return [
        values if one.sizes is None else np.add.reduceat(values, _starts(one.sizes))
        for values, one in zip(rows, found, strict=True)
    ]


def first_positions(positions: int) -> np.ndarray:
    """Return the first position of each bin: at most 32, all as wide but the last."""
    return np.arange(0, positions, -(-positions // MOST_BINS))


def binned(values: np.ndarray) -> np.ndarray:
    """Return the mean of each bin of `values` [..., T], over those that are not nan."""
    starts, known = first_positions(values.shape[-1]), ~np.isnan(values)
    counts = np.add.reduceat(known.astype(float), starts, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        sums = np.add.reduceat(np.where(known, values, 0.0), starts, axis=-1)
        means: np.ndarray = sums / counts
    return means


def _starts(sizes: Tensor) -> np.ndarray:
    counts = sizes.numpy()
    starts: np.ndarray = np.cumsum(counts) - counts
    return starts
