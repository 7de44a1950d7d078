"""Measures what recording a parameter costs in Python: 484 tiny parameters of 48 blocks.

    OMP_NUM_THREADS=1 python benchmarks/parameter_time.py [--blocks 48] [--before CHECKOUT]

Two copies of a stack of blocks train on the same batch in one process. The parameters of one are
recorded at every step, by the tracer's recorder of updates alone, without hooks on layers. Steps of
both alternate; the difference of the medians, in processor time, is divided by the number of
parameters. With `--before`, processes of this checkout and of another one alternate.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

STEPS = 12
"""Steps of an epoch, after which their numbers become columns."""
EPOCHS = 4
"""The first is a warm-up."""


def measure_here(blocks: int, every: int) -> None:
    """Print the number of parameters and processor seconds of a step: untraced, traced, columns."""
    import torch  # noqa: PLC0415 - the process that compares needs none
    from torch import Tensor, nn  # noqa: PLC0415

    from gradflow.hooks.recording.records import StepRecord, to_columns  # noqa: PLC0415
    from gradflow.hooks.updates.recorder import UpdateRecorder  # noqa: PLC0415

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
            self.mixing = nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)

        def forward(self, x: Tensor) -> Tensor:
            mixed = self.mixing(self.first(x))
            last: Tensor = self.down(torch.relu(self.up(self.second(mixed))))
            return last

    class Stack(nn.Module):
        def __init__(self, blocks: int, width: int = 8) -> None:
            super().__init__()
            self.inward = nn.Linear(width, width)
            self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
            self.outward = nn.Linear(width, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.inward(x)
            for block in self.blocks:
                x = block(x)
            last: Tensor = self.outward(x)
            return last

    torch.set_num_threads(1)
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    models, optimizers = [], []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(Stack(blocks))
        optimizers.append(torch.optim.SGD(models[-1].parameters(), lr=1e-3))

    records = [StepRecord(1, 0)]

    def end() -> None:
        updates.finish(records[-1])
        records.append(StepRecord(1, len(records)))
        updates.begin_step()

    options = {"every": every} if every > 1 else {}
    updates = UpdateRecorder(
        models[1], optimizers[1], None, lambda: records[-1], lambda: True, end, **options
    )

    def step(one: int) -> float:
        start = time.process_time()
        optimizers[one].zero_grad()
        if one:
            updates.forward_begins()
        models[one](x).square().mean().backward()
        optimizers[one].step()
        return time.process_time() - start

    seconds: list[list[float]] = [[], [], []]
    order = random.Random(0)
    updates.attach()
    updates.begin_step()
    for epoch in range(EPOCHS):
        for _ in range(STEPS):
            for one in order.sample([0, 1], 2):
                seconds[one].append(step(one))
        start = time.process_time()
        to_columns(records[:-1])
        seconds[2].append((time.process_time() - start) / STEPS)
        del records[:-1]
        if epoch == 0:
            seconds = [[], [], []]
    updates.detach()
    same = zip(models[0].parameters(), models[1].parameters(), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in same)
    count = len(list(models[0].parameters()))
    print(count, *(statistics.median(one) for one in seconds))


def cost(checkout: Path, blocks: int, every: int) -> tuple[float, float]:
    """Microseconds a parameter that recording takes in a step, and later to make columns."""
    command = [sys.executable, __file__, "--here", "--blocks", str(blocks), "--every", str(every)]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    count, plain, traced, columns = map(float, run.stdout.split())
    return (traced - plain) / count * 1e6, columns / count * 1e6


def main(blocks: int, before: Path | None, every: int, rounds: int) -> None:
    """Print the medians over `rounds` processes of each checkout."""
    here = Path(__file__).resolve().parents[1]
    checkouts = [("after" if before else "here", here)] + ([("before", before)] if before else [])
    found: dict[str, list[tuple[float, float]]] = {name: [] for name, _ in checkouts}
    for _ in range(rounds):
        for name, checkout in random.sample(checkouts, len(checkouts)):
            found[name].append(cost(checkout, blocks, every if checkout == here else 1))
    print("| checkout | us a parameter in a step, median (range) | the columns, us a parameter |")
    print("|---|---|---|")
    for name, _ in checkouts[::-1]:
        us, columns = zip(*found[name], strict=True)
        middle, later = statistics.median(us), statistics.median(columns)
        print(f"| {name} | {middle:.2f} ({min(us):.2f} to {max(us):.2f}) | {later:.2f} |")
    if before:
        pairs = zip(found["after"], found["before"], strict=True)
        times = sorted(was[0] / now[0] for now, was in pairs)
        middle = statistics.median(times)
        print(f"\nbefore / after, paired: {middle:.1f} ({times[0]:.1f} to {times[-1]:.1f})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=48)
    parser.add_argument("--before", type=Path, help="another checkout, to compare with")
    parser.add_argument("--every", type=int, default=1, help="parameters_every, in this checkout")
    parser.add_argument("--rounds", type=int, default=5, help="processes of each checkout")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        measure_here(given.blocks, given.every)
    else:
        main(given.blocks, given.before, given.every, given.rounds)
