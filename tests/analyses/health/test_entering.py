"""A gradient that grows where a part of the loss enters between the layers."""

import pytest
import torch
from torch import nn

import gradflow
from analyses.health.conditions import read_health
from analyses.result import Verdict


class Coded(nn.Module):
    """Returns its code beside its output, as a variational autoencoder does."""

    def __init__(self, factor=1.0):
        super().__init__()
        layers = [nn.Linear(12, 12) for _ in range(7)]
        for layer in layers:
            nn.init.orthogonal_(layer.weight, factor)
        self.encoder = nn.Sequential(*layers[:3])
        self.decoder = nn.Sequential(*layers[3:])

    def forward(self, x):
        code = self.encoder(x)
        return self.decoder(code), code


def answers(folder, weight, *, told, factor=1.0):
    """Train with a term of the code that weighs `weight`; return the readings by condition."""
    torch.manual_seed(0)
    model = Coded(factor)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    with gradflow.Tracer(model, folder, optimizer=optimizer, terms=2) as tracer:
        for _ in range(40):
            x = torch.randn(16, 12)
            output, code = model(x)
            terms = {
                "image": (1.0, (output - x).square().mean() / factor**7),
                "code": (weight, (code - 1).square().mean()),
            }
            if told:
                tracer.terms(terms)
            loss = sum(weight * term for weight, term in terms.values())
            tracer.log(loss=loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return {one.condition: one for one in read_health(gradflow.open_run(folder))}


@pytest.fixture(scope="module")
def told_and_not(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coded")
    return [answers(folder / str(told), 1e5, told=told) for told in (True, False)]


def test_a_term_that_is_far_too_large_is_named_and_nothing_explodes(told_and_not):
    told = told_and_not[0]
    assert told["dominated"].verdict is Verdict.SUPPORTED
    assert "code outweighs image" in told["dominated"].cause
    assert "by its weight of 1.0e5" in told["dominated"].cause
    assert told["exploding"].verdict is Verdict.CONTRADICTED
    assert told["exploding"].value > told["exploding"].threshold
    assert told["exploding"].note.startswith("It grows where a term of the loss enters")


def test_without_the_terms_it_stays_open_and_says_what_would_tell(told_and_not):
    found = told_and_not[1]["exploding"]
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "at one place, encoder.2, and the model returns several tensors" in found.note
    assert found.next_step.startswith("Give the terms of the loss: tracer.terms(")


@pytest.mark.parametrize("told", [True, False])
def test_weights_that_are_too_large_everywhere_explode_all_the_same(tmp_path, told):
    found = answers(tmp_path / "run", 1.0, told=told, factor=5.0)["exploding"]
    assert found.verdict is Verdict.SUPPORTED


@pytest.mark.parametrize("told", [True, False])
def test_terms_of_like_size_are_well(tmp_path, told):
    found = answers(tmp_path / "run", 1.0, told=told)
    assert found["exploding"].verdict is Verdict.CONTRADICTED
    if told:
        assert found["dominated"].verdict is Verdict.CONTRADICTED
