"""Turns a lack of memory, which has many types, into an error that names it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from gradflow.errors import TrainingError


@contextmanager
def reporting_out_of_memory(kept: Callable[[], str]) -> Iterator[None]:
    """Raises `TrainingError` where memory runs out, with what was `kept` after the reason."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else "no memory is left"
        raise TrainingError(f"out of memory ({reason}){kept()}") from error


def _is_out_of_memory(error: Exception) -> bool:
    """Whether `error` is Python's, a device's, or that of PyTorch's allocator of the CPU."""
    named = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return named or "DefaultCPUAllocator: " in str(error)  # it has no type of its own
