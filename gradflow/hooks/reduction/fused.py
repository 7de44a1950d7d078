"""Computes all statistics of a tensor from one read, without transferring a value from the device.

A tensor x [N, C, S] is reduced on its device to `Moments`: for each channel the sum, the sum of
squares and the sum of squared deviations from the channel's mean; for the whole tensor the sums of
third and fourth powers about one of its elements, the largest magnitude, the counts of zeros and of
non-finite values, and optionally a histogram of magnitudes.
`to_statistics` computes the quantities of `gradflow.runs.format.schema` from these later, by
arithmetic on C numbers, for many tensors at once.

On the CPU the loops of `gradflow.hooks.reduction.compiled` need one read, and so do the kernels of
`gradflow.hooks.reduction.cuda.kernels` on CUDA. On other devices, and without numba or Triton,
torch needs a few. All sums are in float64 (float32 on mps, which has no float64). Deviations are
taken about an element of the channel, so the relative error of a variance is about 1e-11 even if
the mean is far larger. torch on CUDA takes them about 0; the relative error is then about
1e-16 (1 + mean^2 / variance). Squares of float64 values below 1e-154 underflow.

Third and fourth powers are taken about an element x0 of the tensor, and moved to the mean by the
binomial formulas (Pebay 2008). Their terms exceed the fourth central moment by a factor of at most
min(t^4, M), t = |x0 - mean| / std, since x0 itself adds t^4 / M to the kurtosis. So the relative
error of a kurtosis is about 1e-12 for most tensors, 1e-10 if the mean is 1e4 times std, and 1e-8 if
x0 is the only outlier of a million elements. Fourth powers of float64 values below 1e-77 underflow,
and on mps those of values below 1e-9: a tensor there whose std is below 1e-8 has no kurtosis.

Axis letters: N batch, C channel (axis 1 or the last), S everything else, A everything before C.
"""

import math
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradflow.hooks.reduction import cpu, histograms, means
from gradflow.hooks.reduction.by_torch import reduce as _by_torch
from gradflow.hooks.reduction.by_torch import sum_dtype
from gradflow.hooks.reduction.nested import plain, values_of
from gradflow.hooks.reduction.parts import Part

# How many numbers of a tensor its statistics follow from: see `sums_in`.
SUMS = 12
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


