"""Measures what a step costs more when it is traced, in microseconds a module.

    OMP_NUM_THREADS=1 python benchmarks/step_cost.py --blocks 12 48 192 768

The models are stacks of pre-norm blocks whose tensors are so small that Python and the launches are
what is timed. Two copies of a stack train on the same batches in one process, one traced and one
not, in pairs of steps, in an order drawn anew for each pair; their losses must be identical. Shown
are medians over the pairs, by the processor's time and by the clock: of the untraced step, of the
difference of both steps of a pair, and of that difference a module. `--every 10` times ten steps at
a time, of which one is recorded; `--no-parameters` leaves the parameters out. `--idle-hooks` has
hooks that do nothing in place of the tracer, of the kinds that it needs: what torch takes for them.
"""

import copy
import random
import statistics
import tempfile
import time
from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import tyro
from pairing import load
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

import gradflow
from gradflow.hooks.updates.recorder import UpdateRecorder

WIDTH, ROWS = 16, (1, 8)
WARM_UP = 3
"""Pairs that are run first and not counted."""


class Block(nn.Module):
    """A pre-norm block of five layers with two residual additions."""

    def __init__(self) -> None:
        super().__init__()
        self.first_norm, self.mix = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)
        self.second_norm = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Tensors [1, T, WIDTH] of the shape of x."""
        x = x + self.mix(self.first_norm(x))
        return x + self.down(F.gelu(self.up(self.second_norm(x))))


def stack(blocks: int) -> nn.Module:
    """A linear layer, the blocks, and a norm."""
    torch.manual_seed(0)
    layers = (Block() for _ in range(blocks))
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), *layers, nn.LayerNorm(WIDTH))


@dataclass(frozen=True)
class Options:
    """What to time."""

    blocks: tuple[int, ...] = (12, 48, 192, 768)
    """Sizes of the stacks."""
    pairs: int = 40
    """Timed pairs of steps."""
    every: int = 1
    """Steps from one recorded step to the next; as many are timed at a time."""
    parameters: bool = True
    """Measure parameters, gradients and updates too, and not the layers alone."""
    idle_hooks: bool = False
    """Time hooks that do nothing in place of the tracer: on modules, outputs and nodes."""
    tenth: bool = False
    """Compare the fastest tenths of traced and untraced steps: other work makes some slow."""


@dataclass(frozen=True)
class Times:
    """Seconds of the processor and of the clock."""

    processor: float
    clock: float

    def __sub__(self, other: "Times") -> "Times":
        return Times(self.processor - other.processor, self.clock - other.clock)


class Trainer:
    """A model and its optimizer, one step or several at a time."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def time(self, batches: list[Tensor]) -> tuple[Times, list[float]]:
        """The time that steps on `batches` take, and their losses."""
        losses = []
        processor, clock = time.process_time(), time.perf_counter()
        for batch in batches:
            loss = self.model(batch).square().mean()
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            losses.append(loss.detach())
        times = Times(time.process_time() - processor, time.perf_counter() - clock)
        return times, [loss.item() for loss in losses]


def measure(blocks: int, options: Options) -> tuple[int, list[Times], list[Times]]:
    """The number of observed modules, the times of untraced steps, and the differences."""
    model = stack(blocks)
    plain, traced = Trainer(copy.deepcopy(model)), Trainer(model)
    generator, order = torch.Generator().manual_seed(0), random.Random(0)
    untraced, differences = [], []
    with ExitStack() as context:
        if not options.parameters:
            context.enter_context(without_parameters())
        if options.idle_hooks:
            _add_idle_hooks(model)
        else:
            folder = context.enter_context(tempfile.TemporaryDirectory())
            context.enter_context(
                gradflow.Tracer(
                    model, Path(folder) / "run", optimizer=traced.optimizer, schedule=options.every
                )
            )
        for pair in range(options.pairs + WARM_UP):
            batches = [torch.randn(*ROWS, WIDTH, generator=generator) for _ in range(options.every)]
            found = {one: one.time(batches) for one in order.sample([plain, traced], 2)}
            if found[plain][1] != found[traced][1]:
                raise AssertionError(f"the losses of {blocks} blocks differ with the tracer")
            if pair >= WARM_UP:
                untraced.append(found[plain][0])
                differences.append(found[traced][0] - found[plain][0])
    return len(gradflow.layers(model)), untraced, differences


def _idle(*_: Any) -> None:
    """Do nothing."""


def _add_idle_hooks(model: nn.Module) -> None:
    """A hook on each layer, one on its output's gradient, and four for each residual addition."""

    def on_layer(module: nn.Module, args: Any, output: Tensor) -> None:
        hooks = output._backward_hooks
        if hooks is None:
            hooks = output._backward_hooks = OrderedDict()
            output.grad_fn._register_hook_dict(output)
        hooks[RemovableHandle.next_id] = _idle
        RemovableHandle.next_id += 1

    def on_block(module: nn.Module, args: Any, output: Tensor) -> None:
        for _ in range(2):
            args[0].grad_fn.register_prehook(_idle)
            output.grad_fn.register_prehook(_idle)

    for module in model.modules():
        if not isinstance(module, nn.Sequential):
            module.register_forward_hook(on_layer)
        if isinstance(module, Block):
            module.register_forward_pre_hook(_idle)
            module.register_forward_hook(on_block)


def without_parameters() -> ExitStack:
    """Patches that keep the tracer from the parameters, to time the layers alone."""
    stack = ExitStack()
    for name in ("begin_step", "forward_begins", "model_has_changed"):
        stack.enter_context(patch.object(UpdateRecorder, name, lambda *_: None))
    stack.enter_context(patch.object(UpdateRecorder, "backward_begins", lambda *_: None))
    stack.enter_context(patch.object(UpdateRecorder, "finish", lambda *_: None))
    stack.enter_context(patch.object(UpdateRecorder, "_begin", lambda *_, **__: None))
    stack.enter_context(patch.object(UpdateRecorder, "_measure_gradients", lambda *_: None))
    return stack


def first_tenth(times: list[float]) -> float:
    """The time that the fastest tenth of the steps take at most."""
    return sorted(times)[len(times) // 10]


def main(options: Options) -> None:
    """Print a Markdown table with one row for each stack."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {load()}")
    what = "all" if options.parameters else "layers alone"
    what = "hooks that do nothing" if options.idle_hooks else what
    print(f"{what}, 1 step in {options.every} recorded")
    print("| blocks | modules | untraced ms | more ms | us a module | by the clock | ratio |")
    print("|---|---|---|---|---|---|---|")
    for blocks in options.blocks:
        modules, untraced, differences = measure(blocks, options)
        plain = statistics.median(one.processor for one in untraced)
        more = statistics.median(one.processor for one in differences)
        if options.tenth:
            traced = [
                one.processor + two.processor
                for one, two in zip(untraced, differences, strict=True)
            ]
            plain = first_tenth([one.processor for one in untraced])
            more = first_tenth(traced) - plain
        clock = statistics.median(one.clock for one in differences)
        each = 1e6 / modules
        print(
            f"| {blocks} | {modules} | {plain * 1e3:.1f} | {more * 1e3:.1f} | {more * each:.1f} "
            f"| {clock * each:.1f} | {1 + more / plain:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main(tyro.cli(Options))
