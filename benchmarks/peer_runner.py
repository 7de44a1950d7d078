"""Times one tracing tool against an untraced twin, and prints one JSON line. Run by peers.py.

    python benchmarks/peer_runner.py item-hooks --size 32 --pairs 3

As far as a tool allows, it records at every step the outputs of all convolutions, norms, ReLUs,
embeddings and linear layers, and the gradients of these outputs. With `--network gpt` the model is
that of language_model.py with four blocks of width 96, on texts of `--size` letters.
"""

import copy
import json
import operator
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
import tyro
from language_model import LanguageModel, Size
from pairing import Batches, Letters, Source, Trainer, paired_ratios
from torch import Tensor, nn

LAYERS = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Linear, nn.RMSNorm, nn.Embedding)
GPT = "gpt"
GPT_SIZE, GPT_LETTERS = Size(blocks=4, width=96, heads=4, hidden=256), 256


@dataclass(frozen=True)
class Setting:
    """What to train, the same for every tool."""

    network: str = "resnet34"
    """Network of torchvision.models, or gpt."""
    size: int = 32
    """Side of the images, in pixels; letters in a text."""
    batch: int = 24
    """Images or texts in a step."""
    pairs: int = 10
    """Timed pairs a tool."""
    device: str = "cpu"
    """cpu or cuda."""


@dataclass(frozen=True)
class Run(Setting):
    """One tool."""

    tool: tyro.conf.Positional[str] = "gradflow"
    """A key of ATTACH."""


@contextmanager
def gradflow(trainer: Trainer, folder: Path) -> Iterator[None]:
    """Every statistic of every layer, parameter and addition, without histograms."""
    from gradflow import Tracer  # noqa: PLC0415

    with Tracer(trainer.model, folder / "run", optimizer=trainer.optimizer, observe=LAYERS):
        yield


@contextmanager
def item_hooks(trainer: Trainer, folder: Path) -> Iterator[None]:
    """The L2 norm of every output and of its gradient, each read immediately with `.item()`."""
    norms: list[tuple[str, float]] = []

    def record(name: str, x: Tensor) -> None:
        norms.append((name, torch.linalg.vector_norm(x.detach()).item()))

    with _output_hooks(trainer.model, record):
        yield


@contextmanager
def tensorboard(trainer: Trainer, folder: Path) -> Iterator[None]:
    """A histogram of every output and of its gradient."""
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

    step = 0

    def advance(_: Tensor) -> None:
        nonlocal step
        step += 1

    trainer.after = advance
    with (
        SummaryWriter(str(folder)) as writer,
        _output_hooks(trainer.model, lambda name, x: writer.add_histogram(name, x.detach(), step)),
    ):
        yield


@contextmanager
def torchinstruments(trainer: Trainer, folder: Path) -> Iterator[None]:
    """Its moments without quartiles. Its histogram cannot be switched off, so one layer has it."""
    import torchinstruments as ti  # noqa: PLC0415

    names = [name for name, module in trainer.model.named_modules() if isinstance(module, LAYERS)]
    ti.inject_observer(
        trainer.model,
        output_dir=folder,
        sampler=ti.AlwaysSampler(),
        selector=lambda name, module: isinstance(module, LAYERS),
        reducers=(ti.combine(ti.mean(), ti.std(), ti.rms(), ti.max_abs(), ti.finite_fraction()),),
        histogram_selector=lambda name, module: name == names[-1],
        error_policy=ti.ErrorPolicy.RAISE,
    )
    try:
        yield
    finally:
        ti.remove_observer(trainer.model)


@contextmanager
def torchmortem(trainer: Trainer, folder: Path) -> Iterator[None]:
    """Its own choice of layers and statistics, the cheap ones at every step."""
    from torchmortem import Autopsy  # noqa: PLC0415

    with Autopsy(trainer.model, optimizer=trainer.optimizer, sampling="balanced") as autopsy:
        trainer.after = lambda loss: autopsy.step(loss=loss.item())
        yield


@contextmanager
def neural_observatory(trainer: Trainer, folder: Path) -> Iterator[None]:
    """Its summary statistics of every output and of its gradient, raw tensors not kept."""
    from neural_observatory import Observatory, ObservatoryConfig  # noqa: PLC0415

    config = ObservatoryConfig(
        stats_only_mode=True,
        include_layer_types=[kind.__name__ for kind in LAYERS],
        exclude_layer_types=[],
    )
    observatory = Observatory(trainer.model, config=config)
    observatory.watch()
    trainer.before = observatory.step
    try:
        yield
    finally:
        observatory.stop()


@contextmanager
def wandb_watch(trainer: Trainer, folder: Path) -> Iterator[None]:
    """Histograms of parameters and of their gradients; it has no histograms of outputs."""
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    import wandb  # noqa: PLC0415

    with wandb.init(project="overhead", dir=folder) as run:
        run.watch(trainer.model, log="all", log_freq=1)
        trainer.after = lambda loss: run.log({"loss": loss.item()})
        yield


