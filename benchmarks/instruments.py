"""Measures what each instrument of the tracer costs, beside the same training without a tracer.

    OMP_NUM_THREADS=1 python benchmarks/instruments.py --rounds 12

A small GPT (four pre-norm blocks of width 96, 16 texts of 64 letters) and copies of it train on the
same batches in one process: one untraced, one with all that is recorded by default in every step,
and one for each instrument that is added or left out. In each round every copy takes a step, in an
order drawn anew. Shown are medians over the rounds of the ratio to the untraced step of the same
round, by the processor's time, so that other work on the machine counts little; and the difference
to the default. The losses of all must be identical.
"""

import copy
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from language_model import LanguageModel, Size
from pairing import Letters, load
from step_cost import without_parameters
from torch import Tensor, nn
from torch.nn import functional as F

import gradflow

KINDS = 28
WARM_UP = 3
DEFAULT = "all by default"


@dataclass(frozen=True)
class Options:
    """What to time."""

    rounds: int = 12
    """Timed rounds; each has a step of every copy."""
    only: tuple[str, ...] = ()
    """Names of variants; by default all."""


@dataclass(frozen=True)
class Variant:
    """A tracer: its options, whether parameters are left out, and whether the loss has terms."""

    options: dict[str, Any]
    parameters: bool = True
    terms: bool = False


VARIANTS = {
    DEFAULT: Variant({}),
    "without parameters": Variant({}, parameters=False),
    "one layer alone, with parameters": Variant({"observe": "head"}),
    "one layer alone, without parameters": Variant({"observe": "head"}, parameters=False),
    "parameters in eight turns": Variant({"parameters_every": 8}),
    "updates in eight turns": Variant({"updates_every": 8}),
    "and histograms": Variant({"histograms": True}),
    "and alerts": Variant({"alerts": "log"}),
    "and 16 steps around spikes": Variant({"around_spikes": 16}),
    "and two groups": Variant({"groups": {"attention": "*.attn", "mlp": "*.mlp"}}),
    "and two terms, 1 step in 20": Variant({}, terms=True),
    "1 step in 10": Variant({"schedule": 10}),
}


class Trainer:
    """A copy of the model with its optimizer, and perhaps a tracer."""

    def __init__(self, model: nn.Module, variant: Variant | None, context: ExitStack) -> None:
        self.model = model
        self.optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
        self.tracer: gradflow.Tracer | None = None
        # Parameters are left out by patches of a class, which hold for one copy's steps alone.
        self._patched: Callable[[], ExitStack] = ExitStack
        if variant is not None:
            folder = context.enter_context(tempfile.TemporaryDirectory())
            self._patched = ExitStack if variant.parameters else without_parameters
            options = {"schedule": 1, **variant.options}
            with self._patched():
                self.tracer = context.enter_context(
                    gradflow.Tracer(
                        model, Path(folder) / "run", optimizer=self.optimizer, **options
                    )
                )
        self._has_terms = variant is not None and variant.terms

    def step(self, x: Tensor, y: Tensor) -> tuple[float, float]:
        """Seconds of the processor that a step takes, and its loss."""
        with self._patched():
            start = time.process_time()
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.model(x).flatten(0, 1), y.flatten())
            if self._has_terms and self.tracer is not None:
                self.tracer.terms({"data": loss, "again": (0.0, loss)})
            loss.backward()
            self.optimizer.step()
            seconds = time.process_time() - start
        return seconds, loss.item()


def main(options: Options) -> None:
    """Print a Markdown table with one row for each variant."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {load()}")
    torch.manual_seed(0)
    model = LanguageModel(Size(blocks=4, width=96, heads=4, hidden=384), KINDS)
    source = Letters(64, 16, KINDS, torch.device("cpu"))
    generator, order = torch.Generator().manual_seed(0), random.Random(0)
    chosen = {key: one for key, one in VARIANTS.items() if not options.only or key in options.only}
    ratios: dict[str, list[float]] = {key: [] for key in chosen}
    untraced = []
    with ExitStack() as context:
        trainers = {
            key: Trainer(copy.deepcopy(model), variant, context)
            for key, variant in {"": None, **chosen}.items()
        }
        for place in range(options.rounds + WARM_UP):
            x, y = source.draw(generator)
            found = {
                key: trainers[key].step(x, y) for key in order.sample([*trainers], len(trainers))
            }
            if len({loss for _, loss in found.values()}) > 1:
                raise AssertionError("the losses differ with a tracer")
            if place >= WARM_UP:
                untraced.append(found[""][0])
                for key, one in ratios.items():
                    one.append(found[key][0] / found[""][0])
    print(f"untraced step: {statistics.median(untraced) * 1e3:.0f} ms; {load()}")
    print("| recorded | traced / untraced, mean | median | from | to | rounds |")
    print("|---|---|---|---|---|---|")
    for key, one in ratios.items():
        mean, middle = statistics.mean(one), statistics.median(one)
        print(
            f"| {key} | {mean:.2f} | {middle:.2f} | {min(one):.2f} | {max(one):.2f} | {len(one)} |"
        )


if __name__ == "__main__":
    main(tyro.cli(Options))