@dataclass(slots=True)
class Moments:
    """The moments of one tensor, or of several taken as one batch; they stay on the device.

    Fields:
        values: [3 C + 6] the sums, sums of squares and sums of squared deviations from the mean, by
            channel; then an element x0 of the tensor (0 if it is not finite) and the sums of
            (x - x0)^3 and (x - x0)^4 over the whole tensor; then the largest magnitude, the count
            of zeros and the count of non-finite values. A numpy array if a compiled loop computed
            it.
        channels: C; 1 without a channel axis.
        elements: M, the number of elements.
        batch_size: N.
        has_channels: whether the tensor had a channel axis.
        magnitudes: counts of magnitudes as in `histograms.count`; None if not asked for.
        part: the part of the tensor that these are of, if processes share it.
    """

    values: Tensor | np.ndarray
    channels: int
    elements: int
    batch_size: int
    has_channels: bool
    magnitudes: Tensor | None = None
    part: Part = Part.WHOLE

    def scaled(self, factor: float) -> "Moments":
        """Return the moments of the tensor times `factor` > 0, without the counts of magnitudes."""
        powers = np.repeat([factor, factor**2, factor**2], self.channels)
        by_value = np.concatenate(
            [powers, [factor, factor**3, factor**4], [factor, 1.0, 1.0]],
        )
        values = _tensor(self.values)
        return replace(self, values=values * values.new_tensor(by_value), magnitudes=None)

    def join(self, other: "Moments") -> "Moments":
        """Return the moments of both tensors as one batch, as under gradient accumulation.

        If their channels differ in number, as do steps of a sequence, the whole has no channels.
        """
        if (self.channels, self.has_channels) != (other.channels, other.has_channels):
            return self._without_channels().join(other._without_channels())
        values, added, channels = _tensor(self.values), _tensor(other.values), self.channels
        joined = values + added
        joined[-6] = values[-6]
        joined[-5:-3] = values[-5:-3] + other._powers_about(values[-6])
        joined[-3] = torch.maximum(values[-3], added[-3])
        # Chan et al. 1979: the term that the difference of the two means adds to the deviations.
        mine, theirs = self.elements / channels, other.elements / channels
        apart = added[:channels] / theirs - values[:channels] / mine
        between = apart.square() * (mine * theirs / (mine + theirs))
        joined[2 * channels : 3 * channels] += between
        magnitudes = None
        if self.magnitudes is not None and other.magnitudes is not None:
            magnitudes = self.magnitudes + other.magnitudes
        return Moments(
            joined,
            channels,
            self.elements + other.elements,
            self.batch_size + other.batch_size,
            self.has_channels,
            magnitudes,
            self.part if self.part is other.part else Part.UNKNOWN,
        )

    def beside(self, other: "Moments") -> "Moments":
        """Return the moments of the tensor that has the channels of both, these first."""
        mine, added = _tensor(self.values), _tensor(other.values)
        # Sums of each kind by channel, [3, C], are followed by six numbers of the tensor.
        sums = [mine[:-6].reshape(-1, self.channels), added[:-6].reshape(-1, other.channels)]
        whole = mine[-6:] + added[-6:]
        whole[0] = mine[-6]
        whole[1:3] = mine[-5:-3] + other._powers_about(mine[-6])
        whole[3] = torch.maximum(mine[-3], added[-3])
        magnitudes = None
        if self.magnitudes is not None and other.magnitudes is not None:
            magnitudes = self.magnitudes + other.magnitudes
        return replace(
            self,
            values=torch.cat([torch.cat(sums, 1).flatten(), whole]),
            channels=self.channels + other.channels,
            elements=self.elements + other.elements,
            magnitudes=magnitudes,
        )

    def _without_channels(self) -> "Moments":
        """Return the moments of the same tensor taken as one without a channel axis."""
        values, size = _tensor(self.values), self.elements / self.channels
        sums, squares, deviations = values[:-6].view(3, -1)
        means = sums / size
        between = (means - means.mean()).square() * size
        whole = torch.stack([sums.sum(), squares.sum(), (deviations + between).sum()])
        # Without channels, some of a tensor's channels are some of its positions.
        part = Part.POSITIONS if self.part is Part.CHANNELS else self.part
        joined = torch.cat([whole, values[-6:]])
        return replace(self, values=joined, channels=1, has_channels=False, part=part)

    def _powers_about(self, origin: Tensor) -> Tensor:
        """Return the sums of (x - origin)^3 and (x - origin)^4 over the whole tensor: [2]."""
        values = _tensor(self.values)
        totals, _, deviations = values[: 3 * self.channels].view(3, -1)
        own_origin, cubes, fourths = values[-6:-3]
        means = totals * (self.channels / self.elements)
        between = (means - means.mean()).square().mean() * self.elements
        total = totals.sum() - self.elements * own_origin
        square = deviations.sum() + between + total.square() / self.elements
        s = own_origin - origin
        count = self.elements
        third = cubes + s * (3 * square + s * (3 * total + s * count))
        fourth = fourths + s * (4 * cubes + s * (6 * square + s * (4 * total + s * count)))
        return torch.stack([third, fourth])


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


def _tensor(values: Tensor | np.ndarray) -> Tensor:
    return values if isinstance(values, Tensor) else torch.from_numpy(values)


@torch.no_grad()
def safe_norm(x: Tensor) -> Tensor:
    """Return the L2 norm of x, 0-d, correct even if the squares of its elements would underflow."""
    square = cpu.square_sum(x.detach())
    if square is not None:
        return torch.tensor(math.sqrt(square), dtype=torch.float64)
    norm: Tensor = torch.linalg.vector_norm(x, dtype=sum_dtype(x))
    return norm


@cache
def _kernels(device: torch.device) -> ModuleType | None:
    """Return the Triton kernels, or None if they are missing, fail or differ from torch."""
    try:
        module = import_module("gradflow.hooks.reduction.cuda.launches")
        sample = _sample(device)
        # The first launch compiles; the second is of the kept kernel.
        found = [module.reduce(sample, 1)[0] for _ in range(2)]
        expected = _by_torch(sample, 1)
        same = all(torch.allclose(one, expected, rtol=1e-9, atol=1e-9) for one in found)
    except Exception:  # on any failure, torch computes the same numbers
        return None
    return module if same else None


@cache
def _counts_by_kernel(device: torch.device) -> bool:
    """Whether the Triton kernels count magnitudes as torch does."""
    module = _kernels(device)
    if module is None:
        return False
    try:
        sample = _sample(device).pow(9)
        sample[0, 0, :5] = torch.tensor([0.0, -0.0, math.inf, math.nan, 1e-40])
        _, counts = module.reduce(sample, 1, histogram=True)
        return torch.equal(counts, histograms.count(sample))
    except Exception:  # on any failure, torch counts
        return False


