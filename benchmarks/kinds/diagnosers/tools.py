"""The published tools that diagnose trainings, each used as its own README says.

Not part of this project's dependencies: `pip install torch-audit==0.3.0 torchmortem==0.1.1
trainscope==1.8.1 ormas-monitor==0.2.3`.
"""

import asyncio
import importlib
import json
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diagnosers.watcher import Complaint, Watcher

Optimizers = list[torch.optim.Optimizer]


class CouldNotRunError(Exception):
    """A tool cannot be used on a training, with the reason."""


def only(optimizers: Optimizers) -> torch.optim.Optimizer:
    """The one optimizer."""
    if len(optimizers) != 1:
        raise CouldNotRunError(f"takes one optimizer, the training has {len(optimizers)}")
    return optimizers[0]


class TorchAudit(Watcher):
    """torch-audit 0.3.0: `autopatch`, its rules of running models in every step.

    Rules that read the code or the optimizer's settings alone (static, init) are not asked, nor
    those on speed. What it ranks INFO does not count.
    """

    name = "torch-audit"

    def begin(self, model: nn.Module, optimizers: Optimizers, steps: int, folder: Path) -> None:
        """Patch forward and step."""
        del steps, folder
        self.auditor: Any = importlib.import_module("torch_audit").autopatch(
            model,
            optimizer=only(optimizers),
            every_n_steps=1,
            reporters=[],
            run_static=False,
            run_init=False,
        )

    def end(self) -> list[Complaint]:
        """Take the patches off."""
        result = self.auditor.finish(report=False)
        self.auditor.unpatch()
        first: dict[str, int | None] = {}
        internal = [one.message for one in result.findings if one.rule_id == "TA000"]
        if internal:
            raise CouldNotRunError(f"its validator failed: {internal[0][:120]}")
        for one in result.findings:
            if one.severity.value != "INFO":
                first.setdefault(one.rule_id, one.step)
        return [Complaint(f"torch-audit: {rule}", step) for rule, step in first.items()]


class TorchMortem(Watcher):
    """torchmortem 0.1.1: `Autopsy` with its default sampling; what it ranks INFO does not count."""

    name = "torchmortem"

    def begin(self, model: nn.Module, optimizers: Optimizers, steps: int, folder: Path) -> None:
        """Attach its collectors."""
        del steps, folder
        logging.getLogger("torchmortem").setLevel(logging.CRITICAL)
        optimizer = optimizers[0] if len(optimizers) == 1 else None
        autopsy = importlib.import_module("torchmortem").Autopsy
        self.autopsy: Any = autopsy(model, optimizer=optimizer)
        self.autopsy.attach()

    def after_step(self, step: int, loss: Tensor) -> None:
        """Its step, after the optimizer's."""
        del step
        self.autopsy.step(loss=loss.item())

    def end(self) -> list[Complaint]:
        """Analyse."""
        self.autopsy.detach()
        first: dict[str, int | None] = {}
        for one in self.autopsy.get_report().findings:
            if one.severity.name != "INFO":
                title = one.title.split(" in ")[0].split(" -- ")[0]
                begins = one.step_range[0] if one.step_range else None
                first.setdefault(title, begins)
        return [Complaint(f"torchmortem: {title}", step) for title, step in first.items()]


class TrainScope(Watcher):
    """trainscope 1.8.1: spikes of its default detector, and the signals of its report."""

    name = "trainscope"

    def begin(self, model: nn.Module, optimizers: Optimizers, steps: int, folder: Path) -> None:
        """Attach with the default settings."""
        del steps
        logging.getLogger("trainscope").setLevel(logging.CRITICAL)
        config = importlib.import_module("trainscope.core.config").TrainScopeConfig
        scope = importlib.import_module("trainscope").TrainScope
        settings = config(run_dir=str(folder), run_name="scope")
        self.folder = folder / "scope"
        self.scope: Any = scope(model, only(optimizers), config=settings).attach()

    def before_step(self, step: int, loss: Tensor) -> None:
        """Its step, before the optimizer's."""
        self.scope.step(loss.item(), batch_index=step)

    def end(self) -> list[Complaint]:
        """Have its report built."""
        self.scope.detach()
        build = importlib.import_module("trainscope.report").build_run_report
        report = asyncio.run(build(self.folder))
        said = report["signal_signature"]
        found = {f"signal {name}": said["first_steps"][name] for name in said["fired"]}
        if report["spike_steps"]:
            found["spike"] = min(report["spike_steps"])
        if said["explosion_step"] is not None:
            found["explosion"] = said["explosion_step"]
        return [Complaint(f"trainscope: {what}", step) for what, step in found.items()]


class Ormas(Watcher):
    """ormas-monitor 0.2.3, with a check every 5 steps.

    Its default of 50 needs over 400 steps before a layer can be said to leave its history. Events
    that it ranks warning, critical or proof count.
    """

    name = "ormas-monitor"

    def begin(self, model: nn.Module, optimizers: Optimizers, steps: int, folder: Path) -> None:
        """Attach."""
        del steps
        self.folder = folder / "ormas"
        monitor = importlib.import_module("ormas_monitor").Monitor
        optimizer = optimizers[0] if len(optimizers) == 1 else None
        self.monitor: Any = monitor(model, optimizer, out=self.folder, check_every=5, verbose=False)

    def before_step(self, step: int, loss: Tensor) -> None:
        """Its step, before the optimizer's."""
        del step
        self.monitor.step(loss)

    def end(self) -> list[Complaint]:
        """Read its record."""
        self.monitor.close(report=False)
        first: dict[str, int | None] = {}
        for line in (self.folder / "diary.jsonl").read_text(encoding="utf-8").splitlines():
            event = json.loads(line)
            if event.get("severity") in ("warning", "critical", "proof"):
                what = event["event"]
                what += f" {event['diagnosis']}" if what == "alarm" else ""
                first.setdefault(what, event["step"])
        return [Complaint(f"ormas-monitor: {what}", step) for what, step in first.items()]
