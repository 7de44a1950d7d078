"""What an experiment is made of: the options of `train_and_trace`, kept whole in each run."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from gradflow.errors import ConfigurationError
from gradflow.training.option_types import convert_options

# Options that take several values: tuples here, lists in JSON.
_TUPLE_OPTIONS = ("models", "seeds", "probes")
LARGEST_IMAGE_SIZE = 1 << 14
_LARGEST_COUNT = 2**31 - 1


@dataclass(frozen=True)
class Configuration:
    """Train networks on the same images and record their gradients as they train.

    Without options: plain34 and resnet34 on scikit-learn's embedded digits, in the setting of the
    experiment that this project starts from.
    """

    data: str = "digits"
    """Images: digits, cifar10, a folder with one folder a class, or a folder (or its CSV file) of
    images with a CSV of filename and label."""

    models: tuple[str, ...] = ("plain34", "resnet34")
    """Networks to train: plain or resnet with 18 or 34 layers, or 20, 32, 44, 56, 110 (CIFAR
    style)."""

    epochs: int = 10
    """Passes over the training images."""

    batch_size: int = 24
    """Images in a training step."""

    lr: float = 0.0005
    """Learning rate of Adam."""

    weight_decay: float = 0.0005
    """L2 penalty inside Adam."""

    seeds: tuple[int, ...] = (2025,)
    """Each network is trained once a seed. Networks of one seed share the split, the order of the
    images, the augmentation, and the initial weights of the layers that they share."""

    image_size: int | None = None
    """Side of the square images, in pixels. None: 32 for digits and cifar10; else the images' own
    side where all are square and alike, 224 where they are not."""

    validation_fraction: float = 0.2
    """Share of the images kept for validation, between 0 and 1."""

    augment: bool = True
    """Flip (digits are not), rotate within 15 degrees, and jitter the colors while training."""

    norm: Literal["batch", "none", "group"] = "batch"
    """Normalization after every convolution."""

    shortcut: Literal["A", "B"] | None = None
    """Shortcut where shapes change: A zero-pads, B projects. None: B for 18 and 34 layers, A for
    the others."""

    skip_scale: float = 1.0
    """What every skip of a residual network is multiplied by, from start to end: 1 is the
    network as published, 0 computes what the plain network does."""

    init: Literal["kaiming", "default"] = "kaiming"
    """Initial weights: Kaiming-normal, or PyTorch's default."""

    trace_every: int = 2
    """Optimizer steps from one recorded step to the next; 1 records all of them."""

    histograms: bool = True
    """At the first recorded step of each epoch, also count how many elements of each layer's
    output, and of its gradient, have each order of magnitude."""

    recalibrate: bool = True
    """At every epoch's end, also validate with batch-norm statistics re-estimated on the training
    images. The weights stay as they are."""

    probes: tuple[str, ...] = ("all",)
    """Probes to run at the ends of epochs, by name; or all, or none. Each works on a copy of the
    network and says when it runs; docs/probes.md describes them."""

    on_nonfinite: Literal["stop", "skip", "continue"] = "stop"
    """What to do where a loss is nan or infinite. stop: end the training and name the first layer
    and step, all recorded rows on disk. skip: leave out updates whose loss or gradient is not
    finite (this reads every gradient once more). continue: go on, and only record it."""

    checkpoints: Literal["best", "every"] = "best"
    """Weights kept: those of the best epoch (best.pt), or also those of every epoch, in the folder
    checkpoints, so that probes can run on them later."""

    state_every: int = 1
    """Epochs from one saved state to the next: --resume goes on from the last one. A state is
    about four times as large as the weights."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device to train on. auto: CUDA, else MPS, else the CPU."""

    out: Path | None = None
    """The experiment's folder. None: a new one, named by data and time, under runs."""

    def __post_init__(self) -> None:
        checks = {
            "--epochs": (self.epochs >= 1, "at least 1", self.epochs),
            "--batch-size": (self.batch_size >= 1, "at least 1", self.batch_size),
            "--lr": (0 < self.lr < float("inf"), "a positive number", self.lr),
            "--weight-decay": (
                0 <= self.weight_decay < float("inf"),
                "0 or a positive number",
                self.weight_decay,
            ),
            "--models": (bool(self.models), "at least one network", "none"),
            "--seeds": (bool(self.seeds), "at least one seed", "none"),
            "--image-size": (
                self.image_size is None or 8 <= self.image_size <= LARGEST_IMAGE_SIZE,
                f"from 8 to {LARGEST_IMAGE_SIZE:,} pixels",
                self.image_size,
            ),
            "--validation-fraction": (
                0 < self.validation_fraction < 1,
                "between 0 and 1",
                self.validation_fraction,
            ),
            "--skip-scale": (
                0 <= self.skip_scale < float("inf"),
                "0 or a positive number",
                self.skip_scale,
            ),
            "--state-every": (self.state_every >= 1, "at least 1", self.state_every),
            "--trace-every": (self.trace_every >= 1, "at least 1", self.trace_every),
        }
        for option, (holds, wanted, given) in checks.items():
            if not holds:
                raise ConfigurationError(f"{option} must be {wanted}, not {given}")
        for option, values in (("--models", self.models), ("--seeds", self.seeds)):
            if len(set(values)) < len(values):
                raise ConfigurationError(f"{option} names the same one twice: {list(values)}")
        for option in ("epochs", "batch_size", "state_every", "trace_every"):
            if getattr(self, option) > _LARGEST_COUNT:
                raise ConfigurationError(
                    f"--{option.replace('_', '-')} must be at most {_LARGEST_COUNT:,}, "
                    f"not {getattr(self, option)}"
                )
        for option, path in (("--data", self.data), ("--out", str(self.out or ""))):
            if not _is_text(path):
                raise ConfigurationError(
                    f"{option} {path} is not text in UTF-8, as the run's files must be; rename it"
                )

    @classmethod
    def from_json(cls, options: dict[str, Any]) -> "Configuration":
        """What `as_json` made; options that this version does not know are left out.

        Raises `ConfigurationError` for a value that cannot be, or is of another type.
        """
        known = {field.name for field in fields(cls)}
        given = {name: value for name, value in options.items() if name in known}
        return cls(**convert_options(given, cls))

    def as_json(self) -> dict[str, Any]:
        """All options, as JSON keeps them."""
        options = asdict(self)
        options["out"] = None if self.out is None else str(self.out)
        listed = {name: list(getattr(self, name)) for name in _TUPLE_OPTIONS}
        return options | listed


def _is_text(path: str) -> bool:
    """Whether a file can hold `path`: a byte that is no text came in as a lone surrogate."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in path
