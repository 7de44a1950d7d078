"""The tables on the terms of a loss: what each of them asks of layers and parameters."""

from gradflow.runs.format.quantity import EPOCH, STEP, Quantity, Table

WANG = "Wang, Teng & Perdikaris 2021, Understanding and mitigating gradient flow pathologies"
YU = "Yu et al. 2020, Gradient surgery for multi-task learning"

# Of the column `kind`. The gradient of the model is that of all its parameters together.
LAYER_KIND, PARAMETER_KIND, MODEL_KIND = "layer", "parameter", "model"
WHOLE_MODEL = "all parameters"

_KEYS = (
    EPOCH,
    STEP,
    Quantity("kind", "name", "what the place is: a layer, a parameter or the model", dtype="str"),
    Quantity(
        "place",
        "name",
        "the layer, of whose output x the gradient is; the parameter w; or, for the model, "
        f"{WHOLE_MODEL}",
        dtype="str",
    ),
)
_TERM = Quantity("term", "name", "as given to Tracer.terms", dtype="str")

TERMS = Table(
    "terms",
    "a term of the loss at a place, in a step; g_k is the gradient of the term, the sum over "
    "the step's passes, and g the sum of the g_k",
    (*_KEYS, _TERM),
    (
        Quantity(
            "gradient_norm",
            "loss / unit of x or w",
            "|g_k|; missing if the term does not depend on the place",
        ),
        Quantity(
            "share",
            "1",
            "|g_k| / (sum of |g_j|); missing if g_k is, or if all of them are 0",
            WANG,
        ),
        Quantity(
            "contribution",
            "1",
            "<g_k, g> / <g, g>: the contributions add up to 1, and one below 0 is of a term that "
            "the step works against; missing if g_k is, or if g is 0",
        ),
        Quantity("sum_norm", "loss / unit of x or w", "|g|, the same for all terms of the place"),
        Quantity(
            "sum_error",
            "1",
            "||g| - n| / (sum of |g_k|), n the norm of the gradient that the loss itself has sent "
            "back to the layer: 0, but for rounding, if the terms add up to the loss; missing for "
            "parameters, and where n was not recorded",
        ),
        Quantity(
            "value",
            "loss",
            "of the term with its weight, the mean over the step's passes; only in the rows of "
            "the model",
        ),
        Quantity(
            "weight",
            "1",
            "the weight that the term was given with; missing if it came without, and but in the "
            "rows of the model",
        ),
    ),
)
TERM_PAIRS = Table(
    "term_pairs",
    "two terms of the loss at a place, in a step; both depend on the place",
    (
        *_KEYS,
        _TERM,
        Quantity("other", "name", "the other term, given after the first", dtype="str"),
    ),
    (
        Quantity(
            "cosine",
            "1",
            "of the gradients of the two: below 0 they pull against each other; missing if one of "
            "them is 0",
            YU,
        ),
        Quantity(
            "norm_ratio",
            "1",
            "gradient_norm of the term / that of the other; missing if the other is 0",
            WANG,
        ),
    ),
)
