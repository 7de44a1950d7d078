"""The values of tensors that torch's fast ways cannot read as they are: nested ones, subclasses."""

import torch
from torch import Tensor


def plain(x: Tensor) -> Tensor:
    """Return a detached x; one of a subclass that only overrides functions as an ordinary tensor.

    The functions that such a class overrides are the user's, and not run for the tracer.
    """
    # A class of its own data, such as a DTensor or a masked tensor, overrides the dispatch instead.
    if type(x).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return x.detach()
    with torch._C.DisableTorchFunctionSubclass():
        return x.detach().as_subclass(Tensor)


def values_of(x: Tensor) -> tuple[Tensor, int | None]:
    """Return the values of a nested tensor without padding, and their channel axis.

    A jagged one [N, *, ..., C] gives [sum of the lengths, ..., C]. Its channel axis is the last; if
    that is the axis of varying length, the one before. One of the strided layout gives [rows, C] if
    the last axes of its tensors are of equal length, otherwise all elements in a row.
    """
    x = x.detach()
    if x.layout is torch.jagged:
        ragged = next(axis for axis, size in enumerate(x.shape) if not isinstance(size, int))
        # `narrow` gives a tensor whose memory has elements that do not belong to it.
        has_gaps = x.lengths() is not None  # type: ignore[attr-defined]
        values = torch.cat(list(x.unbind()), ragged - 1) if has_gaps else x.values()
        fixed = [axis for axis in range(values.dim()) if axis != ragged - 1]
        return values, fixed[-1] if fixed else None
    parts = x.unbind()
    if parts[0].dim() > 1 and len({part.shape[-1] for part in parts}) == 1:
        return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts]), 1
    return torch.cat([part.reshape(-1) for part in parts]), None


def fixed_sizes(x: Tensor) -> tuple[int, ...]:
    """Return the shape of x [N, ...] without N and without axes of varying length."""
    if not x.is_nested:
        return tuple(x.shape[1:])
    if x.layout is torch.jagged:
        return tuple(size for size in x.shape[1:] if isinstance(size, int))
    shapes = [part.shape for part in x.unbind()]
    return tuple(sizes[0] for sizes in zip(*shapes, strict=True) if len(set(sizes)) == 1)