@cache
def _groups_in_kernel(device: torch.device) -> bool:
    """Whether the Triton kernels give in groups, to the last bit, what they give for one tensor."""
    module = _kernels(device)
    if module is None:
        return False
    try:
        sample = _sample(device)
        items = [
            (sample if dtype is None else sample.to(dtype), axis, False)
            for dtype in (None, torch.float32, torch.bfloat16)
            for axis in (None, 1, 2)
        ]
        alone = [module.reduce(x, axis)[0] for x, axis, _ in items]
        for _ in range(2):  # the first launch compiles; the second is of the kept kernel
            found = [values for values, _ in module.reduce_group(items)]
            if not all(torch.equal(a, b) for a, b in zip(found, alone, strict=True)):
                return False
    except Exception:  # on any failure, tensors are reduced one by one
        return False
    return True


@cache
def products_in_kernel(device: torch.device) -> ModuleType | None:
    """Return the Triton kernel for products of gradients, or None if it differs from torch."""
    if _kernels(device) is None:
        return None
    try:
        module = import_module("gradflow.hooks.reduction.cuda.products")
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            whole = _sample(device).to(dtype)
            skip, branch = whole.flip(-1).contiguous(), whole.square()
            w, s, b = (one.double() for one in (whole, skip, branch))
            g = s + b
            pairs = ((g, g), (s, s), (b, b), (s, b), (s, g), (w, w), (w - g, w - g))
            expected = torch.stack([(one * other).sum() for one, other in pairs])
            for _ in range(2):  # the first launch compiles; the second is of the kept kernel
                found = module.multiply([(whole, skip, branch)] * 2)
                if not all(torch.allclose(one, expected, rtol=1e-9) for one in found):
                    return None
    except Exception:  # on any failure, torch computes the same numbers
        return None
    return module


def takes_groups(device: torch.device, dtype: torch.dtype, elements: int) -> bool:
    """Whether the Triton kernels reduce such tensors of `device` in groups."""
    module = _kernels(device) if _groups_in_kernel(device) else None
    return module is not None and dtype in module.DTYPES and elements <= module.MAX_ELEMENTS


def counts_in_kernel(device: torch.device) -> bool:
    """Whether the Triton kernels of `device` count magnitudes in the read that reduces them."""
    return _counts_by_kernel(device)


def values_of_group(
    device: torch.device, items: list[tuple[Tensor, int | None, bool]]
) -> list[tuple[Tensor, Tensor | None]]:
    """Return values and counts of magnitudes for each (tensor, axis, histogram)."""
    module = _kernels(device)
    assert module is not None
    found: list[tuple[Tensor, Tensor | None]] = module.reduce_group(items)
    return found


def plans_of_group(
    device: torch.device, tensors: list[tuple[torch.dtype, tuple[int, ...], int | None, bool]]
) -> list[Any]:
    """Return the plans of the launches for tensors of these kinds, see `launches.plan_of`."""
    module = _kernels(device)
    assert module is not None
    plans: list[Any] = module.plans_of(tensors)
    return plans


def _sample(device: torch.device) -> Tensor:
    sample = torch.arange(4 * 8 * 37, device=device).remainder(13).sub(4).div(3)
    return sample.reshape(4, 8, 37)


def prepare_device(device: torch.device) -> None:
    """Load and test the loops or kernels for `device`, so that no step waits for it."""
    if device.type == "cuda":
        if _kernels(device) is None:
            means.note("layers", _WITHOUT_TRITON)
        else:
            _counts_by_kernel(device)
            products_in_kernel(device)
            means.note("layers", _WITH_TRITON[_groups_in_kernel(device)])
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
    kernels = _kernels(x.device) if _on_gpu(x) else None
    if kernels is None or x.dtype not in kernels.DTYPES or x.numel() > kernels.MAX_ELEMENTS:
        return None
    counted = histogram and _counts_by_kernel(x.device)
    values: tuple[Tensor, Tensor | None] = kernels.reduce(x, channel_axis, histogram=counted)
    return values


