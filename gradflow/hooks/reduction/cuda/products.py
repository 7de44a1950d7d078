"""A Triton kernel for the products of gradients at many residual additions, in two launches.

As in `kernels`, each program takes one part of one addition and writes its sums to its own entries;
a second launch adds these up, so that the same gradients give the same bits. Sums are in float64,
of s + b and w - (s + b) computed in float64, as in `compiled.junction_products`. Import this module
through `gradflow.hooks.reduction.fused`.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from gradflow.hooks.reduction.cuda import kernels, launches
from gradflow.hooks.reduction.cuda.kernels import _widened

PRODUCTS = 7
_FIELDS = tl.constexpr(8)
_FIRST_PROGRAM, _PRODUCTS = tl.constexpr(6), tl.constexpr(PRODUCTS)
_MANY = tl.constexpr(1 << 40)
_TILE, _PROGRAMS, _PARTS = 1024, 256, 256


@triton.jit
def _row_of(table, rows, most: tl.constexpr):
    """Return which row of the table this program works for."""
    row = tl.arange(0, most)
    starts = tl.load(table + row * _FIELDS + _FIRST_PROGRAM, mask=row < rows, other=_MANY)
    return tl.sum((starts <= tl.program_id(0)).to(tl.int32), 0) - 1


@triton.jit(do_not_specialize=["table", "rows"])
def multiply_group(
    table, partials, rows, dtype: tl.constexpr, block: tl.constexpr, most: tl.constexpr
):
    """Multiply a part of the gradients of one row: at w, s, b; size, steps, parts.

    Writes 7 sums for each part, see `compiled.junction_products`.
    """
    row = table + _row_of(table, rows, most) * _FIELDS
    w = tl.load(row).to(tl.pointer_type(dtype))
    s = tl.load(row + 1).to(tl.pointer_type(dtype))
    b = tl.load(row + 2).to(tl.pointer_type(dtype))
    size, steps, parts = tl.load(row + 3), tl.load(row + 4), tl.load(row + 5)
    part = tl.program_id(0) - tl.load(row + _FIRST_PROGRAM)
    gg = tl.zeros([block], tl.float64)
    ss = tl.zeros([block], tl.float64)
    bb = tl.zeros([block], tl.float64)
    sb = tl.zeros([block], tl.float64)
    sg = tl.zeros([block], tl.float64)
    ww = tl.zeros([block], tl.float64)
    rr = tl.zeros([block], tl.float64)
    for step in range(steps):
        place = (part * steps + step) * block + tl.arange(0, block)
        inside = place < size
        whole = _widened(tl.load(w + place, mask=inside, other=0.0)).to(tl.float64)
        skip = _widened(tl.load(s + place, mask=inside, other=0.0)).to(tl.float64)
        branch = _widened(tl.load(b + place, mask=inside, other=0.0)).to(tl.float64)
        both = skip + branch
        rest = whole - both
        gg += both * both
        ss += skip * skip
        bb += branch * branch
        sb += skip * branch
        sg += skip * both
        ww += whole * whole
        rr += rest * rest
    entry = partials + tl.load(row + 7) + part
    tl.store(entry, tl.sum(gg, 0))
    tl.store(entry + parts, tl.sum(ss, 0))
    tl.store(entry + 2 * parts, tl.sum(bb, 0))
    tl.store(entry + 3 * parts, tl.sum(sb, 0))
    tl.store(entry + 4 * parts, tl.sum(sg, 0))
    tl.store(entry + 5 * parts, tl.sum(ww, 0))
    tl.store(entry + 6 * parts, tl.sum(rr, 0))


@triton.jit(do_not_specialize=["table"])
def add_up(table, partials, result, most: tl.constexpr):
    """Add up what `multiply_group` wrote: a program for each of 7 sums of each row."""
    number, which = tl.program_id(0) // _PRODUCTS, tl.program_id(0) % _PRODUCTS
    row = table + number * _FIELDS
    parts = tl.load(row + 5)
    part = tl.arange(0, most)
    found = tl.load(
        partials + tl.load(row + 7) + which * parts + part, mask=part < parts, other=0.0
    )
    tl.store(result + tl.program_id(0), tl.sum(found, 0))


def multiply(items: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Return the products of each (whole, skip, branch): [n, 7] in float64, on their device.

    The gradients of all are of one device and dtype. Those of one have one shape and the same
    order in memory, without gaps. Up to `kernels.ROWS` take two launches and a copy of a table.
    """
    found = [
        _multiply_rows(items[start : start + kernels.ROWS])
        for start in range(0, len(items), kernels.ROWS)
    ]
    return found[0] if len(found) == 1 else torch.cat(found)


def _multiply_rows(items: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    rows, programs, at = [], 0, 0
    for whole, skip, branch in items:
        tiles = math.ceil(whole.numel() / _TILE)
        steps = math.ceil(tiles / _PROGRAMS)
        parts = math.ceil(tiles / steps)
        addresses = (whole.data_ptr(), skip.data_ptr(), branch.data_ptr())
        rows.append((*addresses, whole.numel(), steps, parts, programs, at))
        programs += parts
        at += PRODUCTS * parts
    first = items[0][0]
    table = launches.on_device(np.array(rows, np.int64), first.device)
    partials = torch.empty(at, dtype=torch.float64, device=first.device)
    result = torch.empty((len(rows), PRODUCTS), dtype=torch.float64, device=first.device)
    with torch.cuda.device_of(result):
        sides = (kernels.DTYPES[first.dtype], _TILE, kernels.ROWS)
        launches.launch(multiply_group, programs, (table, partials, len(rows)), sides)
        launches.launch(add_up, PRODUCTS * len(rows), (table, partials, result), (_PARTS,))
    return result
