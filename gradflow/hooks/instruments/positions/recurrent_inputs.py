"""What flows back through a recurrent layer in time: the gradient that reaches its inputs.

Time passes within `nn.RNN`, `nn.LSTM` and `nn.GRU`, where no hook can look. The gradient with
respect to the input sequence shows it. Where the input is computed from weights, as by an
embedding, autograd has it anyway. Raw data need no gradient. There the layer is given a leaf with
the same memory that needs one. This adds one product of matrices to the backward pass, and changes
no bit of the other gradients: the layer's own weights need theirs already.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.nn.utils.rnn import PackedSequence

from gradflow.hooks.observation.checkpointing import in_backward
from gradflow.hooks.observation.hook import LeftOutOfCopies

_FORWARDS = (nn.RNN.forward, nn.LSTM.forward, nn.GRU.forward)


def is_fused(module: nn.Module) -> bool:
    """Whether `module` runs through time in one call of torch."""
    return isinstance(module, nn.RNNBase) and type(module).forward in _FORWARDS


class InputHook(LeftOutOfCopies):
    """A pre-hook: hands the input of a recurrent layer to `watch`, as a tensor with a gradient.

    `watch` takes the module, the tensor, its time axis, and the sizes of a packed sequence.
    """

    def __init__(self, watch: Callable[[nn.Module, Tensor, int, Tensor | None], None]) -> None:
        super().__init__(self._hook)
        self._watch = watch

    def __call__(self, *args: Any) -> Any:
        """Return the arguments with which the layer is to be called; None for those given."""
        return self._function(*args)

    def _hook(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = args[0] if args else kwargs.get("input")
        x: Any = given.data if isinstance(given, PackedSequence) else given
        if not _can_be_watched(module, x):
            return None
        replaced = None
        if not x.requires_grad:
            x = x.detach().requires_grad_()
            new = given._replace(data=x) if isinstance(given, PackedSequence) else x
            replaced = ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "input": new})
        if isinstance(given, PackedSequence):
            self._watch(module, x, 0, given.batch_sizes)
        else:
            is_batched = x.dim() > 2
            self._watch(module, x, 1 if module.batch_first and is_batched else 0, None)
        return replaced


def _can_be_watched(module: nn.Module, x: Any) -> bool:
    """Whether a gradient can be asked for in this call without changing anything."""
    if torch.compiler.is_compiling() or torch._C._is_tracing():
        return False
    if type(x) is not Tensor or not x.is_floating_point() or is_functorch_wrapped_tensor(x):
        return False
    if not torch.is_grad_enabled() or in_backward() or x.is_inference():
        return False
    if x.requires_grad:
        return True
    # A checkpointed segment runs again, and must then save as many tensors as now.
    return not _saves_by_hooks() and any(p.requires_grad for p in module.parameters())


def _saves_by_hooks() -> bool:
    top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return top is None or top(True) is not None
