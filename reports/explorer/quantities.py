"""Which recorded quantities the explorer offers, in reading order, in groups of one table each."""

from dataclasses import dataclass

from gradflow.runs.format.quantity import Quantity
from gradflow.runs.format.schema import TABLES


@dataclass(frozen=True)
class QuantityGroup:
    """Quantities of one recorded table, all of them with a row for each of the same things.

    Fields:
        table: name of the table.
        heading: what the values speak of.
        symbols: what the letters in their formulas stand for.
        row_kind: what a row of the heat map stands for: layers, parameters or junctions.
        row_column: the column that names the row.
        columns: the columns offered.
    """

    table: str
    heading: str
    symbols: str
    row_kind: str
    row_column: str
    columns: tuple[str, ...]

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """The columns offered, as the schema describes them."""
        known = {quantity.name: quantity for quantity in TABLES[self.table].quantities}
        return tuple(known[name] for name in self.columns)


# Left out is what repeats another: std beside rms of gradients, whose mean is near zero, and the
# norm of activations, which grows with the size of a layer's output as that of gradients does.
GROUPS = (
    QuantityGroup(
        "gradients",
        "Gradients with respect to layer outputs",
        "x is the gradient of the loss with respect to a layer's "
        "output, M the number of its elements",
        "layers",
        "layer",
        ("rms", "norm", "abs_max", "zero_fraction", "nonfinite"),
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
# A count of events that are rare: the median over many steps would hide every one of them.
SHOWN_AS_LARGEST = ("nonfinite",)
# Parts of a whole, which a linear scale shows best.
SHARES = ("zero_fraction", "skip_share", "cancellation")
