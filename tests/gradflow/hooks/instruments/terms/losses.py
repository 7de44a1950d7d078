"""Small networks whose losses have several terms, and their gradients by autograd alone."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

Terms = dict[str, Tensor]


class Physics(nn.Module):
    """u(x) for u'' = f on [0, 1] with u(0) = u(1) = 0, f = -pi^2 sin(pi x)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x))


def physics_terms(model: nn.Module) -> Terms:
    x = torch.linspace(0, 1, 9).unsqueeze(1).requires_grad_()
    (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
    residual = bend + torch.pi**2 * torch.sin(torch.pi * x)
    at_the_ends = model(torch.tensor([[0.0], [1.0]]))
    return {"equation": residual.square().mean(), "boundary": 10 * at_the_ends.square().sum()}


class Autoencoder(nn.Module):
    """A variational autoencoder; its noise is drawn in every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True))
        self.moments = nn.Linear(8, 4)
        self.decoder = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 6))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.moments(self.encoder(x)).chunk(2, 1)
        code = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return self.decoder(code), mean, log_variance


def autoencoder_terms(model: nn.Module) -> Terms:
    x = torch.linspace(-1, 1, 30).reshape(5, 6)
    decoded, mean, log_variance = model(x)
    divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1).mean()
    return {"reconstruction": (decoded - x).square().sum(1).mean(), "divergence": 0.3 * divergence}


class Detector(nn.Module):
    """One trunk with a residual block, and two heads: classes and boxes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.block = nn.Conv2d(4, 4, 3, padding=1)
        self.classes = nn.Linear(4, 3)
        self.boxes = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.stem(x))
        x = x + torch.relu(self.block(x))
        x = x.mean((2, 3))
        return self.classes(x), self.boxes(x)


def detector_terms(model: nn.Module) -> Terms:
    x = torch.linspace(-1, 1, 100).reshape(4, 1, 5, 5).sin()
    scores, boxes = model(x)
    decay = 0.001 * sum(one.square().sum() for one in model.parameters())
    return {
        "classes": functional.cross_entropy(scores, torch.tensor([0, 1, 2, 0])),
        "boxes": 2 * functional.smooth_l1_loss(boxes, torch.ones(4, 4)),
        "decay": decay,
    }


@dataclass(frozen=True)
class Case:
    model: type[nn.Module]
    terms: Callable[[nn.Module], Terms]
    # Layers whose outputs are looked at, and those of them that are changed in place.
    layers: tuple[str, ...]
    changed: tuple[str, ...] = ()


CASES = {
    "physics": Case(Physics, physics_terms, ("net.0", "net.2", "net.3", "head")),
    "autoencoder": Case(
        Autoencoder,
        autoencoder_terms,
        ("encoder.0", "encoder.1", "moments", "decoder.3"),
        ("encoder.1",),
    ),
    "detector": Case(Detector, detector_terms, ("stem", "block", "classes", "boxes")),
}


@dataclass
class ByHand:
    """Gradients by term and place: None where a term does not reach.

    Those of a layer are of its outputs in all passes of the step, one after the other.
    """

    layers: dict[str, dict[str, Tensor | None]]
    parameters: dict[str, dict[str, Tensor | None]]


def by_hand(model: nn.Module, case: Case) -> ByHand:
    """Differentiate each term by `torch.autograd.grad`, with outputs caught by forward hooks."""
    outputs: dict[str, list[Tensor]] = {name: [] for name in case.layers}

    def catch(name: str, output: Tensor) -> Tensor:
        outputs[name].append(output)
        return output.clone() if name in case.changed else output

    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: catch(name, output)
        )
        for name in case.layers
    ]
    found = case.terms(model)
    for handle in handles:
        handle.remove()
    named = dict(model.named_parameters())
    inputs = [*named.values(), *(one for calls in outputs.values() for one in calls)]
    result = ByHand({}, {})
    for term, value in found.items():
        gradients = iter(torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True))
        result.parameters[term] = {name: next(gradients) for name in named}
        result.layers[term] = {
            name: _joined([next(gradients) for _ in calls], calls)
            for name, calls in outputs.items()
        }
    return result


def _joined(gradients: list[Tensor | None], outputs: list[Tensor]) -> Tensor | None:
    if all(one is None for one in gradients):
        return None
    filled = [
        torch.zeros_like(output) if one is None else one
        for one, output in zip(gradients, outputs, strict=True)
    ]
    return torch.cat([one.reshape(-1) for one in filled])