@contextmanager
def trainscope(trainer: Trainer, folder: Path) -> Iterator[None]:
    """Its defaults: gradients and weights at every step, activations at every fifth."""
    with _trainscope(trainer, folder):
        yield


@contextmanager
def trainscope_every_step(trainer: Trainer, folder: Path) -> Iterator[None]:
    """Its defaults, but activations at every step."""
    with _trainscope(trainer, folder, activation_metrics_every_n_steps=1):
        yield


@contextmanager
def _trainscope(trainer: Trainer, folder: Path, **options: Any) -> Iterator[None]:
    from trainscope import TrainScope  # noqa: PLC0415
    from trainscope.core.config import TrainScopeConfig  # noqa: PLC0415

    config = TrainScopeConfig(run_dir=str(folder), **options)
    with TrainScope(trainer.model, trainer.optimizer, config=config) as scope:
        trainer.between = lambda loss: scope.step(loss.item())
        yield


@contextmanager
def ormas_monitor(trainer: Trainer, folder: Path) -> Iterator[None]:
    """Its gradient norms and silent channels, at every step."""
    from ormas_monitor import Monitor  # noqa: PLC0415

    monitor = Monitor(
        trainer.model, trainer.optimizer, out=folder / "run", check_every=1, verbose=False
    )
    trainer.between = monitor.step
    try:
        yield
    finally:
        monitor.close()


@contextmanager
def torch_module_monitor(trainer: Trainer, folder: Path) -> Iterator[None]:
    """Mean, standard deviation and norm of outputs, norms of parameters and their gradients."""
    from torch_module_monitor import ModuleMonitor  # noqa: PLC0415

    monitor = ModuleMonitor(monitor_step_fn=lambda step: True)
    monitor.set_module(trainer.model)
    for name in ("mean", "std", "norm"):
        monitor.add_activation_metric(name, operator.methodcaller(name))
    monitor.add_parameter_metric("norm", operator.methodcaller("norm"))
    monitor.add_gradient_metric("norm", operator.methodcaller("norm"))
    step = 0

    def measure(_: Tensor) -> None:
        monitor.monitor_parameters()
        monitor.monitor_gradients()

    def end(_: Tensor) -> None:
        nonlocal step
        step += 1
        monitor.end_step()
        monitor.get_step_metrics()

    trainer.before = lambda: monitor.begin_step(step)
    trainer.between, trainer.after = measure, end
    yield


ATTACH: dict[str, Callable[[Trainer, Path], AbstractContextManager[None]]] = {
    "gradflow": gradflow,
    "item-hooks": item_hooks,
    "tensorboard": tensorboard,
    "torchinstruments": torchinstruments,
    "torchmortem": torchmortem,
    "neural-observatory": neural_observatory,
    "wandb.watch": wandb_watch,
    "trainscope": trainscope,
    "trainscope, every step": trainscope_every_step,
    "ormas-monitor": ormas_monitor,
    "torch-module-monitor": torch_module_monitor,
}


@contextmanager
def _output_hooks(model: nn.Module, record: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call `record` with every output of LAYERS and with its gradient.

    A hook on the tensor, not on the module: full backward hooks fail on in-place ReLUs.
    """

    def forward_hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            record(f"output/{name}", output)
            output.register_hook(lambda gradient: record(f"gradient/{name}", gradient))

        return hook

    handles = [
        module.register_forward_hook(forward_hook(name))
        for name, module in model.named_modules()
        if isinstance(module, LAYERS)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Predictor(LanguageModel):
    """The logits with the letters second, as `F.cross_entropy` takes them."""

    def forward(self, letters: Tensor) -> Tensor:
        """Letters [batch, length] to logits [batch, kinds, length]."""
        return super().forward(letters).transpose(1, 2)


def model_and_batches(run: Setting, device: torch.device) -> tuple[nn.Module, Source]:
    """The model with the same first weights in every run, and what it trains on."""
    torch.manual_seed(0)
    if run.network == GPT:
        letters = Letters(run.size, run.batch, GPT_LETTERS, device)
        return Predictor(GPT_SIZE, GPT_LETTERS).to(device), letters
    model = torchvision.models.get_model(run.network, weights=None, num_classes=5)
    return model.to(device), Batches(run.size, run.batch, device)


def main(run: Run) -> None:
    """Time the tool and print the ratios and whether the losses were the same."""
    model, batches = model_and_batches(run, torch.device(run.device))
    plain, traced = Trainer(copy.deepcopy(model)), Trainer(model)
    with tempfile.TemporaryDirectory() as folder, ATTACH[run.tool](traced, Path(folder)):
        ratios, identical = paired_ratios(traced, plain, batches, run.pairs)
    print("\n" + json.dumps({"ratios": ratios, "identical": identical}))


if __name__ == "__main__":
    main(tyro.cli(Run))
