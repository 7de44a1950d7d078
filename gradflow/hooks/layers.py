"""Which modules of a model are observed, what they are called, and the table of layers."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_CONVOLUTIONS = (nn.modules.conv._ConvNd,)
_BATCH_NORMS = (nn.modules.batchnorm._NormBase,)
_LAST_AXIS_NORMS = (nn.LayerNorm, nn.RMSNorm)
_NORMALIZATIONS = (*_BATCH_NORMS, *_LAST_AXIS_NORMS, nn.GroupNorm, nn.LocalResponseNorm)
_ACTIVATIONS = tuple(
    getattr(nn, name) for name in nn.modules.activation.__all__ if name != "MultiheadAttention"
)
_LINEARS = (nn.Linear, nn.Bilinear)


def role_of(module: nn.Module) -> str | None:
    """The role of `module` in the network; None for a module that is not observed.

    convolution, normalization, activation or linear by its class; block for any other module that
    has modules of its own, lists and sequences aside: a residual block, say.
    """
    roles = {
        "convolution": _CONVOLUTIONS,
        "normalization": _NORMALIZATIONS,
        "activation": _ACTIVATIONS,
        "linear": _LINEARS,
    }
    for role, classes in roles.items():
        if isinstance(module, classes):
            return role
    has_children = next(module.children(), None) is not None
    return "block" if has_children and not isinstance(module, _CONTAINERS) else None


def observed_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Name, module and role of every module of `model` that is observed, the model itself aside."""
    for name, module in model.named_modules():
        role = role_of(module)
        if name and role is not None:
            yield name, module, role


def channel_axis(module: nn.Module, output: Tensor) -> int | None:
    """The axis of `output` that counts channels; None where it has fewer than two axes.

    The last one after linear layers and layer norms, and for sequences [N, T, C]; else axis 1.
    """
    if output.dim() < 2:
        return None
    if isinstance(module, (*_LINEARS, *_LAST_AXIS_NORMS)):
        return output.dim() - 1
    if output.dim() == 3 and not isinstance(module, (*_CONVOLUTIONS, *_BATCH_NORMS)):
        return 2
    return 1


def first_tensor(output: Any) -> Tensor | None:
    """The first real floating tensor with elements in `output`: a tensor, tuple, list or dict."""
    if isinstance(output, Tensor):
        return output if output.is_floating_point() and output.numel() else None
    if isinstance(output, dict):
        output = tuple(output.values())
    if isinstance(output, (tuple, list)):
        return next((x for x in map(first_tensor, output) if x is not None), None)
    return None


@dataclass
class LayerTable:
    """The layers met so far, in order of execution.

    `changed` says that a layer was added, or its role corrected, since the table was last stored.
    """

    changed: bool = False
    _rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __contains__(self, layer: str) -> bool:
        return layer in self._rows

    def add(self, layer: str, module: nn.Module, role: str, output: Tensor) -> None:
        """Add `layer`, whose output at its first call was `output` [N, ...]."""
        self._rows[layer] = {
            "type": type(module).__name__,
            "role": role,
            "shape": "x".join(map(str, output.shape[1:])) or "1",
            # A second call of a module has the same parameters: they are counted once.
            "parameters": 0 if "#" in layer else sum(p.numel() for p in module.parameters()),
        }
        self.changed = True

    def mark_projection(self, layer: str) -> None:
        """Note that `layer` lies on a shortcut, not on the main path."""
        if self._rows[layer]["role"] != "projection":
            self._rows[layer]["role"] = "projection"
            self.changed = True

    def columns(self) -> dict[str, list[Any]]:
        """The columns of the table `layers`, depth and stage included."""
        rows = list(self._rows.values())
        depth, depths = 0, []
        stages: dict[str, int] = {}
        for row in rows:
            depth += row["role"] in ("convolution", "linear")
            depths.append(depth)
            stages.setdefault(row["shape"], len(stages))
        return {
            "layer": list(self._rows),
            "type": [row["type"] for row in rows],
            "depth": depths,
            "stage": [stages[row["shape"]] for row in rows],
            "role": [row["role"] for row in rows],
            "shape": [row["shape"] for row in rows],
            "parameters": [row["parameters"] for row in rows],
        }
