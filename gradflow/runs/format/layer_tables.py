"""The tables on layers: their tensors, modes, running statistics, positions, residual additions.

Axis letters: N batch, C channel (axis 1 of a tensor with at least two axes), S everything after C.
x is a layer's output of shape [N, C, S], or the gradient of the loss with respect to it; M is the
number of its elements. Statistics run over N, C and S unless stated otherwise.
"""

from gradflow.runs.format.quantity import BATCH_SIZE, EPOCH, LAYER, NFNET, STEP, Quantity, Table

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
MODES = Table(
    "modes",
    "a layer's mode in the first recorded step that ran it, and in each that found it changed",
    (EPOCH, STEP, LAYER),
    (Quantity("mode", "name", "training or evaluation", dtype="str"),),
)

RUNNING_STATISTICS = Table(
    "running_statistics",
    "a batch-norm layer at an epoch's end: its running statistics compared with those of the "
    "batches of the last recorded steps, K of them, at most 8: m and v are the means over these of "
    "the batch's mean and unbiased variance, s_m^2 and s_v^2 their sample variances over these",
    (EPOCH, LAYER),
    (
        Quantity("mode", "name", "training or evaluation, at the epoch's end", dtype="str"),
        Quantity(
            "momentum", "1", "a of running = (1 - a) running + a batch; missing for a plain average"
        ),
        Quantity("passes", "passes", "seen by the running statistics so far", dtype="int64"),
        Quantity("channels", "channels", "C", dtype="int32"),
        Quantity(
            "is_new", "1", "1 if running_mean is 0 and running_var 1 everywhere", dtype="bool"
        ),
        Quantity("batches", "steps", "K; 0 in evaluation mode", dtype="int32"),
        Quantity("mean_shift", "1", "sqrt(mean over C of (running_mean - m)^2 / (v + eps))"),
        Quantity(
            "variance_shift", "1", "sqrt(mean over C of ln((running_var + eps) / (v + eps))^2)"
        ),
        Quantity("mean_scatter", "1", "sqrt(mean over C of s_m^2 / (v + eps))"),
        Quantity("variance_scatter", "1", "sqrt(mean over C of s_v^2 / (v + eps)^2)"),
        Quantity(
            "expected_mean_shift",
            "1",
            "of mean_shift if only the choice of batches made it: mean_scatter sqrt(a / (2 - a) + "
            "1/K - 2/K W), W the weight of these batches in the running statistics",
        ),
        Quantity("expected_variance_shift", "1", "the same of variance_scatter"),
    ),
)
POSITIONS = Table(
    "positions",
    "a bin of positions in a sequence at a step, at most 32 of T positions: x_t is what a layer's "
    "tensor holds of position t, for all N",
    (
        EPOCH,
        STEP,
        LAYER,
        Quantity(
            "tensor",
            "name",
            "output, or input: the layer's, [N, T, H] or [T, N, H]; calls: x_t is the output of "
            "the module's call t in a forward pass, each of which computes on from the one before",
            dtype="str",
        ),
        Quantity("bin", "bins", "counted from 0", dtype="int32"),
    ),
    (
        Quantity("first_position", "positions", "of the bin, from 0", dtype="int32"),
        Quantity("last_position", "positions", "of the bin", dtype="int32"),
        Quantity(
            "gradient_norm",
            "loss / unit of x",
            "root of the mean over the bin's positions of |dL/dx_t|^2",
            "Pascanu et al. 2013, On the difficulty of training recurrent neural networks",
        ),
        Quantity(
            "rms",
            "unit of x",
            "root of the mean over the bin's positions of (mean over N, H of x_t^2)",
        ),
    ),
)
