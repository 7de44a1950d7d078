"""The loss that a training loop gives, as a single number."""

from typing import Any

from torch import Tensor
from torch._C._functorch import get_unwrapped, is_functorch_wrapped_tensor

from gradflow.errors import TracingError


def single_number(loss: Any) -> Tensor | float:
    """Return the loss as a real 0-d tensor of its own memory on its device, or as a float.

    Raises `TracingError` if it is not a single real number.
    """
    if not isinstance(loss, Tensor):
        try:
            return float(loss.item() if hasattr(loss, "item") else loss)
        except (TypeError, ValueError) as error:
            raise TracingError(
                f"the loss is {loss!r:.80}: give the number that the backward pass begins with"
            ) from error
    given: Tensor = loss
    while is_functorch_wrapped_tensor(given):
        given = get_unwrapped(given)  # else its value is gone once the transform has ended
    if given.numel() != 1 or given.is_complex():
        raise TracingError(
            f"the loss has the shape {list(given.shape)} and the type {given.dtype}: give the real "
            "number that the backward pass begins with, such as loss.mean()"
        )
    return given.detach().reshape(()).clone()