def to_statistics(batch: list[Moments]) -> dict[str, np.ndarray]:
    """Return the statistics of T tensors: arrays [T] by name, as in `runs.format.schema`.

    Only this function transfers values from the device. The channel statistics of a tensor without
    channels, and the kurtosis of equal elements, are nan here, and stored as missing.
    """
    if not batch:
        raise ValueError("no moments given")
    flat = on_host([entry.values for entry in batch])
    counts = np.array([entry.channels for entry in batch])
    elements = np.array([entry.elements for entry in batch], np.float64)
    with_channels = np.array([entry.has_channels for entry in batch])
    found = sums_in(flat, np.cumsum(3 * counts + 6), counts, elements)
    return statistics_from(found, counts, elements, with_channels)


def on_host(values: list[Tensor | np.ndarray]) -> np.ndarray:
    """Return all values in float64, in order of the tensors, with a single transfer."""
    on_device = [entry for entry in values if isinstance(entry, Tensor)]
    if not on_device:
        return np.concatenate(values)
    lengths = [entry.numel() for entry in on_device]
    moved = torch.cat(on_device).cpu().numpy().astype(np.float64)
    parts = iter(np.split(moved, np.cumsum(lengths)[:-1]))
    return np.concatenate([next(parts) if isinstance(v, Tensor) else v for v in values])


def sums_in(
    flat: np.ndarray, ends: np.ndarray, counts: np.ndarray, elements: np.ndarray
) -> np.ndarray:
    """Return the sums of tensors whose values are in one array `flat`: [12, T].

    `ends` [T] says where the values of each end there, `counts` the channels; `elements` are the
    numbers of elements, in float64. Of a tensor with C channels of n = M / C elements they are: the
    sum; the sum of squares; the sum over channels of their squared means, of their variances, and
    of the squared differences between their means and that of the whole; the number of channels
    without a square; then the last six values of its `Moments`.
    """
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    # The place of each channel's sum in `flat`, for one tensor after the other.
    places = np.arange(counts.sum()) + np.repeat(ends - 3 * counts - 6 - starts, counts)
    offsets = np.repeat(counts, counts)
    sums, squares, deviations = (flat[places + kind * offsets] for kind in range(3))
    by_channel = np.repeat(elements / counts, counts)
    found = np.empty((SUMS, len(ends)))
    # Infinities and nans belong in the result, without warnings.
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        means = sums / by_channel
        found[0] = np.add.reduceat(sums, starts)
        found[1] = np.add.reduceat(squares, starts)
        found[2] = np.add.reduceat(means**2, starts)
        found[3] = np.add.reduceat(deviations / by_channel, starts)
        apart = means - np.repeat(found[0] / elements, counts)
        found[4] = np.add.reduceat(apart**2, starts)
        found[5] = np.add.reduceat((squares == 0).astype(np.int64), starts)
    found[6:] = flat[(ends - 6) + np.arange(6)[:, None]]
    return found


def statistics_from(
    sums: np.ndarray, counts: np.ndarray, elements: np.ndarray, with_channels: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the statistics of T tensors from their `sums_in`; the others are as in `Moments`.

    `elements` are in float64.
    """
    total, squares, squared_means, variances, between_means, dead = sums[:6]
    origin, cubes, fourths, largest, zeros, nonfinite = sums[6:]
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        mean, variance = total / elements, variances / counts
        # Total variance = mean variance within channels + variance of the channel means.
        total_variance = variance + between_means / counts
        kurtosis = _kurtosis(mean - origin, total_variance, cubes / elements, fourths / elements)
        return {
            "mean": mean,
            "std": np.sqrt(total_variance),
            "rms": np.sqrt(squares / elements),
            "norm": np.sqrt(squares),
            "kurtosis": kurtosis,
            "abs_max": largest,
            "zero_fraction": zeros / elements,
            "nonfinite": nonfinite.astype(np.int64),
            "dead_channels": np.where(with_channels, dead, np.nan),
            "channel_squared_mean": np.where(with_channels, squared_means / counts, np.nan),
            "channel_variance": np.where(with_channels, variance, np.nan),
        }


def _kurtosis(
    distance: np.ndarray, variance: np.ndarray, third: np.ndarray, fourth: np.ndarray
) -> np.ndarray:
    """Return the kurtosis from moments about an element x0; nan if all elements equal x0.

    `distance` is mean - x0, `third` and `fourth` are the means of (x - x0)^3 and (x - x0)^4.
    """
    about_mean = fourth - 4 * distance * third + 3 * distance**2 * (2 * variance + distance**2)
    # By Jensen's inequality at least 1; rounding may take it a little below.
    kurtosis = np.maximum(about_mean / variance**2, 1.0)
    return np.where((fourth == 0) | (variance == 0), np.nan, kurtosis)
