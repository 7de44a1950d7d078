"""The Triton kernels, as far as they were compared with torch on a device and gave the same.

Each comparison is made once a device, before the first step. Where Triton is missing, has no C
compiler, fails or gives other numbers, torch computes the same.
"""

import math
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from gradflow.hooks.reduction import histograms
from gradflow.hooks.reduction.by_torch import reduce as _by_torch


@cache
def kernels(device: torch.device) -> ModuleType | None:
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
def counts_magnitudes(device: torch.device) -> bool:
    """Whether the Triton kernels count magnitudes as torch does."""
    module = kernels(device)
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
def work_in_groups(device: torch.device) -> bool:
    """Whether the Triton kernels give in groups, to the last bit, what they give for one tensor."""
    module = kernels(device)
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
def products(device: torch.device) -> ModuleType | None:
    """Return the Triton kernel for products of gradients, or None if it differs from torch."""
    if kernels(device) is None:
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
    module = kernels(device) if work_in_groups(device) else None
    return module is not None and dtype in module.DTYPES and elements <= module.MAX_ELEMENTS


def values_of_group(
    device: torch.device, items: list[tuple[Tensor, int | None, bool]]
) -> list[tuple[Tensor, Tensor | None]]:
    """Return values and counts of magnitudes for each (tensor, axis, histogram)."""
    module = kernels(device)
    assert module is not None
    found: list[tuple[Tensor, Tensor | None]] = module.reduce_group(items)
    return found


def plans_of_group(
    device: torch.device, tensors: list[tuple[torch.dtype, tuple[int, ...], int | None, bool]]
) -> list[Any]:
    """Return the plans of the launches for tensors of these kinds, see `launches.plan_of`."""
    module = kernels(device)
    assert module is not None
    plans: list[Any] = module.plans_of(tensors)
    return plans


def _sample(device: torch.device) -> Tensor:
    sample = torch.arange(4 * 8 * 37, device=device).remainder(13).sub(4).div(3)
    return sample.reshape(4, 8, 37)
