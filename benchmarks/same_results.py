"""Checks that a change of the code left all recorded values and all findings unchanged.

    python benchmarks/same_results.py record before     # with the old code
    python benchmarks/same_results.py record after      # with the new code
    python benchmarks/same_results.py compare before after

`record` traces three models through `gradflow.Tracer`, trains the networks of the default
experiment for two epochs, copies the old runs of `tests/fixtures`, and writes the reports of all
these runs as JSON and Markdown. `compare` compares the reports byte for byte, except for dates,
versions and seconds, and the tables value for value, except for times. The exit status is 1 if
anything differs.
"""

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import tyro
from torch import Tensor, nn
from torchvision.models import resnet18

import gradflow
from gradflow import report, train_and_trace

FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures" / "runs"
EXPERIMENT = "experiment"
# What differs from run to run of the same code.
VARYING = re.compile(r"seconds|created|ended|^out$|versions?$|^gradflow$")
TIMES = re.compile(r"\d[\d.,]*\s(?:%|s|ms|min|h)\b.*(?:time|took|cost)|\b20\d\d-\d\d-\d\d\b")


class Shared(nn.Module):
    """Two calls of one layer, and an output that is a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.twice = nn.Linear(16, 16)
        self.last = nn.Linear(16, 4)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """The logits [N, 4] of inputs [N, 8]."""
        hidden = torch.relu(self.first(inputs))
        hidden = hidden + torch.tanh(self.twice(hidden))
        hidden = hidden + torch.tanh(self.twice(hidden))
        return {"logits": self.last(hidden)}


class Encoder(nn.Module):
    """A pre-norm transformer that classifies sequences."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(16, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        """The logits [N, 4] of inputs [N, T, 16]."""
        return self.head(self.encoder(inputs).mean(1))


@dataclass(frozen=True)
class Case:
    """A model traced through the public API: how to make it, its input's shape, its options."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    options: dict[str, Any]
    passes: int = 1


CASES = (
    Case("resnet18", lambda: resnet18(num_classes=4), (8, 3, 32, 32), {"histograms": True}),
    Case("encoder", Encoder, (4, 6, 16), {"schedule": gradflow.every(2)}, passes=2),
    Case("shared", Shared, (16, 8), {}),
)


def trace(case: Case, folder: Path) -> None:
    """Train the model of `case` for two epochs of four steps, recorded in `folder`."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = case.make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    batches = [
        (torch.randn(case.shape), torch.randint(0, 4, case.shape[:1]))
        for _ in range(4 * case.passes)
    ]
    with gradflow.Tracer(model, folder, optimizer=optimizer, **case.options) as tracer:
        for _ in range(2):
            losses = []
            for place, (inputs, targets) in enumerate(batches, start=1):
                output = model(inputs)
                logits = output["logits"] if isinstance(output, dict) else output
                loss = nn.functional.cross_entropy(logits, targets) / case.passes
                loss.backward()
                losses.append(loss.item())
                if place % case.passes == 0:
                    optimizer.step()
                    optimizer.zero_grad()
            tracer.end_epoch(train_loss=sum(losses) / len(losses))


def record(folder: Path) -> int:
    """Record everything into `folder`, which must not exist yet."""
    folder.mkdir(parents=True)
    for case in CASES:
        trace(case, folder / case.name)
    shutil.copytree(FIXTURES, folder / "fixtures", ignore=shutil.ignore_patterns("*.py", "*.md"))
    options = ["--epochs", "2", "--out", str(folder / EXPERIMENT)]
    codes = [train_and_trace.main(options)]
    old = sorted((folder / "fixtures").iterdir())
    for one in (*(folder / case.name for case in CASES), *old, folder / EXPERIMENT):
        codes.append(report.main([str(one), "--format", "json,md"]))
    together = [str(folder / EXPERIMENT), str(old[0])]
    codes.append(
        report.main([*together, "--format", "json,md", "--out", str(folder / "comparison")])
    )
    return max(codes)


def compare(before: Path, after: Path) -> int:
    """Print the differences between two recordings; return 1 if there are any."""
    names = sorted(
        {one.relative_to(root) for root in (before, after) for one in root.rglob("*.parquet")}
        | {one.relative_to(root) for root in (before, after) for one in root.rglob("*.json")}
        | {one.relative_to(root) for root in (before, after) for one in root.rglob("*.md")}
    )
    differing = [name for name in names if not same(before / name, after / name)]
    print(*(f"differs: {name}" for name in differing), sep="\n")
    print(f"{len(names) - len(differing)} of {len(names)} files are the same")
    return 1 if differing or not names else 0


def same(before: Path, after: Path) -> bool:
    """Whether two files are equal, except for dates, versions and times."""
    if not (before.exists() and after.exists()):
        return False
    if before.suffix == ".parquet":
        first, second = (without_times(pd.read_parquet(one)) for one in (before, after))
        return first.equals(second) and list(first.dtypes) == list(second.dtypes)
    if before.suffix == ".json":
        first, second = (json.loads(one.read_bytes()) for one in (before, after))
        return list(leaves(first)) == list(leaves(second))
    first, second = (one.read_text(encoding="utf-8").splitlines() for one in (before, after))
    return [line for line in first if not TIMES.search(line)] == [
        line for line in second if not TIMES.search(line)
    ]


def without_times(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns of `frame` that do not hold times."""
    return frame[[name for name in frame.columns if not VARYING.search(str(name))]]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a JSON document with its path, except those that vary between runs."""
    if isinstance(value, dict):
        for key, one in value.items():
            if not VARYING.search(key):
                yield from leaves(one, f"{path}/{key}")
    elif isinstance(value, list):
        for place, one in enumerate(value):
            yield from leaves(one, f"{path}/{place}")
    else:
        yield path, value


@dataclass(frozen=True)
class Record:
    """Record everything."""

    folder: Annotated[Path, tyro.conf.Positional]
    """A folder that does not exist yet."""


@dataclass(frozen=True)
class Compare:
    """Compare two recordings."""

    before: Annotated[Path, tyro.conf.Positional]
    """What the old code recorded."""
    after: Annotated[Path, tyro.conf.Positional]
    """What the new code recorded."""


if __name__ == "__main__":
    chosen = tyro.extras.subcommand_cli_from_dict({"record": Record, "compare": Compare})
    if isinstance(chosen, Record):
        sys.exit(record(chosen.folder))
    sys.exit(compare(chosen.before, chosen.after))
