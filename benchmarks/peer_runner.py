"""Times one tracing tool against an untraced twin, and prints one JSON line. Run by peers.py.

    python benchmarks/peer_runner.py item-hooks --size 32 --pairs 3

As far as a tool allows, it records at every step the outputs of all convolutions, batch norms,
ReLUs and linear layers, and the gradients of these outputs.
"""

import copy
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
import tyro
from pairing import Batches, Trainer, paired_ratios
from torch import Tensor, nn

LAYERS = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Linear)


@dataclass(frozen=True)
class Setting:
    """What to train, the same for every tool."""

    network: str = "resnet34"
    """Network of torchvision.models."""
    size: int = 32
    """Side of the images, in pixels."""
    batch: int = 24
    """Images in a step."""
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


ATTACH: dict[str, Callable[[Trainer, Path], AbstractContextManager[None]]] = {
    "gradflow": gradflow,
    "item-hooks": item_hooks,
    "tensorboard": tensorboard,
    "torchinstruments": torchinstruments,
    "torchmortem": torchmortem,
    "neural-observatory": neural_observatory,
    "wandb.watch": wandb_watch,
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


def main(run: Run) -> None:
    """Time the tool and print the ratios and whether the losses were the same."""
    torch.manual_seed(0)
    device = torch.device(run.device)
    model = torchvision.models.get_model(run.network, weights=None, num_classes=5).to(device)
    plain, traced = Trainer(copy.deepcopy(model)), Trainer(model)
    batches = Batches(run.size, run.batch, device)
    with tempfile.TemporaryDirectory() as folder, ATTACH[run.tool](traced, Path(folder)):
        ratios, identical = paired_ratios(traced, plain, batches, run.pairs)
    print("\n" + json.dumps({"ratios": ratios, "identical": identical}))


if __name__ == "__main__":
    main(tyro.cli(Run))
