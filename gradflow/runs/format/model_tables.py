"""The tables on the model as a whole: what it takes and returns, and its parameters.

x is a tensor of shape [N, ...]. Statistics of x are of at most 65,536 of its elements, those of
samples and places that lie evenly, M in number: so it costs the same however large x is.
"""

from gradflow.runs.format.quantity import EPOCH, STEP, Quantity, Table

INPUT, OUTPUT = "input", "output"

PARAMETER = Quantity("parameter", "name", "qualified parameter name", dtype="str")

MODEL_TENSORS = Table(
    "model_tensors",
    "a tensor x [N, ...] that the model takes or returns, in the first forward pass of a step; of "
    "several processes, in the first one",
    (
        EPOCH,
        STEP,
        Quantity("direction", "name", f"{INPUT} or {OUTPUT}", dtype="str"),
        Quantity(
            "place",
            "name",
            "argument of forward, or the path of positions, keys and fields, e.g. x, ids[0], [1]",
            dtype="str",
        ),
    ),
    (
        Quantity("shape", "elements", "sizes of x, e.g. 64x3x32x32", dtype="str"),
        Quantity("type", "name", "type of the numbers of x, e.g. float32", dtype="str"),
        Quantity(
            "autocast",
            "name",
            "type that autocast computes in as the model is called; missing without autocast",
            dtype="str",
        ),
        Quantity("read", "elements", "M", dtype="int64"),
        Quantity("mean", "unit of x", "sum(x) / M"),
        Quantity("std", "unit of x", "sqrt(sum((x - mean)^2) / M)"),
        Quantity("min", "unit of x", "min x"),
        Quantity("max", "unit of x", "max x"),
        Quantity("zero_fraction", "1", "count(x = 0) / M"),
        Quantity("nonfinite", "elements", "count(x is nan or infinite)", dtype="int64"),
        Quantity("whole", "1", "whether all elements are whole numbers", dtype="bool"),
        Quantity(
            "repeated",
            "1",
            "share of the other samples that equal the first one; missing for a single sample",
        ),
        Quantity(
            "batch_variance",
            "unit of x^2",
            "mean over all places of the variance over N (1/n); missing for a single sample",
        ),
        Quantity(
            "distance_from_probabilities",
            "1",
            "of an output without negative elements, max |sum over its classes - 1|: 0 after a "
            "softmax; missing otherwise",
        ),
    ),
)
GRADIENTS_BEFORE = Table(
    "gradients_before",
    "a parameter w at a step, of the few smallest of each optimizer",
    (EPOCH, STEP, PARAMETER),
    (
        Quantity(
            "optimizer",
            "name",
            "class of the optimizer that has w, as in the table parameters; missing without one",
            dtype="str",
        ),
        Quantity(
            "carried_over",
            "loss / unit of w",
            "max |.grad| as a backward pass of the step begins, the least over its passes: above 0 "
            "if gradients of the step before are still there",
        ),
    ),
)
PARAMETER_TYPES = Table(
    "parameter_types",
    "a trained parameter w, written at the end of the first epoch, and again if it changes",
    (EPOCH, PARAMETER),
    (
        Quantity("type", "name", "type of the numbers of w, e.g. bfloat16", dtype="str"),
        Quantity(
            "resolution",
            "1",
            "distance from 1 to the next larger number of that type; a change of a number below "
            "half of it, relative to the number, rounds to nothing",
            "IEEE 754",
        ),
        Quantity("elements", "elements", "number of elements of w", dtype="int64"),
    ),
)
