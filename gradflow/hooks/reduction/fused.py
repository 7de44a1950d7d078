"""Computes all statistics of a tensor from one read, without transferring a value from the device.

A tensor x [N, C, S] is reduced on its device to `Moments`: for each channel the sum, the sum of
squares and the sum of squared deviations from the channel's mean; for the whole tensor the sums of
third and fourth powers about one of its elements, the largest magnitude, the counts of zeros and of
non-finite values, and optionally a histogram of magnitudes.
`statistics.from_moments` computes the quantities of `gradflow.runs.format.schema` from these later.

On the CPU the loops of `loops.compiled` need one read, and so do the kernels of `cuda.kernels` on
CUDA. On other devices, and without numba or Triton, torch needs a few. All sums are in float64
(float32 on mps, which has no float64). Deviations are taken about an element of the channel, so the
relative error of a variance is about 1e-11 even if the mean is far larger. torch on CUDA takes them
about 0; the relative error is then about 1e-16 (1 + mean^2 / variance). Squares of float64 values
below 1e-154 underflow.

Third and fourth powers are taken about an element x0 of the tensor, and moved to the mean by the
binomial formulas (Pebay 2008). Their terms exceed the fourth central moment by a factor of at most
min(t^4, M), t = |x0 - mean| / std, since x0 itself adds t^4 / M to the kurtosis. So the relative
error of a kurtosis is about 1e-12 for most tensors, 1e-10 if the mean is 1e4 times std, and 1e-8 if
x0 is the only outlier of a million elements. Fourth powers of float64 values below 1e-77 underflow,
and on mps those of values below 1e-9: a tensor there whose std is below 1e-8 has no kurtosis.

Axis letters: N batch, C channel (axis 1 or the last), S everything else, A everything before C.
"""

import math

import numpy as np
import torch
from torch import Tensor

from gradflow.hooks.reduction import cpu, histograms, means
from gradflow.hooks.reduction.by_torch import reduce as _by_torch
from gradflow.hooks.reduction.by_torch import sum_dtype
from gradflow.hooks.reduction.cuda import checked
from gradflow.hooks.reduction.moments import Moments
from gradflow.hooks.reduction.nested import plain, values_of

# Of ordinary tensors of these types, moments never fail.
_ORDINARY_TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

_WITHOUT_TRITON = (
    "torch, in several reads: Triton is missing, has no C compiler, or gave other numbers"
)
# By whether they work here.
_WITH_TRITON = {
    True: "Triton's kernels, in one read, in groups",
    False: "Triton's kernels, in one read, one by one: in groups they failed",
}
_CPU_MEANS = {
    True: "numba's loops, in one read",
    False: "torch, in several reads: numba is missing, or has no folder for its cache",
}


def moments(x: Tensor, channel_axis: int | None, *, histogram: bool = False) -> Moments:
    """Reduce x to its moments; `channel_axis` is None for a tensor without channels.

    `histogram` also asks for the counts of magnitudes. Of complex numbers the moments are those of
    their magnitudes, of a nested tensor those of its values; `channel_axis` then stands for the
    axis that `nested.values_of` gives.

    Raises `TypeError` for an integer or empty tensor.
    """
    if not (x.is_floating_point() or x.is_complex()) or x.numel() == 0:
        raise TypeError(
            f"moments need a non-empty floating-point tensor, got {x.dtype} {list(x.shape)}"
        )
    x = plain(x)
    batch_size = x.size(0) if x.dim() else 1
    if x.is_nested:
        x, last_axis = values_of(x)
        channel_axis = None if channel_axis is None else last_axis
    if x.is_complex():
        x = x.abs()
    elif x.dtype.itemsize == 1:
        x = x.float()  # torch has few functions for numbers of eight bits
    shape = x.shape
    if not shape:
        channel_axis = None
    has_channels = channel_axis is not None
    channels = 1 if channel_axis is None else shape[channel_axis]
    found = cpu.reduce(x, channel_axis, exponents=histogram)
    magnitudes = None
    values: Tensor | np.ndarray
    if found is None:
        with torch.no_grad():
            by_kernel = _by_kernel(x, channel_axis, histogram=histogram)
            values, magnitudes = by_kernel or (_by_torch(x, channel_axis), None)
            if histogram and magnitudes is None:
                magnitudes = histograms.count(x)
    else:
        values, exponents = found
        if exponents is not None:
            nans = int(x.isnan().sum()) if values[-1] else 0
            magnitudes = histograms.from_exponents(exponents, int(values[-2]), nans)
    if isinstance(values, Tensor) and type(values) is not Tensor:
        raise TypeError(f"the sums of a {type(x).__name__} are no ordinary numbers")
    return Moments(values, channels, x.numel(), batch_size, has_channels, magnitudes)


def moments_if_any(
    x: Tensor, channel_axis: int | None, *, histogram: bool = False
) -> Moments | None:
    """Return `moments`, or None if the class or dtype of x lacks the functions that they need."""
    try:
        return moments(x, channel_axis, histogram=histogram)
    except (RuntimeError, TypeError, ValueError):
        if type(x) in (Tensor, torch.nn.Parameter) and x.dtype in _ORDINARY_TYPES:
            raise
        return None


@torch.no_grad()
def safe_norm(x: Tensor) -> Tensor:
    """Return the L2 norm of x, 0-d, correct even if the squares of its elements would underflow."""
    square = cpu.square_sum(x.detach())
    if square is not None:
        return torch.tensor(math.sqrt(square), dtype=torch.float64)
    norm: Tensor = torch.linalg.vector_norm(x, dtype=sum_dtype(x))
    return norm


def prepare_device(device: torch.device) -> None:
    """Load and test the loops or kernels for `device`, so that no step waits for it."""
    if device.type == "cuda":
        if checked.kernels(device) is None:
            means.note("layers", _WITHOUT_TRITON)
        else:
            checked.counts_magnitudes(device)
            checked.products(device)
            means.note("layers", _WITH_TRITON[checked.work_in_groups(device)])
    elif device.type == "cpu":
        means.note("layers", _CPU_MEANS[cpu.loops_module() is not None])
    else:
        means.note("layers", f"torch, in several reads, on {device.type}")


def _on_gpu(x: Tensor) -> bool:
    return x.is_cuda and type(x) is Tensor and x.layout == torch.strided and not x.is_neg()


def _by_kernel(
    x: Tensor, channel_axis: int | None, *, histogram: bool
) -> tuple[Tensor, Tensor | None] | None:
    """Return the values of `Moments` from one read on a GPU, or None if x is not supported.

    Beside them are the counts of magnitudes, if asked for; None if the kernels do not count them.
    """
    kernels = checked.kernels(x.device) if _on_gpu(x) else None
    if kernels is None or x.dtype not in kernels.DTYPES or x.numel() > kernels.MAX_ELEMENTS:
        return None
    counted = histogram and checked.counts_magnitudes(x.device)
    values: tuple[Tensor, Tensor | None] = kernels.reduce(x, channel_axis, histogram=counted)
    return values
