"""The schema: every recorded quantity with its table, name, unit, formula and source.

Axis letters: N batch, C channel (axis 1 of a tensor with at least two axes), S everything after C.
x is a layer's output of shape [N, C, S], or the gradient of the loss with respect to it; M is the
number of its elements. Statistics run over N, C and S unless stated otherwise.
"""

from gradflow.runs.format.probe_tables import PROBE_TABLES
from gradflow.runs.format.quantity import (
    BATCH_SIZE,
    EPOCH,
    IMAGE,
    LAYER,
    NFNET,
    PREDICTION_COLUMNS,
    STEP,
    Quantity,
    Table,
)

SCHEMA_VERSION = 3

_AXES = """\
Axis letters: N batch, C channel, S everything else. x is a layer's output, or the gradient of the
loss with respect to it; M is the number of its elements; statistics run over N, C and S unless
stated otherwise. Columns in bold identify a row. A value that was not observed is missing; nan is
an observed value."""

TENSOR_STATISTICS = (
    Quantity("mean", "unit of x", "sum(x) / M"),
    Quantity("std", "unit of x", "sqrt(sum((x - mean)^2) / M)"),
    Quantity("rms", "unit of x", "sqrt(sum(x^2) / M)"),
    Quantity("norm", "unit of x", "sqrt(sum(x^2)), the L2 norm"),
    Quantity(
        "kurtosis",
        "1",
        "sum((x - mean)^4) / M / std^4: 3 for a normal distribution, 1 at least, about M for a "
        "single outlier among equal elements; missing if all elements are equal",
        "Pearson 1905, Das Fehlergesetz",
        needs_variance=True,
    ),
    Quantity("abs_max", "unit of x", "max |x|"),
    Quantity("zero_fraction", "1", "count(x = 0) / M"),
    Quantity("nonfinite", "elements", "count(x is nan or infinite)", dtype="int64"),
    Quantity(
        "dead_channels",
        "channels",
        "count over C of (x = 0 on all of N, S)",
        dtype="int64",
        by_channel=True,
    ),
    Quantity(
        "channel_squared_mean",
        "unit of x^2",
        "mean over C of (mean over N, S)^2",
        NFNET,
        by_channel=True,
    ),
    Quantity(
        "channel_variance",
        "unit of x^2",
        "mean over C of the variance over N, S (1/n)",
        NFNET,
        by_channel=True,
    ),
)

HISTOGRAM_COLUMNS = (
    Quantity("zeros", "elements", "count(x = 0)", dtype="int64"),
    Quantity("underflow", "elements", "count(0 < |x| < 2^-126)", dtype="int64"),
    Quantity("infinite", "elements", "count(|x| infinite)", dtype="int64"),
    Quantity("nan", "elements", "count(x is nan)", dtype="int64"),
    Quantity(
        "lowest_exponent",
        "power of two",
        "e of the first bin that holds elements; missing if no bin does",
        dtype="int32",
        allowed_range=(-1100, 1100),
    ),
    Quantity(
        "counts",
        "elements",
        "[count(2^e <= |x| < 2^(e+1)) for e from lowest_exponent up to the last filled bin]; "
        "e = 127 also counts the larger numbers of float64",
        dtype="list",
    ),
)

LAYERS = Table(
    "layers",
    "a layer, in order of execution",
    (LAYER,),
    (
        Quantity("type", "name", "class of the module", dtype="str"),
        Quantity(
            "depth",
            "layers",
            "convolutions and linear layers run so far, including this one, without projections",
            dtype="int32",
        ),
        Quantity(
            "stage",
            "stage",
            "counted from 0; layers with outputs of the same shape (without N) share a stage",
            dtype="int32",
        ),
        Quantity(
            "role",
            "name",
            "by class: convolution, normalization, activation, linear, recurrent, attention, "
            "embedding, block (a module of modules), other; projection if it lies on a skip",
            dtype="str",
        ),
        Quantity(
            "shape",
            "elements",
            "shape of the output without N and axes of varying length, e.g. 64x8x8",
            dtype="str",
        ),
        Quantity(
            "parameters",
            "parameters",
            "number of parameters of the module; 0 for its further calls and further tensors",
            dtype="int64",
        ),
    ),
)

