"""The roles of modules, the channel axes of their outputs, and the table of observed layers."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor

from gradflow.hooks.wrappers import named_modules

_CONTAINERS = (
    nn.Sequential,
    nn.ModuleList,
    nn.ModuleDict,
    nn.ParameterList,
    nn.ParameterDict,
)
_CONVOLUTIONS = (nn.modules.conv._ConvNd,)
_BATCH_NORMS = (nn.modules.batchnorm._NormBase,)
_LAST_AXIS_NORMS = (nn.LayerNorm, nn.RMSNorm)
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_NORMALIZATIONS = (*_BATCH_NORMS, *_LAST_AXIS_NORMS, nn.GroupNorm, nn.LocalResponseNorm)
_ACTIVATIONS = tuple(
    getattr(nn, name) for name in nn.modules.activation.__all__ if name != "MultiheadAttention"
)
_LINEARS = (nn.Linear, nn.Bilinear)
_ROLES = {
    "convolution": _CONVOLUTIONS,
    "normalization": _NORMALIZATIONS,
    "activation": _ACTIVATIONS,
    "linear": _LINEARS,
    "recurrent": _RECURRENT,
    "attention": (nn.MultiheadAttention,),
    "embedding": _EMBEDDINGS,
}
# Layers of other libraries derive directly from nn.Module, e.g. a transformer's RMSNorm, or GPT-2's
# Conv1D, which is a linear layer. Their role is read from the class name.
_CLASS_NAME_PATTERNS = (
    ("normalization", re.compile(r"norm", re.IGNORECASE)),
    ("activation", re.compile(r"Activation$|[GS]ELU|SiLU|ReLU|Swish|Tanh|Sigmoid", re.IGNORECASE)),
    ("linear", re.compile(r"^Conv1D$|Linear")),
)
# Modules below this name compute the weight of a parametrized layer. They see no activations.
_PARAMETRIZATIONS = re.compile(r"(^|\.)parametrizations\.")


def role_of(module: nn.Module) -> str | None:
    """Return the role of `module` in the network, or None if it is not observed by default.

    A layer of torch has the role of its class: convolution, normalization, activation, linear,
    recurrent, attention or embedding. A module with submodules, such as a residual block, is a
    block, except lists and sequences. The role of another library's layer without submodules is
    read from its class name. Any other module with parameters is other.
    """
    for role, classes in _ROLES.items():
        if isinstance(module, classes):
            return role
    if isinstance(module, _CONTAINERS):
        return None
    if next(module.children(), None) is not None:
        return "block"
    if type(module).__module__.startswith("torch.nn."):
        return "other" if next(module.parameters(), None) is not None else None
    for role, pattern in _CLASS_NAME_PATTERNS:
        if pattern.search(type(module).__name__):
            return role
    return "other" if next(module.parameters(), None) is not None else None


def observed_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Yield name, module and role of every module of `model` that is observed by default.

    The model itself is observed only if it is a single layer; it is then named after its class.
    """
    for name, module in named_modules(model):
        role = role_of(module)
        if role is None or _PARAMETRIZATIONS.search(name):
            continue
        if name:
            yield name, module, role
        elif role != "block":
            yield type(module).__name__, module, role


def channel_axis(module: nn.Module, output: Tensor) -> int | None:
    """Return the channel axis of `output`, or None if it has fewer than two axes.

    It is the last axis after linear, recurrent, attention and embedding layers, after layer norms,
    and of sequences [N, T, C]; otherwise axis 1.
    """
    if output.dim() < 2:
        return None
    if isinstance(module, _LAST_AXIS_NORMS) and type(module).__name__.endswith("2d"):
        return 1  # torchvision's LayerNorm2d: over C of [N, C, H, W]
    if isinstance(module, (*_LINEARS, *_LAST_AXIS_NORMS, *_RECURRENT, *_EMBEDDINGS)):
        return output.dim() - 1
    if output.dim() == 3 and not isinstance(module, (*_CONVOLUTIONS, *_BATCH_NORMS)):
        return 2
    return 1


def first_tensor(output: Any) -> Tensor | None:
    """Return the first non-empty floating-point tensor in `output`, real or complex, or None.

    `output` is a tensor, or any nesting of tuples (e.g. a packed sequence), lists, mappings and
    dataclasses. Anything else in it is ignored, and so are sparse tensors and those of `torch.func`
    transforms.
    """
    if isinstance(output, Tensor):
        numbers = output.is_floating_point() or output.is_complex()
        plain = numbers and output.layout is torch.strided
        # A tensor of a `torch.func` transform stands for others, and has no memory of its own.
        is_own = not is_functorch_wrapped_tensor(output)
        return output if plain and is_own and not output.is_nested and output.numel() else None
    if isinstance(output, Mapping):
        output = tuple(output.values())
    elif is_dataclass(output) and not isinstance(output, type):
        output = tuple(getattr(output, entry.name) for entry in fields(output))
    if isinstance(output, (tuple, list)):
        return next((x for x in map(first_tensor, output) if x is not None), None)
    return None


@dataclass
class LayerTable:
    """The layers observed so far, in order of execution.

    `changed`: whether a layer was added, or its role corrected, since the table was last written.
    """

    changed: bool = False
    _rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, layer: str) -> bool:
        return layer in self._rows

    def add(self, layer: str, module: nn.Module, role: str, output: Tensor) -> None:
        """Add `layer`; `output` [N, ...] is what its first call returned."""
        self._rows[layer] = {
            "type": type(module).__name__,
            "role": role,
            "shape": "x".join(map(str, output.shape[1:])) or "1",
            # A second call of a module uses the same parameters, which are counted only once.
            "parameters": 0 if "#" in layer else sum(p.numel() for p in module.parameters()),
        }
        self.changed = True

    def changes_mode(self, layer: str, mode: str) -> bool:
        """Note that `layer` ran in `mode`; return whether that is new."""
        before = self._rows[layer].get("mode")
        self._rows[layer]["mode"] = mode
        return bool(before != mode)

    def mark_projection(self, layer: str) -> None:
        """Note that `layer` lies on a skip, not on the main path."""
        if self._rows[layer]["role"] != "projection":
            self._rows[layer]["role"] = "projection"
            self.changed = True

    def state_dict(self) -> dict[str, Any]:
        """Return the rows, for `load_state_dict`."""
        return {name: dict(row) for name, row in self._rows.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the rows and mark them as changed: their file may have been lost since."""
        self._rows = {name: dict(row) for name, row in state.items()}
        self.changed = True

    def columns(self) -> dict[str, list[Any]]:
        """Return the columns of the table `layers`, including depth and stage."""
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
