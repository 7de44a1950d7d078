"""The classes `Quantity` and `Table` of the schema, and the columns that tables share."""

from dataclasses import dataclass

NFNET = "Brock et al. 2021, Characterizing signal propagation"


@dataclass(frozen=True)
class Quantity:
    """One column: its name, unit ("1" for a pure number), formula and source.

    `allowed_range`: the least and the largest value. Columns by which readers count or allocate
    have one; otherwise a single forged number could fill the memory. `former_name`: the column's
    name in runs of an older schema. `by_channel`: missing for a tensor that has no channels.
    `needs_variance`: missing for a tensor whose elements are all equal.
    """

    name: str
    unit: str
    formula: str
    source: str = ""
    dtype: str = "float64"
    allowed_range: tuple[int, int] | None = None
    former_name: str = ""
    by_channel: bool = False
    needs_variance: bool = False


@dataclass(frozen=True)
class Table:
    """One table: the meaning of a row, the columns that identify it, and its quantities.

    `open_ended` tables (the scalars of an epoch) may have further columns.
    `former_name` is the table's name in runs of an older schema, if it was renamed.
    """

    name: str
    row_meaning: str
    keys: tuple[Quantity, ...]
    quantities: tuple[Quantity, ...]
    open_ended: bool = False
    former_name: str = ""

    @property
    def columns(self) -> tuple[Quantity, ...]:
        """The keys, then the quantities, in the order in which they are stored."""
        return self.keys + self.quantities

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of a run that hold its parts: that of this schema, then the former one."""
        return (self.name, self.former_name) if self.former_name else (self.name,)

    @property
    def current_names(self) -> dict[str, str]:
        """The current names of renamed columns, by their former names."""
        return {one.former_name: one.name for one in self.columns if one.former_name}


EPOCH = Quantity("epoch", "epochs", "counted from 1", dtype="int32")
STEP = Quantity("step", "optimizer steps", "counted from 0 over the whole run", dtype="int64")
LAYER = Quantity(
    "layer",
    "name",
    "qualified module name; the second call in one forward is name#2; a further tensor of its "
    "output is name[place], by position, key or field, e.g. lstm[1][0]",
    dtype="str",
)
BATCH_SIZE = Quantity("batch_size", "samples", "N", dtype="int32")

PREDICTION_COLUMNS = (
    Quantity("target", "class", "index of the true class", dtype="int32"),
    Quantity("prediction", "class", "index of the most probable class", dtype="int32"),
    Quantity("probability", "1", "softmax probability of the predicted class"),
)
IMAGE = Quantity("image", "image", "index into the table images", dtype="int32")
