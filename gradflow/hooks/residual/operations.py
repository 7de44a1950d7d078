"""What kinds of operations there are, by their names in autograd (`Add` for `AddBackward0`).

Only what a residual addition is told by: which operations a skip may hold, which of them mix
channels by weights, and which are so simple that nothing made of them alone is a branch.
"""

# Matrix products and convolutions: at most one of them lies on a skip.
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
# Take a part of their input. Two ways that take different parts do not come from one tensor.
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
# What may lie on a skip: one linear map, its normalization, resampling, reshaping, scaling.
ALLOWED_ON_SKIP = WEIGHTED | NORMALIZATIONS | SELECTIONS | _VIEWS | _SCALINGS | _RESAMPLINGS
# A formula of an element, such as x + 0.04 x^3 in an approximation of GELU, or of its neighbours,
# such as x cos + rotated(x) sin in rotary embeddings.
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
        }
    )
)
# Which input of an operation is the data, the others being weights, where it is not the first.
_DATA = {"Addmm": 1, "Addmv": 1, "Baddbmm": 1}


def data_position(kind: str) -> int:
    """Which input of an operation with weights is the data."""
    return _DATA.get(kind, 0)


def is_custom(kind: str) -> bool:
    """Whether the operation is the user's own (`torch.autograd.Function`), such as a checkpoint."""
    return kind.endswith("Backward")


def count_weighted_maps(kind: str) -> int:
    """How many maps by weights an operation stands for; an unknown one may hold several."""
    return 2 if is_custom(kind) else int(kind in WEIGHTED)
