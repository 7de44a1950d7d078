"""Turns a traced network into boxes in order of execution, and boxes of one shape into stages."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from gradflow.runs.reading.run import Run

_WEIGHTED = {"convolution", "linear", "recurrent", "attention", "embedding"}
_TRAILING = {"normalization", "activation"}
_CALL_NUMBER = re.compile(r"#\d+(?=$|\+)")
_ADDITION_NUMBER = re.compile(r"\+\d+$")
_MAX_BLOCK_SHARE = 0.5


@dataclass(frozen=True)
class Box:
    """A box of the drawing: a block or a layer.

    Fields:
        name: name of its block, layer or residual addition, as recorded.
        kind: class of its block or layer.
        shape: shape of its output without N, such as `64x8x8`.
        output: the layer whose output gradient is that at the box's output; "" if not observed.
        rows: the first and the last row of the table of layers that it spans.
        members: number of boxes of the network that it stands for.
    """

    name: str
    kind: str
    shape: str
    output: str
    rows: tuple[int, int]
    members: int = 1


@dataclass(frozen=True)
class Stage:
    """Neighbouring boxes, numbers `first` to `last`, whose outputs have one shape.

    `name` is the module that contains all of them; "" if there is none.
    """

    name: str
    shape: str
    first: int
    last: int


def boxes_of(run: Run) -> list[Box]:
    """The boxes of the network of `run`, in order of execution.

    Each block is a box. Each layer with weights outside of blocks is a box together with the
    normalization and activation after it. A block with several residual additions becomes one box
    per addition. A module that contains blocks with residual additions, or more than half of the
    layers with weights, is not drawn as a block: its contents are.
    """
    layers = run.layers.reset_index(drop=True)
    additions = additions_of(run)
    units = _block_modules(layers, set(additions))
    boxes: list[Box] = []
    pending: list[int] = []  # rows inside a block that has not ended yet
    single = False  # whether the last box is a layer that may include the next rows
    for row, (layer, kind, role, shape) in enumerate(
        zip(layers["layer"], layers["type"], layers["role"], layers["shape"], strict=True)
    ):
        if without_call(layer) in units:
            boxes += _boxes_of_block(layer, kind, shape, (min([*pending, row]), row), additions)
            pending, single = [], False
        elif not units.isdisjoint(_ancestors(layer)):
            pending.append(row)
        elif role in _WEIGHTED:
            boxes.append(Box(layer, kind, shape, layer, (row, row)))
            single = True
        elif role in _TRAILING and single:
            first = boxes[-1].rows[0]
            boxes[-1] = replace(boxes[-1], shape=shape, output=layer, rows=(first, row))
    return boxes


def stages_of(boxes: Sequence[Box]) -> list[Stage]:
    """The runs of neighbouring boxes of one output shape."""
    stages: list[Stage] = []
    first = 0
    for place in range(1, len(boxes) + 1):
        if place == len(boxes) or boxes[place].shape != boxes[first].shape:
            members = boxes[first:place]
            stages.append(
                Stage(
                    _common_module([box.name for box in members]),
                    members[0].shape,
                    first,
                    place - 1,
                )
            )
            first = place
    return stages


def additions_of(run: Run) -> dict[str, list[str]]:
    """The residual additions of `run`, by the module whose forward adds, in order of execution.

    Modules have their recorded names: a second call ends in `#2`, and so on.
    """
    found: dict[str, list[str]] = {}
    for name in run.junctions["layer"].drop_duplicates():
        found.setdefault(_ADDITION_NUMBER.sub("", name), []).append(name)
    return found


def without_call(name: str) -> str:
    """The module of a recorded name: the name without the number of the call."""
    return _CALL_NUMBER.sub("", name)


def _ancestors(name: str) -> list[str]:
    """The modules that contain `name`."""
    return [name[:place] for place, letter in enumerate(name) if letter == "."]


def _block_modules(layers: pd.DataFrame, owners: set[str]) -> set[str]:
    """The modules that are drawn as blocks; `owners` are the modules with residual additions."""
    adding = {without_call(name) for name in owners}
    names = layers["layer"].map(without_call)
    blocks = names[(layers["role"] == "block") | names.isin(adding)].drop_duplicates()
    weighted = names[layers["role"].isin(_WEIGHTED)]
    within = Counter(module for name in weighted for module in _ancestors(name))
    around_residual = {module for name in adding for module in _ancestors(name)}
    chosen: set[str] = set()
    for name in sorted(blocks, key=lambda name: name.count(".")):
        inside_another = not chosen.isdisjoint(_ancestors(name))
        holds_residual = name in around_residual
        share = within[name] / max(1, len(weighted))
        if not (inside_another or holds_residual) and (name in adding or share <= _MAX_BLOCK_SHARE):
            chosen.add(name)
    return chosen


def _boxes_of_block(
    layer: str, kind: str, shape: str, rows: tuple[int, int], additions: dict[str, list[str]]
) -> list[Box]:
    names = additions.get(layer, [layer])
    # Only the last addition's sum is the block's output; the others may not be observed.
    inner = [Box(name, kind, shape, "", rows) for name in names[:-1]]
    return [*inner, Box(names[-1], kind, shape, layer, rows)]


def _common_module(names: Sequence[str]) -> str:
    """The innermost module that contains all of `names`."""
    parts = [name.split(".")[:-1] for name in names]
    shared = parts[0]
    for other in parts[1:]:
        length = next(
            (i for i, (a, b) in enumerate(zip(shared, other, strict=False)) if a != b),
            min(len(shared), len(other)),
        )
        shared = shared[:length]
    return ".".join(shared)
