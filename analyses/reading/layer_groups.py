"""Layers and parameters that repeat from block to block, as groups of like ones.

`blocks.0.attn.q` to `blocks.249.attn.q` are one group, `blocks.*.attn.q`.
"""

import re
from collections.abc import Sequence

import pandas as pd

# Above this number of layers, tables and figures show groups and outliers instead of each layer.
MANY_LAYERS = 100
# Numbered parts, such as `conv12`, are alike only if there are at least so many.
LEAST_NUMBERED = 8
_NUMBERS = re.compile(r"(?<![^.])\d+(?=$|[.#+])")
_ENDINGS = re.compile(r"(?<![\d#+])\d+(?=$|[.#+])")


def pattern_of(name: str) -> str:
    """`name` with `*` for each of its parts that is a number.

    `blocks.3.attn.q` is `blocks.*.attn.q`, `blocks.3+2` is `blocks.*+2`. A number that is only a
    part of a part, as in `layer1` or in the call `relu#2`, stays.
    """
    return _NUMBERS.sub("*", name)


def groups_of(names: Sequence[str], kinds: Sequence[str]) -> pd.Series:
    """The group of each name, indexed by the names.

    Names are in one group if their patterns and their kinds are equal, such as type and shape.
    `conv1` to `conv12` are `conv*`, but fewer than `LEAST_NUMBERED` such names, as in a block with
    `norm1` and `norm2`, have a pattern each. A group is called by its pattern, with the kind behind
    it if the pattern has several. A name that is alone in its group stands for itself.
    """
    frame = pd.DataFrame({"name": list(names), "kind": list(kinds)}).drop_duplicates("name")
    frame["pattern"] = frame["name"].map(pattern_of)
    loose = frame["name"].map(lambda name: _ENDINGS.sub("*", name))
    numbered = frame["pattern"].groupby(loose).transform("nunique") >= LEAST_NUMBERED
    frame["pattern"] = frame["pattern"].where(~numbered, loose)
    several = frame.groupby("pattern")["kind"].transform("nunique") > 1
    members = frame.groupby(["pattern", "kind"])["name"].transform("size")
    label = frame["pattern"].where(~several, frame["pattern"] + " (" + frame["kind"] + ")")
    return pd.Series(label.where(members > 1, frame["name"]).to_numpy(), index=frame["name"])


def has_many_layers(layers: pd.DataFrame) -> bool:
    """Whether a table of layers counts more than `MANY_LAYERS` in depth."""
    depth = pd.to_numeric(layers["depth"], errors="coerce") if len(layers) else pd.Series([0])
    return bool(depth.max() > MANY_LAYERS)
