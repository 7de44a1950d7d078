"""The tables on steps and what they do to the parameters."""

from gradflow.runs.format.quantity import EPOCH, STEP, Quantity, Table

# The optimizer of a parameter that none of the optimizers has.
NO_OPTIMIZER = "none"

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
            "class of the optimizer that has w, numbered if there are several of that class; "
            f"{NO_OPTIMIZER} if no optimizer given has it; missing without an optimizer",
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
            "mode",
            "name",
            "training or evaluation: of the whole model in the last backward pass of the step, or "
            "as the step ends if none was seen",
            dtype="str",
        ),
        Quantity(
            "loss",
            "loss",
            "as given to Tracer.log, the mean over the step's passes, and over the processes",
        ),
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
SPIKES = Table(
    "spikes",
    "a step around one in which the loss or the gradient norm spikes",
    (EPOCH, STEP),
    (
        Quantity("spike", "optimizer steps", "the nearest step that spikes", dtype="int64"),
        Quantity(
            "quantity", "name", "loss or gradient_norm: what left its history there", dtype="str"
        ),
        Quantity(
            "spreads",
            "1",
            "of the spike: how many spreads the loss lies above the median of up to 32 steps "
            "before, or half of that with the gradient norm",
            "Chowdhery et al. 2022, PaLM, section 5.1",
        ),
        Quantity(
            "batch_hash", "name", "of the inputs, as gradflow.batch_hash gives it", dtype="str"
        ),
        Quantity("batch", "image", "indices of the samples, as given to Tracer.log", dtype="list"),
        Quantity(
            "random_state",
            "1",
            "torch.get_rng_state() before the step's first forward pass",
            dtype="bytes",
        ),
        Quantity("device_random_state", "1", "the same of the model's CUDA device", dtype="bytes"),
    ),
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
            "number of its layers that ran, by their rows: each call counts, each tensor of an "
            "output that is observed, and a block beside the layers in it",
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
