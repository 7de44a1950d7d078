"""Exact counts of magnitudes by power of two.

The counts of a tensor are a vector [BINS] of integers; those of a batch are the sum over its
tensors. The bins are: zeros; underflow, 0 < |x| < 2^-126, below the smallest normal number of
float32 and bfloat16; one bin for each exponent e from -126 to 127, 2^e <= |x| < 2^(e+1), the last
of which also counts larger numbers of float64; infinite; nan. Every exponent of float32 has a bin,
so the histogram is not cut off; a layer's values fill a few dozen bins.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

LOWEST_EXPONENT, HIGHEST_EXPONENT = -126, 127
ZERO_BIN, UNDERFLOW_BIN, FIRST_EXPONENT_BIN = 0, 1, 2
INFINITE_BIN = FIRST_EXPONENT_BIN + HIGHEST_EXPONENT - LOWEST_EXPONENT + 1
NAN_BIN = INFINITE_BIN + 1
BINS = NAN_BIN + 1

# Elements whose bins are computed at a time: their indices take eight bytes each.
_CHUNK = 1 << 22


def count(x: Tensor) -> Tensor:
    """Return the counts of x [BINS], int64 on its device, without transferring a value."""
    counts = torch.zeros(BINS, dtype=torch.int64, device=x.device)
    for part in x.reshape(-1).split(_CHUNK):
        bins = _bins(part)
        counts.scatter_add_(0, bins, torch.ones_like(bins))
    return counts


def from_exponents(exponents: np.ndarray, zeros: int, nans: int) -> Tensor:
    """Return the counts [BINS] from those of biased exponents, [256] of float32, [2048] of float64.

    The first exponent also counts the `zeros` zeros, the last one the `nans` nans.
    """
    bias = exponents.size // 2 - 1
    lowest, highest = LOWEST_EXPONENT + bias, HIGHEST_EXPONENT + bias
    counts = np.zeros(BINS, np.int64)
    counts[ZERO_BIN] = zeros
    counts[UNDERFLOW_BIN] = exponents[:lowest].sum() - zeros
    counts[FIRST_EXPONENT_BIN:INFINITE_BIN] = exponents[lowest : highest + 1]
    counts[INFINITE_BIN - 1] += exponents[highest + 1 : -1].sum()
    counts[INFINITE_BIN] = exponents[-1] - nans
    counts[NAN_BIN] = nans
    return torch.from_numpy(counts)


def to_columns(counts: np.ndarray) -> dict[str, np.ma.MaskedArray[Any, Any]]:
    """Return the columns of `runs.format.schema` for the counts [T, BINS] of T tensors."""
    bins = counts[:, FIRST_EXPONENT_BIN:INFINITE_BIN]
    filled = bins != 0
    empty = ~filled.any(axis=1)
    first, last = filled.argmax(axis=1), bins.shape[1] - filled[:, ::-1].argmax(axis=1)
    last[empty] = 0  # so that these rows have no bin
    lengths = np.maximum(last - first, 0)
    ends = np.cumsum(lengths)
    begins = ends - lengths
    # Of each row, the columns from `first` to `last`: in one array, of which the rows are parts.
    rows = np.repeat(np.arange(len(counts)), lengths)
    flat = bins[rows, np.arange(len(rows)) - begins[rows] + first[rows]]
    trimmed = np.empty(len(counts), dtype=object)
    for row, (begin, end) in enumerate(zip(begins.tolist(), ends.tolist(), strict=True)):
        trimmed[row] = flat[begin:end]
    return {
        "zeros": np.ma.array(counts[:, ZERO_BIN]),
        "underflow": np.ma.array(counts[:, UNDERFLOW_BIN]),
        "infinite": np.ma.array(counts[:, INFINITE_BIN]),
        "nan": np.ma.array(counts[:, NAN_BIN]),
        "lowest_exponent": np.ma.array(np.where(empty, 0, first + LOWEST_EXPONENT), mask=empty),
        "counts": np.ma.array(trimmed, mask=False),
    }


def _bins(x: Tensor) -> Tensor:
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    # frexp: |x| = m 2^e with 1/2 <= m < 1.
    exponent = torch.frexp(x).exponent.long() - 1
    bins = exponent.clamp(max=HIGHEST_EXPONENT) - LOWEST_EXPONENT + FIRST_EXPONENT_BIN
    bins = torch.where(exponent < LOWEST_EXPONENT, UNDERFLOW_BIN, bins)
    bins = torch.where(x == 0, ZERO_BIN, bins)
    bins = torch.where(x.isinf(), INFINITE_BIN, bins)
    return torch.where(x.isnan(), NAN_BIN, bins)
