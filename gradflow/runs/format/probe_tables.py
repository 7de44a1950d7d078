"""The tables that probes fill at the end of an epoch; see `gradflow.probes`.

The axis letters are those of `gradflow.runs.format.schema`. L is the mean cross-entropy of the
images that a probe uses, and g is its gradient. Batch norms use their running statistics unless
stated otherwise.
"""

from gradflow.runs.format.quantity import EPOCH, IMAGE, LAYER, PREDICTION_COLUMNS, Quantity, Table

BALDUZZI = "Balduzzi et al. 2017, The shattered gradients problem"
VEIT = "Veit et al. 2016, Residual networks behave like ensembles"
MCCANDLISH = "McCandlish et al. 2018, An empirical model of large-batch training"
LI = "Li et al. 2018, Visualizing the loss landscape of neural nets"
DHAMDHERE = "Dhamdhere et al. 2018, How important is a neuron?"
CONFUSION = "Sankararaman et al. 2020, The impact of neural network overparameterization"

BATCHNORM_STALENESS = Table(
    "batchnorm_staleness",
    "a batch-norm layer at an epoch's end: its running statistics compared with those re-estimated "
    "on the training images (m, v); the layers before it use re-estimated ones too",
    (EPOCH, LAYER),
    (
        Quantity("mean_shift", "1", "sqrt(mean over C of (running_mean - m)^2 / (v + eps))"),
        Quantity(
            "variance_shift",
            "1",
            "sqrt(mean over C of ln((running_var + eps) / (v + eps))^2)",
        ),
        Quantity("channels", "channels", "C", dtype="int32"),
    ),
)
GRADIENT_COHERENCE = Table(
    "gradient_coherence",
    "the gradients g_i of single images of the probe batch with respect to the parameters of a "
    "layer; (model) stands for all parameters together",
    (EPOCH, LAYER),
    (
        Quantity("samples", "images", "n", dtype="int32"),
        Quantity("mean_cosine", "1", "mean over pairs i < j of <g_i, g_j> / (|g_i| |g_j|)"),
        Quantity("min_cosine", "1", "min over pairs of the same", CONFUSION),
        Quantity(
            "signal_to_noise",
            "1",
            "|G|^2 / tr(S), G the mean of g_i, S their covariance (1/(n-1)); |G|^2 minus its bias "
            "tr(S)/n, so that 0 is expected if there is no common direction",
        ),
    ),
)
SHATTERING = Table(
    "shattering",
    "the autocorrelation, at one distance, of the gradient of a logit with respect to a layer's "
    "output along straight lines between two images of the probe batch",
    (
        EPOCH,
        LAYER,
        Quantity("lag", "points", "distance between two points, in grid points", dtype="int32"),
    ),
    (
        Quantity("points", "points", "number of grid points on a line", dtype="int32"),
        Quantity(
            "autocorrelation",
            "1",
            "mean over points t of <d(t), d(t + lag)>, divided by its value at lag 0; d the "
            "gradient minus its mean over the line; mean over the lines",
            BALDUZZI,
        ),
    ),
)
PATH_LENGTHS = Table(
    "path_lengths",
    "all paths of one length through the residual blocks; the length is the number of branches",
    (
        EPOCH,
        Quantity("length", "branches", "k, of n blocks", dtype="int32", allowed_range=(0, 100_000)),
    ),
    (
        Quantity("paths", "paths", "n! / (k! (n - k)!)"),
        Quantity(
            "gradient_norm",
            "unit of dL/dx",
            "|g_k|, g_k the sum of dL/dx over all paths of length k, x the first block's input; if "
            "paths were sampled, too large because of their scatter",
            VEIT,
        ),
        Quantity(
            "share",
            "1",
            "<g_k, g> / <g, g>, g = dL/dx through all paths; the shares add up to 1 if all paths "
            "were expanded, and to 1 up to their scatter if paths were sampled",
        ),
        Quantity(
            "draws",
            "paths",
            "number of paths of this length sampled at random; missing if all were expanded",
            dtype="int64",
        ),
    ),
)
LESIONS = Table(
    "lesions",
    "a validation image classified with blocks deleted, with running statistics; a deleted block "
    "keeps its skip without its branch, and a plain block passes its input on, subsampled and "
    "zero-padded if the shape changes",
    (
        EPOCH,
        Quantity("blocks", "names", "deleted blocks, joined by +; empty for none", dtype="str"),
        IMAGE,
    ),
    (Quantity("deleted", "blocks", "number of deleted blocks", dtype="int32"), *PREDICTION_COLUMNS),
)
SKIP_SCALING = Table(
    "skip_scaling",
    "the network with the skips of a scope multiplied by a scale and unchanged weights; "
    "re-estimated statistics are the average over the first training batches (4 by default)",
    (
        EPOCH,
        Quantity("scope", "name", "a block, a stage (e.g. layer1), or all", dtype="str"),
        Quantity("scale", "1", "alpha; 1 is the unchanged network, 0 removes the skips"),
    ),
    (
        Quantity("images", "images", "number of validation images", dtype="int32"),
        Quantity(
            "correct",
            "images",
            "correctly predicted, running statistics; missing for single blocks",
            dtype="int32",
        ),
        Quantity(
            "correct_recalibrated",
            "images",
            "correctly predicted, statistics re-estimated on training images at this scale",
            dtype="int32",
        ),
        Quantity(
            "loss", "nats", "mean cross-entropy of the validation images, re-estimated statistics"
        ),
        Quantity(
            "first_gradient_norm",
            "unit of dL/dx",
            "|dL/dx|, x the first block's input, L of the probe batch, re-estimated statistics",
        ),
        Quantity("last_gradient_norm", "unit of dL/dx", "the same with x the last block's output"),
    ),
    former_name="shortcut_scaling",
)
NOISE_SCALE = Table(
    "noise_scale",
    "a draw of a small and a large batch of training images",
    (EPOCH, Quantity("draw", "draws", "counted from 0", dtype="int32")),
    (
        Quantity("small_batch", "images", "B_s", dtype="int32"),
        Quantity("large_batch", "images", "B_b", dtype="int32"),
        Quantity(
            "small_squared_norm",
            "loss^2 / unit of w^2",
            "|g_s|^2, over all parameters; mean over the small batches that make up the large one",
        ),
        Quantity("large_squared_norm", "loss^2 / unit of w^2", "|g_b|^2, over all parameters"),
        Quantity(
            "squared_gradient",
            "loss^2 / unit of w^2",
            "|G|^2 = (B_b |g_b|^2 - B_s |g_s|^2) / (B_b - B_s)",
            MCCANDLISH,
        ),
        Quantity(
            "noise", "loss^2 / unit of w^2", "S = (|g_s|^2 - |g_b|^2) / (1/B_s - 1/B_b)", MCCANDLISH
        ),
    ),
)
CONDUCTANCE = Table(
    "conductance",
    "the conductance of a residual addition for an image: what its skip and its branch contribute "
    "to the logit of the predicted class, from a black baseline to the image; validation images "
    "are taken from the classes in turn",
    (EPOCH, LAYER, IMAGE),
    (
        Quantity("skip", "logit", "conductance of skip(x)", DHAMDHERE),
        Quantity("branch", "logit", "conductance of branch(x)", DHAMDHERE),
        Quantity("difference", "logit", "logit of the image minus that of the baseline"),
        Quantity("completeness_error", "1", "|skip + branch - difference| / |difference|"),
    ),
)
ATTRIBUTION_PICTURES = Table(
    "attribution_pictures",
    "an attribution map: how much each pixel of an image contributes to its predicted class; "
    "integrated gradients start from a black image",
    (EPOCH, IMAGE, Quantity("method", "name", "integrated gradients or Grad-CAM", dtype="str")),
    (
        Quantity(
            "layer",
            "name",
            "for Grad-CAM, the last block whose output has at least 4 x 4 pixels; else missing",
            dtype="str",
        ),
        Quantity(
            "rule",
            "name",
            "why this validation image was chosen: first of its class (for the first six classes, "
            "the same images for all networks of a seed); or, among the others, the network's most "
            "confident wrong one or most confident right one",
            dtype="str",
        ),
        *PREDICTION_COLUMNS,
        Quantity("height", "pixels", "H", dtype="int32"),
        Quantity("width", "pixels", "W", dtype="int32"),
        Quantity("values", "logit", "[H * W], row by row, summed over the colors", dtype="floats"),
        Quantity(
            "completeness_error",
            "1",
            "|sum of values - D| / |D|, D the logit of the image minus that of the baseline; "
            "missing for Grad-CAM",
        ),
        Quantity("pixels", "1", "[3 * H * W] the image itself, 0 to 255", dtype="bytes"),
    ),
)
LOSS_SLICE = Table(
    "loss_slice",
    "the loss on the first training batch at a position on a line through the weights, with batch "
    "norms in training mode; recorded at epochs whose validation accuracy changed by more than "
    "sampling noise",
    (
        EPOCH,
        Quantity(
            "direction",
            "name",
            "between epochs: from the weights at the end of the previous epoch (position 0) to "
            "these (position 1); gradient: along -g / |g|; random: a filter-normalized direction",
            LI,
            dtype="str",
        ),
        Quantity(
            "position",
            "see direction",
            "unit: 1 between epochs, that of w along the gradient, the filters' norms in a random "
            "direction. 0 is the present weights, except between epochs",
        ),
    ),
    (
        Quantity("loss", "nats", "mean cross-entropy"),
        Quantity("images", "images", "number of images in the mean", dtype="int32"),
    ),
)
SHARPNESS = Table(
    "sharpness",
    "the loss on the first training batch around the weights, with batch norms in training mode",
    (EPOCH,),
    (
        Quantity("gradient_norm", "nats / unit of w", "|g|, over all parameters"),
        Quantity("curvature", "nats / unit of w^2", "<g, H g> / <g, g>, H the Hessian"),
        Quantity("images", "images", "number of images in the mean", dtype="int32"),
    ),
)
PROBE_COSTS = Table(
    "probe_costs",
    "a probe at the end of an epoch",
    (EPOCH, Quantity("probe", "name", "as given to --probes", dtype="str")),
    (
        Quantity("seconds", "seconds", "wall-clock time it took"),
        Quantity("skipped", "name", "why it measured nothing; missing if it measured", dtype="str"),
    ),
)

PROBE_TABLES = (
    BATCHNORM_STALENESS,
    GRADIENT_COHERENCE,
    SHATTERING,
    PATH_LENGTHS,
    LESIONS,
    SKIP_SCALING,
    NOISE_SCALE,
    CONDUCTANCE,
    ATTRIBUTION_PICTURES,
    LOSS_SLICE,
    SHARPNESS,
    PROBE_COSTS,
)
