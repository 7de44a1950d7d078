"""The roles of modules, the channel axes of their outputs, and the table of observed layers."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor

from gradflow.hooks.reduction.nested import fixed_sizes
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
_WORD = re.compile(r"\w+")
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
    of sequences [N, T, C] and of nested tensors; otherwise axis 1.
    """
    if output.dim() < 2:
        return None
    if output.is_nested:
        return output.dim() - 1
    if isinstance(module, _LAST_AXIS_NORMS) and type(module).__name__.endswith("2d"):
        return 1  # torchvision's LayerNorm2d: over C of [N, C, H, W]
    if isinstance(module, (*_LINEARS, *_LAST_AXIS_NORMS, *_RECURRENT, *_EMBEDDINGS)):
        return output.dim() - 1
    if output.dim() == 3 and not isinstance(module, (*_CONVOLUTIONS, *_BATCH_NORMS)):
        return 2
    return 1


def first_tensor(output: Any) -> Tensor | None:
    """Return the first tensor of `tensors_of`, or None."""
    return next((tensor for _, tensor in tensors_of(output)), None)


def tensors_of(output: Any, *, of_any_type: bool = False) -> Iterator[tuple[str, Tensor]]:
    """Yield the non-empty floating-point tensors in `output`, real or complex, with their places.

    `output` is a tensor, or any nesting of tuples (e.g. a packed sequence), lists, mappings and
    dataclasses. A place is the path of positions, keys and fields, e.g. `[1][0]` or `[states][h]`;
    that of `output` itself is empty. Anything else in it is ignored, and so are sparse tensors and
    those of `torch.func` transforms. Nested tensors, jagged or not, are yielded; with
    `of_any_type`, so are those of whole numbers and truth values.
    """
    if isinstance(output, Tensor):
        if _is_observable(output, of_any_type=of_any_type):
            yield "", output
        return
    for key, entry in _entries(output):
        for place, tensor in tensors_of(entry, of_any_type=of_any_type):
            yield f"[{key}]{place}", tensor


def layer_outputs(output: Any, *, every: bool) -> list[tuple[str, Tensor]]:
    """Return the tensors of a layer's output to observe, and what is added to its name for each.

    The first has the layer's own name; those after it, if `every` is true, that and their place. A
    tensor that is there twice counts once.
    """
    if not every:
        first = first_tensor(output)
        return [] if first is None else [("", first)]
    places: dict[int, tuple[str, Tensor]] = {}
    for place, tensor in tensors_of(output):
        places.setdefault(id(tensor), (place if places else "", tensor))
    return list(places.values())


def why_not_observed(output: Any) -> str:
    """Say what `output` is, if `tensors_of` finds no tensor in it."""
    if isinstance(output, Tensor):
        if not (output.is_floating_point() or output.is_complex()):
            return f"a tensor of {output.dtype}"
        if output.layout not in (torch.strided, torch.jagged):
            return f"a tensor of layout {output.layout}"
        return "a tensor without elements"
    if output is None or isinstance(output, (tuple, list, Mapping)) or is_dataclass(output):
        return f"{type(output).__name__} without a floating-point tensor"
    return f"an object of class {type(output).__name__}, whose attributes are not looked into"


def _is_observable(x: Tensor, *, of_any_type: bool = False) -> bool:
    numbers = of_any_type or x.is_floating_point() or x.is_complex()
    # A tensor of a `torch.func` transform stands for others, and has no memory of its own.
    has_memory = x.layout in (torch.strided, torch.jagged) and not is_functorch_wrapped_tensor(x)
    return numbers and has_memory and x.numel() > 0


def _entries(output: Any) -> Iterable[tuple[Any, Any]]:
    """Return the entries of a tuple, list, mapping or dataclass with their keys."""
    if isinstance(output, Mapping):
        keys = [str(key) for key in output]
        # A key with a dot would look like the path of a module.
        by_position = len(set(keys)) < len(keys) or not all(map(_WORD.fullmatch, keys))
        return (
            enumerate(output.values()) if by_position else zip(keys, output.values(), strict=True)
        )
    if is_dataclass(output) and not isinstance(output, type):
        return ((entry.name, getattr(output, entry.name)) for entry in fields(output))
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return zip(output._fields, output, strict=True)
    return enumerate(output) if isinstance(output, (tuple, list)) else ()


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

    def add(
        self, layer: str, module: nn.Module, role: str, output: Tensor, *, is_first: bool = True
    ) -> None:
        """Add `layer`; `output` [N, ...] is what its first call returned.

        `is_first` is false for a further tensor of an output, which adds neither parameters nor
        depth.
        """
        counts = is_first and "#" not in layer
        self._rows[layer] = {
            "type": type(module).__name__,
            "role": role,
            "shape": "x".join(map(str, fixed_sizes(output))) or "1",
            # A second call of a module uses the same parameters, which are counted only once.
            "parameters": sum(p.numel() for p in module.parameters()) if counts else 0,
            "is_first": is_first,
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
            # The states of older tracers do not say: their rows are all of first tensors.
            depth += row["role"] in ("convolution", "linear") and row.get("is_first", True)
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
