"""The names under which quantities are written, and the choice of some by pattern.

A name is the table in the singular, an underscore and the column, then a slash and the row:
`gradient_norm/layer1.0.conv1`, `parameter_update_to_weight/fc.weight`. Rows of `steps` and `epochs`
have no name of their own: `step_gradient_norm`, `epoch_train_loss`. Magnitudes, counted by power of
two, are histograms: `gradient_magnitudes/layer1.0.conv1`.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from gradflow.errors import ConfigurationError
from gradflow.runs.format.quantity import Quantity
from gradflow.runs.format.schema import TABLES

# What is written if nothing is chosen.
DEFAULT_QUANTITIES = (
    "gradient_norm",
    "activation_rms",
    "parameter_update_to_weight",
    "group_gradient_norm",
    "group_update_to_weight",
    "step_*",
    "epoch_*",
    "gradient_magnitudes",
    "activation_magnitudes",
)
# By table: what its names begin with, and the column that names its rows.
_TABLES = {
    "gradients": ("gradient", "layer"),
    "gradient_histograms": ("gradient", "layer"),
    "activations": ("activation", "layer"),
    "activation_histograms": ("activation", "layer"),
    "parameters": ("parameter", "parameter"),
    "junctions": ("junction", "layer"),
    "groups": ("group", "group"),
    "steps": ("step", ""),
}
_NUMBERS = ("float64", "int64", "int32", "bool")
# Says where the counts begin, and nothing without them.
_PART_OF_MAGNITUDES = ("lowest_exponent",)
EPOCH_PREFIX = "epoch_"


def _is_scalar(quantity: Quantity) -> bool:
    return quantity.dtype in _NUMBERS and quantity.name not in _PART_OF_MAGNITUDES


# By table: the names of its columns of numbers, and of its magnitudes.
SCALARS = {
    table: {one.name: f"{prefix}_{one.name}" for one in TABLES[table].quantities if _is_scalar(one)}
    for table, (prefix, _) in _TABLES.items()
}
MAGNITUDES = {
    table: f"{prefix}_magnitudes"
    for table, (prefix, _) in _TABLES.items()
    if any(one.name == "counts" for one in TABLES[table].quantities)
}
ROW_COLUMN = {table: column for table, (_, column) in _TABLES.items()}
QUANTITIES = tuple(
    name
    for table, columns in SCALARS.items()
    for name in (*columns.values(), *([MAGNITUDES[table]] if table in MAGNITUDES else []))
)


class Choice:
    """The quantities that are written, by patterns such as `gradient_norm/layer1.*`.

    A pattern without a slash is of the quantity, and takes all of its rows.

    Raises `ConfigurationError` if a pattern fits no quantity.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
        for pattern in self.patterns:
            _require_known(pattern)
        if not self.patterns:
            raise ConfigurationError("quantities= is empty: name one, such as gradient_norm")
        self._known: dict[str, bool] = {}

    def may_take(self, quantity: str) -> bool:
        """Whether some row of `quantity` may be chosen."""
        return any(fnmatchcase(quantity, one.partition("/")[0]) for one in self.patterns)

    def takes(self, name: str) -> bool:
        """Whether the quantity and row called `name` are chosen."""
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = any(_fits(pattern, name) for pattern in self.patterns)
        return found


def full_name(quantity: str, row: str) -> str:
    """The name of a row of `quantity`; `row` is empty if the quantity has one row a step."""
    return f"{quantity}/{row}" if row else quantity


def _fits(pattern: str, name: str) -> bool:
    # Names of layers may hold brackets, which a pattern takes for a choice of letters.
    if pattern == name:
        return True
    return fnmatchcase(name if "/" in pattern else name.partition("/")[0], pattern)


def _require_known(pattern: object) -> None:
    if not isinstance(pattern, str):
        raise ConfigurationError(
            f"quantities= takes patterns such as gradient_norm/*, not {pattern!r}"
        )
    quantity = pattern.partition("/")[0]
    if quantity.startswith(EPOCH_PREFIX) or any(fnmatchcase(one, quantity) for one in QUANTITIES):
        return
    raise ConfigurationError(
        f"the pattern {pattern!r} fits no quantity: it begins with the name of one, or with *, "
        f"such as gradient_norm/*; docs/howto/sinks.md lists them"
    )
