"""The options of `train_and_trace`, their defaults and limits. Each run records all of them."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from gradflow.errors import ConfigurationError
from gradflow.training.option_types import convert_options

# Options that take several values: tuples here, lists in JSON.
_TUPLE_OPTIONS = ("models", "seeds", "probes", "columns", "sinks", "sink_quantities")
# What a column of a table can hold.
_COLUMN_KINDS = ("image", "label", "split")
LARGEST_IMAGE_SIZE = 1 << 14
_LARGEST_COUNT = 2**31 - 1


@dataclass(frozen=True)
class Configuration:
    """Train networks on the same images and record their gradients as they train.

    Without options: plain34 and resnet34 on the digits of scikit-learn, with the settings of the
    experiment that this project started from.
    """

    data: str = "digits"
    """Images: digits; cifar10; torchvision:NAME or torchvision:NAME@FOLDER, a data set of
    torchvision that is on the disk; a folder with one subfolder for each class, or with such
    folders in train and val (valid, validation, test); a folder of images with a CSV or JSONL file
    of file names and labels, or that file; Parquet files. See docs/howto/data.md."""

    layout: Literal["auto", "classes", "split"] = "auto"
    """What folders called train, val or test are: classes, like all others; the sides of a split;
    or (auto) sides of a split unless other folders of images stand beside them."""

    columns: tuple[str, ...] = ()
    """Columns of the CSV, JSONL or Parquet file, e.g. image=id label=breed; split=NAME names a
    column that says train, val or test. Without it: filename or file_name, and label."""

    on_bad_data: Literal["stop", "skip"] = "stop"
    """What to do about rows without a file or label, images that cannot be read, and class folders
    without images. Both count them and name the first. skip: train without them."""

    models: tuple[str, ...] = ("plain34", "resnet34")
    """Networks to train: plain or resnet, followed by the number of layers: 18 or 34, or 20, 32,
    44, 56 or 110 (CIFAR style)."""

    epochs: int = 10
    """Passes over the training images."""

    batch_size: int = 24
    """Images in each training step."""

    lr: float = 0.0005
    """Learning rate of Adam."""

    weight_decay: float = 0.0005
    """L2 penalty inside Adam."""

    seeds: tuple[int, ...] = (2025,)
    """Random seeds. Each network is trained once with each seed. Networks with the same seed have
    the same split, order of images, augmentation, and initial weights in the layers they share."""

    image_size: int | None = None
    """Side of the square images, in pixels. None: 32 for digits and cifar10; for other images
    their own side if all are square and of one size, else 224; for a data set of torchvision its
    published side, or 224."""

    validation_fraction: float = 0.2
    """Share of the images used for validation, between 0 and 1."""

    augment: bool = True
    """Augment the training images: flip them (not digits), rotate them by up to 15 degrees, and
    jitter their colors."""

    norm: Literal["batch", "none", "group"] = "batch"
    """Normalization after each convolution."""

    shortcut: Literal["A", "B"] | None = None
    """Shortcut if a block changes the shape: A pads with zeros, B projects. None: B for 18 and 34
    layers, A for the others."""

    skip_scale: float = 1.0
    """Factor on every skip of a residual network, during the whole training. 1: the network as
    published. 0: the same function as the plain network."""

    init: Literal["kaiming", "default"] = "kaiming"
    """Initial weights: Kaiming-normal, or PyTorch's default."""

    trace_every: int | None = None
    """Record every n-th optimizer step. 1 records all steps. None: every second one on the CPU; on
    a GPU as many as 2 % of the time allow, at least 8 in each epoch."""

    histograms: bool = True
    """At the first recorded step of each epoch, also record how many elements of each layer's
    output and of its gradient have each order of magnitude."""

    recalibrate: bool = True
    """At the end of each epoch, also validate with batch-norm statistics re-estimated on the
    training images. The weights do not change."""

    probes: tuple[str, ...] = ("all",)
    """Probes to run at the ends of epochs: their names, or all, or none. Each probe works on a
    copy of the network and has its own epochs; see docs/reference/probes.md."""

    on_nonfinite: Literal["stop", "skip", "continue"] = "stop"
    """What to do if a loss is nan or infinite. stop: end the training, name the first layer and
    step, and keep all recorded rows. skip: leave out each update whose loss or gradient is not
    finite (this reads every gradient once more). continue: go on, and only record it."""

    checkpoints: Literal["best", "every"] = "best"
    """Weights to keep: best keeps those of the best epoch (best.pt); every also keeps those of
    each epoch, in the folder checkpoints, so that probes can run on them later."""

    state_every: int = 1
    """Save the training state every n epochs. --resume goes on from the last saved state. A state
    is about four times as large as the weights."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device to train on. auto: CUDA, else MPS, else the CPU."""

    precision: Literal["float32", "tf32", "bf16", "fp16"] = "float32"
    """Precision of training and validation. tf32: on NVIDIA GPUs, rounds the inputs of
    convolutions to 10 bits. bf16, fp16: autocast, weights in float32; fp16 scales the loss, and
    records the gradients of the unscaled one. Probes always measure in float32."""

    compile: bool = False
    """Run the steps that are not recorded compiled by torch.compile."""

    channels_last: bool = False
    """Lay out images and weights with the channels last, which is faster on GPUs with bf16 and
    fp16."""

    processes: int = 1
    """Train so many networks and seeds at the same time, each in a process of its own on the same
    device, whose memory must hold them all. The results are those of one after another."""

    sinks: tuple[str, ...] = ()
    """Where else the numbers are written as the training goes on: tensorboard, wandb, mlflow,
    trackio, aim, csv; none for none. NAME=PLACE names the place: the folder of tensorboard or csv,
    the project of wandb or trackio, the tracking address of mlflow, the repository of aim. Each
    network and seed is a run of its own. See docs/howto/sinks.md."""

    sink_quantities: tuple[str, ...] = ()
    """Patterns of the quantities that the sinks get, such as 'gradient_norm/layer1.*'; without it
    a small choice."""

    sink_every: Literal["step", "epoch"] = "step"
    """Whether the sinks get all recorded steps, or of each epoch the last."""

    out: Path | None = None
    """The experiment's folder. None: a new folder under runs, named by data and time."""

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
            "--trace-every": (
                self.trace_every is None or self.trace_every >= 1,
                "at least 1",
                self.trace_every,
            ),
            "--processes": (self.processes >= 1, "at least 1", self.processes),
        }
        for option, (holds, wanted, given) in checks.items():
            if not holds:
                raise ConfigurationError(f"{option} must be {wanted}, not {given}")
        for option, values in (("--models", self.models), ("--seeds", self.seeds)):
            if len(set(values)) < len(values):
                raise ConfigurationError(f"{option} names a value twice: {list(values)}")
        for option in ("epochs", "batch_size", "state_every", "trace_every", "processes"):
            if (getattr(self, option) or 0) > _LARGEST_COUNT:
                raise ConfigurationError(
                    f"--{option.replace('_', '-')} must be at most {_LARGEST_COUNT:,}, "
                    f"not {getattr(self, option)}"
                )
        self._check_columns()
        for option, path in (("--data", self.data), ("--out", str(self.out or ""))):
            if not _is_text(path):
                raise ConfigurationError(
                    f"{option} {path} is not valid UTF-8 text, so no file of the run can hold it; "
                    "rename it"
                )

    def _check_columns(self) -> None:
        kinds = [column.partition("=")[0] for column in self.columns]
        for column in self.columns:
            kind, _, name = column.partition("=")
            if kind not in _COLUMN_KINDS or not name or not _is_text(name):
                raise ConfigurationError(
                    f"--columns must be image=NAME, label=NAME or split=NAME, not {column}"
                )
        if len(set(kinds)) < len(kinds):
            raise ConfigurationError(f"--columns names a column twice: {list(self.columns)}")

    @property
    def column_names(self) -> dict[str, str]:
        """The names of the columns image, label and split, as far as they are given."""
        given = (column.partition("=") for column in self.columns)
        return {kind: name for kind, _, name in given}

    @classmethod
    def from_json(cls, options: dict[str, Any]) -> "Configuration":
        """The configuration that `as_json` wrote; options unknown to this version are left out.

        Raises `ConfigurationError` for a value that is out of range or of another type.
        """
        known = {field.name for field in fields(cls)}
        given = {name: value for name, value in options.items() if name in known}
        return cls(**convert_options(given, cls))

    def as_json(self) -> dict[str, Any]:
        """All options as JSON values."""
        options = asdict(self)
        options["out"] = None if self.out is None else str(self.out)
        listed = {name: list(getattr(self, name)) for name in _TUPLE_OPTIONS}
        return options | listed


def _is_text(path: str) -> bool:
    """Whether a text file can hold `path`. Python decodes an invalid byte to a lone surrogate."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in path
