"""How a training computes: its precision, the memory layout of images, and compilation."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradflow.errors import ConfigurationError, TrainingError
from gradflow.training.configuration import Configuration

_AUTOCAST_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Computation:
    """What the options ask for, as far as the device has it.

    Fields:
        device: the training's device.
        precision: float32; tf32, float32 with the inputs of convolutions and matrix products
            rounded to 10 bits; bf16 or fp16, autocast, with the weights in float32.
        channels_last: whether images and weights are laid out with the channels last.
        compiled: whether steps that are not recorded run compiled.
        note: what the device has not, in words; else None.
    """

    device: torch.device
    precision: str
    channels_last: bool
    compiled: bool
    note: str | None = None

    def forward(self, model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """The logits of `model`, as float32, computed in the precision of the training."""
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with self.autocast():
            logits = model(images)
        return logits.float()

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which forward passes run."""
        if self.precision not in _AUTOCAST_TYPES:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=_AUTOCAST_TYPES[self.precision])

    def place(self, model: nn.Module) -> nn.Module:
        """`model` on the device, in the memory layout of the training."""
        model = model.to(self.device)
        return model.to(memory_format=torch.channels_last) if self.channels_last else model

    def in_steps(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        """What calls `model` in the training's steps: itself, or what was compiled of it.

        Each size of a batch is compiled by itself: there are two or three.
        """
        return torch.compile(model, dynamic=False) if self.compiled else model

    def scaler(self) -> torch.amp.GradScaler | None:
        """What scales the loss, so that no small gradient is rounded to 0; only for fp16."""
        return torch.amp.GradScaler(self.device.type) if self.precision == "fp16" else None

    def optimizer(self, model: nn.Module, options: Configuration) -> torch.optim.Adam:
        """Adam. With a scaler it is the fused one, which skips a step without being waited for."""
        return torch.optim.Adam(
            model.parameters(),
            lr=options.lr,
            weight_decay=options.weight_decay,
            fused=True if self.precision == "fp16" else None,
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """The context of a whole training, outside of which torch's settings are as before.

        Raises `TrainingError` if the network cannot be compiled on this machine.
        """
        with _tf32(allowed=self.precision == "tf32"), warnings.catch_warnings():
            # torch.compile looks at `grad` of tensors on the way from one piece to the next.
            warnings.filterwarnings("ignore", "The .grad attribute of a Tensor", UserWarning)
            try:
                yield
            except RuntimeError as error:
                if not (self.compiled and _is_of_the_compiler(error)):
                    raise
                reason = str(error).strip().splitlines()[0]
                raise TrainingError(
                    f"the network cannot be compiled on this machine ({reason}): "
                    "leave out --compile, or install a C compiler"
                ) from error

    def description(self) -> dict[str, Any]:
        """What was used, as entries of `run.json`."""
        return {
            "precision": self.precision,
            "memory_format": "channels_last" if self.channels_last else "contiguous",
            "compiled": self.compiled,
            "loss_scaling": self.precision == "fp16",
        } | ({"note": self.note} if self.note else {})


def computation_of(options: Configuration, device: torch.device) -> Computation:
    """How the options are carried out on `device`.

    Raises `ConfigurationError` for a precision in which the device cannot train.
    """
    precision, note = options.precision, None
    if precision == "tf32" and not _has_tf32(device):
        precision = "float32"
        note = f"tf32 means nothing on {_name(device)}: float32 is used"
    elif precision == "fp16" and device.type == "cpu":
        note = "fp16 is emulated by most CPUs and can take 20 times as long as float32"
    elif precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ConfigurationError(
            f"{_name(device)} has no bf16: give --precision float32 or --precision fp16"
        )
    elif precision in _AUTOCAST_TYPES and device.type not in ("cpu", "cuda"):
        raise ConfigurationError(
            f"--precision {precision} needs the device cpu or cuda, not {device.type}: "
            "give --device cpu, or another precision"
        )
    return Computation(device, precision, options.channels_last, options.compile, note)


def exact() -> AbstractContextManager[None]:
    """The context in which float32 on a GPU is float32: torch would round in convolutions."""
    return _tf32(allowed=False)


@contextmanager
def _tf32(*, allowed: bool) -> Iterator[None]:
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = allowed
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


def _has_tf32(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"the {device.type}"


def _is_of_the_compiler(error: RuntimeError) -> bool:
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
