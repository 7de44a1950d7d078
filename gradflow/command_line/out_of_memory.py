"""Turns the many kinds of out-of-memory errors into one `TrainingError`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from gradflow.errors import TrainingError


@contextmanager
def reporting_out_of_memory(kept: Callable[[], str]) -> Iterator[None]:
    """Raises `TrainingError` if memory runs out; the text from `kept()` follows the reason."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else "no memory is left"
        raise TrainingError(f"out of memory ({reason}){kept()}") from error


def _is_out_of_memory(error: Exception) -> bool:
    """Whether `error` is an out-of-memory error of Python, a device, or PyTorch on the CPU."""
    named = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return named or "DefaultCPUAllocator: " in str(error)  # it is a plain RuntimeError
