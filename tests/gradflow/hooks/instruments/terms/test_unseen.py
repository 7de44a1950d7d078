"""The training notices nothing of the backward passes of terms."""

import random
import runpy
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from gradflow import Tracer
from gradflow.runs.reading.run import open_run

_LOSSES = runpy.run_path(str(Path(__file__).with_name("losses.py")), run_name="losses")
CASES = _LOSSES["CASES"]

STEPS = 4


class Checkpointed(nn.Module):
    """Its middle runs again in backward: dropout, and a batch norm that counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.middle = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Tanh())
        self.last = nn.Linear(8, 2)
        self.drawn: list[float] = []

    def again(self, x: Tensor) -> Tensor:
        self.drawn.append(random.random() + float(np.random.rand()))
        return self.middle(x)

    def forward(self, x: Tensor) -> Tensor:
        x = checkpoint(self.again, functional.relu_(self.first(x)), use_reentrant=False)
        return self.last(x)


def two_terms(model: nn.Module) -> dict[str, Tensor]:
    y = model(torch.linspace(-1, 1, 24).reshape(4, 6).sin())
    return {"one": y[:, 0].square().mean(), "other": 0.1 * (y[:, 1] - 1).abs().mean()}


TRAININGS = {
    **{name: (case.model, case.terms) for name, case in CASES.items()},
    "checkpointed": (Checkpointed, two_terms),
}

# Layers whose outputs nothing changes in place, which module hooks would forbid.
LAST = ("head", "decoder.3", "classes", "boxes", "last")


class Watched:
    """All that a user can hang on a training, and what was seen there."""

    def __init__(self, model: nn.Module) -> None:
        self.seen: list[object] = []
        self.outputs: list[Tensor] = []
        note = self.seen.append
        for name, parameter in model.named_parameters():
            parameter.register_hook(lambda g, name=name: note((name, float(g.detach().norm()))))
            parameter.register_post_accumulate_grad_hook(lambda p, name=name: note(("after", name)))
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):
                module.register_forward_hook(self.follow)
            if name in LAST:
                module.register_full_backward_hook(lambda *_, name=name: note(("out of", name)))
                module.register_full_backward_pre_hook(lambda *_, name=name: note(("into", name)))

    def follow(self, module: nn.Module, args: object, output: Tensor) -> None:
        if output.requires_grad and torch._C._current_graph_task_id() == -1:
            output.register_hook(lambda g: self.seen.append(float(g.detach().norm())))
            output.retain_grad()
            self.outputs.append(output)


def train(model, terms, tracer=None, watched=None, scaler=None) -> list[object]:
    """Train for a few steps; return all that can tell one training from another."""
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    found: list[object] = []
    for _ in range(STEPS):
        losses = terms(model)
        if tracer is not None:
            tracer.terms(losses)
        sum(losses.values()).backward()
        found += [one.grad for one in model.parameters()]
        if watched is not None:
            found += [one.grad for one in watched.outputs]
            watched.outputs.clear()
        optimizer.step()
        optimizer.zero_grad()
        if tracer is not None:
            tracer.step()
    found += [*model.state_dict().values(), torch.get_rng_state(), torch.rand(1)]
    return [*found, random.random(), float(np.random.rand())]


def same(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return one == other


@pytest.mark.parametrize("is_watched", [False, True])
@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_with_terms_is_the_training_without(tmp_path, name, is_watched):
    make, terms = TRAININGS[name]
    torch.manual_seed(0)
    model = make()
    plain = deepcopy(model)
    watched, by_itself = (Watched(one) if is_watched else None for one in (model, plain))
    expected = train(plain, terms, watched=by_itself)
    with Tracer(model, tmp_path / "run", terms=1) as tracer:
        found = train(model, terms, tracer, watched)
        tracer.end_epoch()
    assert len(found) == len(expected)
    assert all(map(same, found, expected))
    if watched is not None and by_itself is not None:
        assert watched.seen == by_itself.seen
        assert len(watched.seen) > STEPS
    if isinstance(model, Checkpointed):
        # Python's own state sees that its code has run again.
        assert model.drawn[0] == plain.drawn[0]
    run = open_run(tmp_path / "run")
    assert run.table("terms")["step"].nunique() == STEPS
    assert run.description["backward_passes"]["left_out"] == expected_inner_passes(name)


def expected_inner_passes(name: str) -> int:
    """Passes of `torch.autograd.grad` within the loss."""
    return 2 * STEPS if name == "physics" else 0


def test_with_autocasting_and_a_scaler_terms_are_those_of_the_unscaled_loss(tmp_path):
    torch.manual_seed(0)
    model = Checkpointed()
    plain = deepcopy(model)

    def steps(model: nn.Module, tracer_of=None, folder: Path | None = None) -> list[Tensor]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        tracer = tracer_of(model, folder, optimizer=optimizer, scaler=scaler, terms=1)
        torch.manual_seed(1)
        with tracer:
            for _ in range(2):
                with torch.autocast("cpu", torch.bfloat16):
                    terms = two_terms(model)
                    loss = sum(terms.values())
                    with tracer.terms(terms) if folder else tracer:
                        scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
        return [*model.state_dict().values()]

    class NoTracer:
        def __init__(self, *_: object, **__: object) -> None: ...
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    expected = steps(plain, NoTracer)
    found = steps(model, Tracer, tmp_path / "run")
    assert all(map(torch.equal, found, expected))
    run = open_run(tmp_path / "run")
    parameters = run.parameters.set_index(["step", "parameter"])["backward_gradient_norm"]
    table = run.table("terms").query("kind == 'parameter'").set_index(["step", "place"])
    ours = table["sum_norm"].groupby(level=[0, 1]).first()
    assert ours[0, "first.weight"] == pytest.approx(parameters[0, "first.weight"], rel=0.05)
    assert run.table("terms")["sum_error"].max() < 0.02


def _made_in_inference() -> Tensor:
    with torch.inference_mode():
        return torch.ones(4, 2)


BUFFERS = {
    "expanded": lambda: torch.ones(1, 2).expand(4, 2),
    "sparse": lambda: torch.ones(4, 2).to_sparse(),
    "sparse rows": lambda: torch.ones(4, 2).to_sparse_csr(),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(4, 2), 0.1, 0, torch.qint8),
    "inference": _made_in_inference,
    "a number": lambda: torch.tensor(1.0),
    "empty": lambda: torch.empty(0),
}


@pytest.mark.parametrize("kind", BUFFERS)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor.*")
def test_terms_are_measured_whatever_buffers_the_model_has(tmp_path, kind):
    model = nn.Linear(6, 2)
    model.register_buffer("fixed", BUFFERS[kind]())
    model = nn.Sequential(model)
    with Tracer(model, tmp_path / "run", terms=1, strict=True) as tracer:
        terms = two_terms(model)
        tracer.terms(terms)
        sum(terms.values()).backward()
        tracer.step()
        tracer.end_epoch()
    assert len(open_run(tmp_path / "run").table("terms"))
