"""The schema: every recorded quantity with its table, name, unit, formula and source."""

from gradflow.runs.format.layer_tables import (
    ACTIVATION_HISTOGRAMS,
    ACTIVATIONS,
    GRADIENT_HISTOGRAMS,
    GRADIENTS,
    JUNCTIONS,
    LAYERS,
    MODES,
    POSITIONS,
    RUNNING_STATISTICS,
)
from gradflow.runs.format.model_tables import GRADIENTS_BEFORE, MODEL_TENSORS, PARAMETER_TYPES
from gradflow.runs.format.probe_tables import PROBE_TABLES
from gradflow.runs.format.quantity import (
    EPOCH,
    IMAGE,
    PREDICTION_COLUMNS,
    STEP,
    Quantity,
    Table,
)
from gradflow.runs.format.term_tables import TERM_PAIRS, TERMS
from gradflow.runs.format.update_tables import GROUPS, PARAMETERS, SPIKES, STEPS

SCHEMA_VERSION = 3

_AXES = """\
Axis letters: N batch, C channel, S everything else. x is a layer's output, or the gradient of the
loss with respect to it; M is the number of its elements; statistics run over N, C and S unless
stated otherwise. Columns in bold identify a row. A value that was not observed is missing; nan is
an observed value."""

EPOCHS = Table(
    "epochs", "an epoch, with the scalars given to end_epoch", (EPOCH, STEP), (), open_ended=True
)
IMAGES = Table(
    "images",
    "an image of the data set",
    (IMAGE,),
    (
        Quantity("name", "name", "file name, or the data set's own index", dtype="str"),
        Quantity("label", "class", "index of its class", dtype="int32"),
        Quantity("subset", "name", "training or validation", dtype="str"),
        Quantity("fingerprint", "SHA-256", "of the file; equal for identical images", dtype="str"),
    ),
)
PREDICTIONS = Table(
    "predictions", "a validation image at an epoch's end", (EPOCH, IMAGE), PREDICTION_COLUMNS
)
RECALIBRATION = Table(
    "recalibration",
    "a validation image at an epoch's end, batch-norm statistics re-estimated on training images",
    (EPOCH, IMAGE),
    PREDICTION_COLUMNS,
)

TABLES = {
    table.name: table
    for table in (
        LAYERS,
        ACTIVATIONS,
        GRADIENTS,
        ACTIVATION_HISTOGRAMS,
        GRADIENT_HISTOGRAMS,
        PARAMETERS,
        JUNCTIONS,
        STEPS,
        SPIKES,
        MODES,
        RUNNING_STATISTICS,
        POSITIONS,
        GROUPS,
        MODEL_TENSORS,
        GRADIENTS_BEFORE,
        PARAMETER_TYPES,
        TERMS,
        TERM_PAIRS,
        EPOCHS,
        IMAGES,
        PREDICTIONS,
        RECALIBRATION,
        *PROBE_TABLES,
    )
}

# Tables by the name of the folder that holds their parts, including names of older schemas.
TABLE_OF_FOLDER = {folder: table for table in TABLES.values() for folder in table.folders}


def as_markdown() -> str:
    """The page `docs/reference/quantities.md`: every table with its columns, as stored."""
    lines = [
        "# What is recorded",
        "",
        "Printed by `python -m gradflow.runs.format.schema > docs/reference/quantities.md`.",
        "",
        *_AXES.splitlines(),
    ]
    for table in TABLES.values():
        lines += ["", f"## {table.name}", "", f"A row is {table.row_meaning}."]
        if table.open_ended:
            lines += ["", "It may have further columns."]
        lines += ["", "| column | unit | formula | type | source |", "|---|---|---|---|---|"]
        for quantity in table.columns:
            cells = (quantity.name, quantity.unit, quantity.formula, quantity.dtype)
            escaped = [cell.replace("|", "\\|") for cell in (*cells, quantity.source)]
            key = "**" if quantity in table.keys else ""
            lines.append(
                f"| {key}{escaped[0]}{key} | {' | '.join(escaped[1:])} |".replace("  ", " ")
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(as_markdown(), end="")
