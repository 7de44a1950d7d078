"""Runs SageMaker Debugger's rules on a training, with what its hook would save in every step."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from diagnosers import debugger
from diagnosers.watcher import Complaint, Watcher

RULES = (
    "VanishingGradient", "ExplodingTensor", "DeadRelu", "SaturatedActivation",
    "PoorWeightInitialization", "WeightUpdateRatio: large", "WeightUpdateRatio: small", "AllZero",
    "UnchangedTensor", "LossNotDecreasing", "Overfit", "StalledTraining",
)  # fmt: skip
CHECKED_EVERY = 5  # steps; the loss is looked at in each


class Debugger(Watcher):
    """The rules, each up to the first step in which it holds, as the service stops it there.

    Gradients are those that the backward pass gives to trained parameters; weights are parameters
    called so, as in the collection "weights"; inputs and outputs are those of modules. AllZero is
    asked of weights and gradients, UnchangedTensor of weights and loss: the page leaves to the user
    of which.
    """

    name = "SageMaker Debugger's rules"

    def __init__(self) -> None:
        self.found: dict[str, int] = {}
        self.gradients: dict[str, Tensor] = {}
        self.relus: dict[str, tuple[Tensor, Tensor]] = {}
        self.bounded: dict[str, dict[str, Tensor]] = {"tanh": {}, "sigmoid": {}}
        self.history: list[dict[str, Tensor]] = []
        self.losses: list[float] = []
        self.epochs: list[tuple[float, float]] = []
        self.handles: list[torch.utils.hooks.RemovableHandle] = []
        self.parameters: dict[str, nn.Parameter] = {}
        self.last = 0.0

    def begin(
        self, model: nn.Module, optimizers: list[torch.optim.Optimizer], steps: int, folder: Path
    ) -> None:
        """Hook parameters and activations."""
        del optimizers, steps, folder
        self.parameters = {
            name: one
            for name, one in model.named_parameters()
            if one.requires_grad and name.endswith("weight")
        }
        for name, one in model.named_parameters():
            if one.requires_grad:
                self.handles.append(one.register_hook(partial(self._gradient, name)))
        for name, module in model.named_modules():
            if isinstance(module, nn.ReLU | nn.ReLU6 | nn.Tanh | nn.Sigmoid):
                self.handles.append(module.register_forward_hook(self._activation(name)))
        self._remember()
        self.last = time.monotonic()

    def _gradient(self, name: str, gradient: Tensor) -> None:
        self.gradients[name] = gradient.detach().to_dense()

    def _activation(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(module, nn.Tanh | nn.Sigmoid):
                kind = "tanh" if isinstance(module, nn.Tanh) else "sigmoid"
                self.bounded[kind][name] = inputs[0].detach().clone()
            else:
                self.relus[name] = inputs[0].detach().clone(), output.detach().clone()

        return hook

    def _remember(self) -> None:
        self.history.append({name: one.detach().clone() for name, one in self.parameters.items()})
        del self.history[:-3]

    def _holds(self, rule: str, step: int, holds: object) -> None:
        if holds:
            self.found.setdefault(rule, step)

    def after_step(self, step: int, loss: Tensor) -> None:
        """Ask the rules of this step's tensors."""
        self.losses.append(float(loss.detach()))
        self._holds("LossNotDecreasing", step, debugger.loss_not_decreasing(self.losses))
        now = time.monotonic()
        self._holds("StalledTraining", step, debugger.stalled_training(now - self.last))
        self.last = now
        self._remember()
        if step < 10 or step % CHECKED_EVERY == 0:
            self._ask(step)
        for kept in (self.gradients, self.relus, *self.bounded.values()):
            kept.clear()

    def _ask(self, step: int) -> None:
        before, after = self.history[-2:]
        loss = torch.tensor(self.losses[-3:])
        weights_and_loss = [
            {**weights, "loss": value}
            for weights, value in zip(self.history[-len(loss) :], loss, strict=False)
        ]
        everything = {
            **self.gradients,
            **{f"weights of {name}": one for name, one in after.items()},
            **{f"output of {name}": one for name, (_, one) in self.relus.items()},
            "loss": loss[-1],
        }
        relu_inputs = {name: one for name, (one, _) in self.relus.items()}
        relu_outputs = {name: one for name, (_, one) in self.relus.items()}
        zeros = {**self.gradients, **{f"weights of {name}": one for name, one in after.items()}}
        large, small = debugger.weight_update_ratio(before, after)
        saturated = debugger.saturated_activation(
            self.bounded["tanh"], *debugger.TANH
        ) + debugger.saturated_activation(self.bounded["sigmoid"], *debugger.SIGMOID)
        for rule, holds in (
            ("VanishingGradient", debugger.vanishing_gradient(self.gradients)),
            ("ExplodingTensor", debugger.exploding_tensor(everything)),
            ("DeadRelu", debugger.dead_relu(relu_outputs)),
            ("SaturatedActivation", saturated),
            (
                "PoorWeightInitialization",
                debugger.poor_weight_initialization(relu_inputs, self.gradients, step),
            ),
            ("WeightUpdateRatio: large", large),
            ("WeightUpdateRatio: small", small),
            ("AllZero", debugger.all_zero(zeros)),
            ("UnchangedTensor", debugger.unchanged_tensor(weights_and_loss)),
        ):
            self._holds(rule, step, holds)

    def end_epoch(self, train_loss: float, held: float | None) -> None:
        """Compare with the loss on held-out data."""
        if held is None:
            return
        self.epochs.append((train_loss, held))
        own, others = zip(*self.epochs, strict=True)
        self._holds("Overfit", len(self.losses) - 1, debugger.overfit(own, others))

    def end(self) -> list[Complaint]:
        """Remove the hooks."""
        for handle in self.handles:
            handle.remove()
        return [Complaint(f"debugger: {rule}", step) for rule, step in self.found.items()]