ACTIVATIONS = Table(
    "activations", "a layer's output at a step", (EPOCH, STEP, LAYER, BATCH_SIZE), TENSOR_STATISTICS
)
GRADIENTS = Table(
    "gradients",
    "the gradient of the loss, as the user reduced it, with respect to a layer's output at a step",
    (EPOCH, STEP, LAYER, BATCH_SIZE),
    TENSOR_STATISTICS,
)
ACTIVATION_HISTOGRAMS = Table(
    "activation_histograms",
    "the magnitudes of a layer's output at a step, by power of two",
    (EPOCH, STEP, LAYER),
    HISTOGRAM_COLUMNS,
)
GRADIENT_HISTOGRAMS = Table(
    "gradient_histograms",
    "the magnitudes of the gradient with respect to a layer's output at a step, by power of two",
    (EPOCH, STEP, LAYER),
    HISTOGRAM_COLUMNS,
)
PARAMETERS = Table(
    "parameters",
    "a parameter w at a step",
    (EPOCH, STEP, Quantity("parameter", "name", "qualified parameter name", dtype="str")),
    (
        Quantity("weight_norm", "unit of w", "|w| before the update"),
        Quantity(
            "backward_gradient_norm",
            "loss / unit of w",
            "|dL/dw| as the step's last backward pass left it, before clipping",
        ),
        Quantity("gradient_norm", "loss / unit of w", "|dL/dw| as the optimizer receives it"),
        Quantity(
            "clipping_factor",
            "1",
            "gradient_norm / backward_gradient_norm: 1 if nothing changed it in between; missing "
            "if both are 0",
        ),
        Quantity("update_norm", "unit of w", "|w after - w before|"),
        Quantity("update_to_weight", "1", "update_norm / weight_norm", "CS231n, Stanford"),
        Quantity("gradient_cosine", "1", "cosine of dL/dw with that of the previous step"),
        Quantity(
            "optimizer",
            "name",
            "class of the optimizer that has w, numbered if there are several of that class; none "
            "if no optimizer given has it; missing without an optimizer",
            dtype="str",
        ),
        Quantity("group", "group", "number of its parameter group there, from 0", dtype="int32"),
        Quantity(
            "learning_rate",
            "1",
            "of that group in this step; missing if the optimizer keeps it in a tensor",
        ),
    ),
)
JUNCTIONS = Table(
    "junctions",
    "a residual addition y = skip(x) + branch(x) at a step; x is the tensor from which skip and "
    "branch start, and the layer is the innermost module whose forward adds them",
    (
        EPOCH,
        STEP,
        Quantity(
            "layer",
            "name",
            "qualified module name, (model) for the model's own forward; its second addition in "
            "one call is name+2, the first addition of its second call name#2",
            dtype="str",
        ),
    ),
    (
        Quantity(
            "skip_type",
            "name",
            "identity; projection: with weights; gated: multiplied by data computed from x; mixed: "
            "streams mixed by a matrix",
            dtype="str",
            former_name="shortcut",
        ),
        Quantity(
            "gradient_norm",
            "unit of dL/dx",
            "|g|, g = s + b: dL/dx if nothing else reads x, otherwise its part through both",
        ),
        Quantity(
            "skip_gradient_norm",
            "unit of dL/dx",
            "|s|, s the part of dL/dx through the skip, without that through its gate",
        ),
        Quantity(
            "branch_gradient_norm", "unit of dL/dx", "|b|, b the part of dL/dx through the branch"
        ),
        Quantity("skip_branch_cosine", "1", "<s, b> / (|s| |b|)"),
        Quantity("skip_share", "1", "<s, g> / <g, g>; the branch's share is 1 - skip_share"),
        Quantity(
            "cancellation",
            "1",
            "1 - |s + b| / (|s| + |b|): 0 if s and b are aligned, 1 if they cancel",
        ),
        Quantity(
            "input_gradient_norm",
            "unit of dL/dx",
            "|dL/dx|, including o, the part through other operations of the pass that read x",
        ),
        Quantity(
            "residual_error",
            "1",
            "|dL/dx - (s + b + o)| / |dL/dx|: rounding error, unless a loss reads x directly",
        ),
        Quantity("skip_variance", "unit of x^2", "channel_variance of skip(x)", NFNET),
        Quantity("branch_variance", "unit of x^2", "channel_variance of branch(x)", NFNET),
    ),
)
STEPS = Table(
    "steps",
    "a recorded step",
    (EPOCH, STEP),
    (
        Quantity(
            "scale", "1", "factor of the loss under loss scaling; recorded values do not contain it"
        ),
        Quantity("skipped", "1", "whether the gradient scaler skipped the update", dtype="bool"),
        Quantity(
            "backward_gradient_norm",
            "loss / unit of w",
            "root of the sum over all parameters of backward_gradient_norm^2",
        ),
        Quantity(
            "gradient_norm",
            "loss / unit of w",
            "root of the sum over all parameters of gradient_norm^2",
        ),
        Quantity(
            "clipping_factor",
            "1",
            "gradient_norm / backward_gradient_norm, of the parameters that have both: 1 without "
            "clipping; missing if both are 0",
        ),
    ),
)
MODES = Table(
    "modes",
    "a layer's mode in the first recorded step that ran it, and in each that found it changed",
    (EPOCH, STEP, LAYER),
    (Quantity("mode", "name", "training or evaluation", dtype="str"),),
)
GROUPS = Table(
    "groups",
    "a named group of parameters and layers at a step: totals of their rows in the other tables",
    (EPOCH, STEP, Quantity("group", "name", "as given to the tracer", dtype="str")),
    (
        Quantity(
            "parameters", "parameters", "number of its trained parameter tensors", dtype="int32"
        ),
        Quantity("weight_norm", "unit of w", "root of the sum over them of weight_norm^2"),
        Quantity(
            "backward_gradient_norm",
            "loss / unit of w",
            "root of the sum over them of backward_gradient_norm^2",
        ),
        Quantity(
            "gradient_norm", "loss / unit of w", "root of the sum over them of gradient_norm^2"
        ),
        Quantity(
            "clipping_factor",
            "1",
            "gradient_norm / backward_gradient_norm, of those with both; missing if both are 0",
        ),
        Quantity("update_norm", "unit of w", "root of the sum over them of update_norm^2"),
        Quantity("update_to_weight", "1", "update_norm / weight_norm"),
        Quantity(
            "layers",
            "layers",
            "number of its layers that ran; a block and a layer in it count as two",
            dtype="int32",
        ),
        Quantity("output_norm", "unit of x", "root of the sum over them of norm^2 of the output"),
        Quantity(
            "output_gradient_norm",
            "loss / unit of x",
            "root of the sum over them of norm^2 of the gradient with respect to the output",
        ),
        Quantity(
            "nonfinite",
            "elements",
            "sum over them of nonfinite, of outputs and gradients",
            dtype="int64",
        ),
    ),
)
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
        MODES,
        GROUPS,
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
    """The page `docs/quantities.md`: every table with its columns, as stored."""
    lines = [
        "# What is recorded",
        "",
        "Printed by `python -m gradflow.runs.format.schema > docs/quantities.md`.",
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
