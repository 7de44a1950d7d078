"""Named groups of parameters and layers, and their totals in each step.

The totals are computed from the rows of the other tables when these are transferred.
"""

from collections import defaultdict
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from torch import nn

from gradflow.errors import TracingError
from gradflow.hooks.recording.records import Columns
from gradflow.hooks.selection.modules import Selection, chooses, selectors_of
from gradflow.hooks.updates.known import is_trained
from gradflow.hooks.updates.totals import gradient_totals, places_of, quotient, root_of_squares
from gradflow.hooks.wrappers import named_modules, named_parameters


class Groups:
    """The groups that a user has named, with the parameters and layers of each.

    A name once in a group stays there, also if the model loses what has it.

    Args:
        given: selectors by the group's name, as those of `observe`. One that selects a module
            selects all that is in it; patterns and exact names also select single parameters.
        model: whose parameters and layers are grouped.

    Raises `TracingError` if a group has neither a module nor a parameter.
    """

    def __init__(self, given: Mapping[str, Selection], model: nn.Module) -> None:
        if not isinstance(given, Mapping):
            raise TracingError(
                f'groups= is a mapping such as {{"attention": "*.attn.*"}}, not {given!r}'
            )
        self._model = model
        self._selections = dict(given)
        self._layers: dict[str, dict[str, None]] = {name: {} for name in given}
        self._parameters: dict[str, dict[str, None]] = {name: {} for name in given}
        self.look_up()
        for name in given:
            if not self._layers[name] and not self._parameters[name]:
                raise TracingError(
                    f"the group {name!r} of groups= has no layer and no parameter of the model: "
                    "gradflow.layers(model) shows the names of its layers"
                )

    def look_up(self) -> None:
        """Look up what belongs to each group now."""
        for name, selection in self._selections.items():
            modules, parameters = _members(self._model, selection)
            self._layers[name] |= modules
            self._parameters[name] |= parameters

    def summary(self, observed: list[str]) -> dict[str, dict[str, list[str]]]:
        """Return the entry `groups` of `run.json`; `observed` are the names of observed layers."""
        return {
            name: {
                "layers": [layer for layer in observed if layer in self._layers[name]],
                "parameters": list(self._parameters[name]),
            }
            for name in self._selections
        }

    def columns(
        self,
        tables: Mapping[str, Columns],
        *,
        in_turns: bool = False,
        updates_in_turns: bool = False,
    ) -> Columns:
        """Return the rows of the table `groups`, one for each step of `tables` and each group.

        If parameters are measured `in_turns`, totals over them are missing; if their updates are,
        those of updates.
        """
        steps = tables["steps"]["step"]
        keys = {"parameters": "parameter", "activations": "layer", "gradients": "layer"}
        left_out = {"parameters"} if in_turns else set()
        rows = {
            name: _Rows(None if name in left_out else tables.get(name), key, steps)
            for name, key in keys.items()
        }
        per_group = [
            {
                **_parameter_totals(rows["parameters"], self._parameters[name], len(steps)),
                **_layer_totals(
                    rows["activations"], rows["gradients"], self._layers[name], len(steps)
                ),
            }
            for name in self._selections
        ]
        if in_turns:
            trained = {name for name, one in named_parameters(self._model) if is_trained(one)}
            for name, totals in zip(self._selections, per_group, strict=True):
                members = len(trained & self._parameters[name].keys())
                totals["parameters"] = np.ma.array([members] * len(steps))
        if updates_in_turns:
            for totals in per_group:
                totals |= {name: np.ma.masked_all(len(steps)) for name in _OF_UPDATES}
        count = len(per_group)
        columns: Columns = {
            "epoch": np.ma.array(np.repeat(tables["steps"]["epoch"], count)),
            "step": np.ma.array(np.repeat(steps, count)),
            "group": np.ma.array([*self._selections] * len(steps), dtype=object),
        }
        for quantity in per_group[0] if per_group else ():
            by_step = np.ma.stack([totals[quantity] for totals in per_group], axis=1)
            columns[quantity] = by_step.reshape(-1)
        return columns


