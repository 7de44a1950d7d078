"""Measures what a step costs more in Python when tensors of a GPU are traced, without a GPU.

    OMP_NUM_THREADS=1 python benchmarks/device_time.py --blocks 12 48 [--no-parameters]

As `step_cost.py`, but all tensors of the CPU seem to be on a GPU, and in place of Triton's launcher
stands one that does nothing. So the tracer takes the way that it takes on CUDA: the numbers that it
records mean nothing, and only its own time is measured. Of parameters that time contains what torch
needs to compute their norms on the CPU; of layers nothing is computed.
"""

from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import step_cost
import torch
import tyro

from gradflow.hooks.reduction import cpu, fused
from gradflow.hooks.reduction.cuda import checked, groups, launches, products
from gradflow.hooks.reduction.deferred import reductions


def launch(kernel: Any, programs: int, arguments: tuple[Any, ...], constants: Any) -> None:
    """Launch nothing; what a kernel would have written are ones."""
    for one in arguments[1:]:
        if isinstance(one, torch.Tensor) and one.dtype is torch.float64:
            one.numpy().fill(1.0)


def seeming_on_a_gpu() -> ExitStack:
    """Patches by which the tracer takes tensors on the CPU for such on a GPU."""
    stack = ExitStack()
    for owner, name, value in (
        (launches, "launch", launch),
        (checked, "kernels", lambda _: launches),
        (checked, "work_in_groups", lambda _: True),
        (checked, "products", lambda _: products),
        (fused, "_on_gpu", lambda x: True),
        (groups, "_is_on_gpu", lambda x: x.layout is torch.strided),
        (groups, "is_in_order", lambda x: True),
        (groups, "products_differ", lambda *_: torch.tensor(False)),
        (groups, "differ", lambda *_: torch.tensor(False)),
        (reductions, "_are_same", lambda *_: True),
        (cpu, "loops_module", lambda: None),
        (cpu, "addresses_module", lambda: None),
        (cpu, "threads_module", lambda: None),
    ):
        stack.enter_context(patch.object(owner, name, value))
    return stack


if __name__ == "__main__":
    with seeming_on_a_gpu():
        step_cost.main(tyro.cli(step_cost.Options))
