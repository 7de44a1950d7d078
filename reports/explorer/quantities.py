"""The recorded quantities that the explorer offers, in reading order, grouped by table."""

from dataclasses import dataclass

from gradflow.runs.format.quantity import Quantity
from gradflow.runs.format.schema import TABLES


@dataclass(frozen=True)
class QuantityGroup:
    """Quantities of one recorded table that share the rows of the heat map.

    Fields:
        table: the name of the table.
        heading: what the quantities describe.
        symbols: the meaning of the letters in their formulas.
        row_kind: what a row of the heat map stands for: layers, parameters or junctions.
        row_column: the table's column that names the row.
        columns: the table's columns that the explorer offers.
    """

    table: str
    heading: str
    symbols: str
    row_kind: str
    row_column: str
    columns: tuple[str, ...]

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """The offered columns with their descriptions in the schema."""
        known = {quantity.name: quantity for quantity in TABLES[self.table].quantities}
        return tuple(known[name] for name in self.columns)


# Columns that repeat another one are left out: std of gradients (their mean is near zero, so it is
# close to rms) and norm of activations (it grows with the size of a layer's output).
GROUPS = (
    QuantityGroup(
        "gradients",
        "Gradients with respect to layer outputs",
        "x is the gradient of the loss with respect to a layer's "
        "output, M the number of its elements",
        "layers",
        "layer",
        ("rms", "norm", "kurtosis", "abs_max", "zero_fraction", "nonfinite"),
    ),
    QuantityGroup(
        "activations",
        "Activations (layer outputs)",
        "x is a layer's output with M elements, N the batch, C the channels, S everything after C",
        "layers",
        "layer",
        (
            "rms",
            "mean",
            "std",
            "kurtosis",
            "abs_max",
            "zero_fraction",
            "dead_channels",
            "channel_squared_mean",
            "channel_variance",
            "nonfinite",
        ),
    ),
    QuantityGroup(
        "parameters",
        "Weights of layers",
        "w is the layer's weight",
        "parameters",
        "parameter",
        ("gradient_norm", "weight_norm", "update_norm", "update_to_weight", "gradient_cosine"),
    ),
    QuantityGroup(
        "junctions",
        "Residual additions",
        "s and b are the parts of the gradient with respect to the input x that come by skip(x) "
        "and by branch(x), g = s + b",
        "junctions",
        "layer",
        (
            "skip_share",
            "skip_gradient_norm",
            "branch_gradient_norm",
            "gradient_norm",
            "skip_branch_cosine",
            "cancellation",
            "skip_variance",
            "branch_variance",
        ),
    ),
)
# Shown as the largest value: a median over many steps would hide these rare events.
SHOWN_AS_LARGEST = ("nonfinite",)
# Fractions between 0 and 1, which are best shown on a linear scale.
SHARES = ("zero_fraction", "skip_share", "cancellation")