def _members(model: nn.Module, selection: Selection) -> tuple[dict[str, None], dict[str, None]]:
    """Return the names of the modules and of the parameters that `selection` selects."""
    selectors = selectors_of(selection)
    # The model itself is a layer only if it is a single one; it is then named after its class.
    whole = type(model).__name__ if next(model.children(), None) is None else ""
    modules: dict[str, None] = {}
    for name, module in named_modules(model):
        called = name or whole
        inside = bool(name) and name.rpartition(".")[0] in modules
        if inside or (called and any(chooses(one, called, module) for one in selectors)):
            modules[called] = None
    patterns = [one for one in selectors if isinstance(one, str)]
    parameters = {
        name: None
        for name, _ in named_parameters(model)
        if (name.rpartition(".")[0] or whole) in modules
        or any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    return modules, parameters


class _Rows:
    """The rows of a table; each is looked at once, however many groups there are.

    Args:
        columns: of the table; None if it has no rows.
        key: the column with the names of parameters or layers.
        steps: the steps to which rows may belong, in order.
    """

    def __init__(self, columns: Columns | None, key: str, steps: np.ndarray) -> None:
        self._columns = columns or {}
        self._places = places_of(self._columns.get("step", []), steps)
        # A masked array is slow to go through.
        found: list[str] = np.asarray(self._columns.get(key, [])).tolist()
        codes: dict[str, int] = {}
        self._codes = np.array([codes.setdefault(name, len(codes)) for name in found], dtype=int)
        self._names = list(codes)

    def of(self, names: dict[str, None]) -> tuple[np.ndarray, Columns]:
        """Return the rows named in `names`: place of the step, columns.

        Of a layer these are all its calls, and of each all its tensors. Columns that the table has
        not are empty.
        """
        named = np.array([_module_of(name) in names for name in self._names], dtype=bool)
        chosen = named[self._codes] if len(named) else np.zeros(0, dtype=bool)
        empty: np.ma.MaskedArray[Any, Any] = np.ma.array([], dtype=float)
        found: Columns = defaultdict(lambda: empty)
        found |= {name: column[chosen] for name, column in self._columns.items() if name in _USED}
        return self._places[chosen], found


def _module_of(row: str) -> str:
    """The module's name in that of a row, as `lstm` in `lstm[1][0]` and `lstm#2[1][0]`."""
    return row.partition("[")[0].partition("#")[0]


_OF_UPDATES = ("update_norm", "update_to_weight")
_USED = (
    "weight_norm",
    "backward_gradient_norm",
    "gradient_norm",
    "update_norm",
    "norm",
    "nonfinite",
)


def _parameter_totals(rows: _Rows, names: dict[str, None], count: int) -> Columns:
    """Return the totals over the parameters in `names`: a value for each of `count` steps."""
    places, columns = rows.of(names)
    totals: Columns = {
        "parameters": np.ma.array(np.bincount(places, minlength=count)),
        "weight_norm": root_of_squares(columns["weight_norm"], places, count),
        **gradient_totals(columns, places, count),
        "update_norm": root_of_squares(columns["update_norm"], places, count),
    }
    totals["update_to_weight"] = quotient(totals["update_norm"], totals["weight_norm"])
    return totals


def _layer_totals(outputs: _Rows, gradients: _Rows, names: dict[str, None], count: int) -> Columns:
    """Return the totals over the layers in `names`: a value for each of `count` steps."""
    (forward, output), (backward, gradient) = outputs.of(names), gradients.of(names)
    nonfinite = np.zeros(count, dtype=np.int64)
    for places, columns in ((forward, output), (backward, gradient)):
        np.add.at(nonfinite, places, np.asarray(columns["nonfinite"], dtype=np.int64))
    ran = np.bincount(forward, minlength=count)
    return {
        "layers": np.ma.array(ran),
        "output_norm": root_of_squares(output["norm"], forward, count),
        "output_gradient_norm": root_of_squares(gradient["norm"], backward, count),
        "nonfinite": np.ma.array(nonfinite, mask=ran == 0),
    }
