"""Groups of operations, by their names in autograd (`Add` for `AddBackward0`).

They define residual additions: the operations that a skip may contain, those that mix channels by
weights, and those so simple that a branch must contain another operation too.
"""

from gradflow.hooks.residual.sums import ON_VIEW

# Matrix products and convolutions. A skip contains at most one of them.
WEIGHTED = frozenset(
    {
        "Convolution",
        "ConvolutionOverrideable",
        "CudnnConvolution",
        "MkldnnConvolution",
        "Addmm",
        "Addmv",
        "Baddbmm",
        "Bmm",
        "Linear",
        "MkldnnLinear",
        "Mm",
        "Mv",
    }
)
# Products of two matrices without a bias; either may be data.
PRODUCTS = frozenset({"Bmm", "Mm"})
NORMALIZATIONS = frozenset(
    {
        "BatchNormWithUpdate",
        "CudnnBatchNorm",
        "FusedRmsNorm",
        "MiopenBatchNorm",
        "NativeBatchNorm",
        "NativeGroupNorm",
        "NativeLayerNorm",
    }
)
LOOKUPS = frozenset({"Embedding", "EmbeddingBag"})
# They select a part of their input. Two paths with different parts do not start from one tensor.
SELECTIONS = frozenset(
    {
        "AsStrided",
        "Gather",
        "Index",
        "IndexSelect",
        "Select",
        "Slice",
        "Split",
        "SplitWithSizes",
        "Unbind",
        "UnsafeSplit",
        "UnsafeSplitWithSizes",
    }
)
_VIEWS = frozenset(
    {
        "Alias",
        "Clone",
        "ConstantPadNd",
        "Cat",
        "Expand",
        "Flip",
        "Permute",
        "PixelShuffle",
        "PixelUnshuffle",
        "Repeat",
        "Reshape",
        "ReshapeAlias",
        "Roll",
        "Squeeze",
        "T",
        "ToCopy",
        "Transpose",
        "UnsafeView",
        "Unsqueeze",
        "View",
    }
)
_SCALINGS = frozenset({"Div", "Mul", "NativeDropout", "Neg"})
# The elements stay as they are, and in their order.
RESHAPES = frozenset(
    {"Alias", "Clone", "Reshape", "ReshapeAlias", "Squeeze", "UnsafeView", "Unsqueeze", "View"}
)
REARRANGEMENTS = RESHAPES | frozenset({"Expand", "Permute", "T", "ToCopy", "Transpose"})
# Allowed on a gated skip besides its gates: no part is selected, nothing is mixed.
ALLOWED_ON_GATED_SKIP = REARRANGEMENTS | _SCALINGS
_RESAMPLINGS = frozenset(
    {
        "AdaptiveAvgPool2D",
        "AdaptiveAvgPool3D",
        "AvgPool2D",
        "AvgPool3D",
        "MaxPool2DWithIndices",
        "MaxPool3DWithIndices",
        "UpsampleBicubic2D",
        "UpsampleBilinear2D",
        "UpsampleLinear1D",
        "UpsampleNearest1D",
        "UpsampleNearest2D",
        "UpsampleNearest3D",
        "UpsampleNearestExact2D",
        "UpsampleTrilinear3D",
    }
)
# Allowed on a skip: one linear map, its normalization, resampling, reshaping, scaling.
ALLOWED_ON_SKIP = WEIGHTED | NORMALIZATIONS | SELECTIONS | _VIEWS | _SCALINGS | _RESAMPLINGS
# Operations of element-wise formulas, such as x + 0.04 x^3 in an approximation of GELU, or formulas
# of neighbouring elements, such as x cos + rotated(x) sin in rotary embeddings.
ELEMENTARY = (
    SELECTIONS
    | _VIEWS
    | _SCALINGS
    | frozenset(
        {
            "Abs",
            "Add",
            "Clamp",
            "ClampMax",
            "ClampMin",
            "Cos",
            "Elu",
            "Erf",
            "Exp",
            "Gelu",
            "Hardsigmoid",
            "Hardswish",
            "Hardtanh",
            "LeakyRelu",
            "Log",
            "Log1P",
            "LogSigmoid",
            "Maximum",
            "Minimum",
            "Pow",
            "Reciprocal",
            "Relu",
            "Rsqrt",
            "Rsub",
            "Sigmoid",
            "Silu",
            "Sin",
            "Softplus",
            "Sqrt",
            "Sub",
            "Tanh",
            "Where",
            ON_VIEW,
        }
    )
)
# Products of parts of x: in rotary embeddings, couplings and products of complex numbers.
MULTILINEAR = SELECTIONS | _VIEWS | _SCALINGS | frozenset({"Add", "Pow", "Sub"})
GATES = frozenset({"Hardsigmoid", "Sigmoid"})
# Operations whose data is not the first input; the other inputs are weights.
_DATA = {"Addmm": 1, "Addmv": 1, "Baddbmm": 1}


def data_position(kind: str) -> int:
    """Return the position of the data among the inputs of an operation with weights."""
    return _DATA.get(kind, 0)


def is_custom(kind: str) -> bool:
    """Whether the operation is a `torch.autograd.Function`, e.g. the user's own or a checkpoint."""
    return kind.endswith("Backward")


def count_weighted_maps(kind: str) -> int:
    """Return how many weighted maps an operation contains; 2, several, for an unknown one."""
    return 2 if is_custom(kind) else int(kind in WEIGHTED)
