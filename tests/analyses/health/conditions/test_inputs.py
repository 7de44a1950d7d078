"""Inputs that teach nothing, or have a scale that spoils training, are told; usual ones are not."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from analyses.health.conditions import Thresholds
from analyses.health.conditions.inputs import INPUTS
from analyses.health.readings import Reading
from analyses.result import Verdict


def found(ask, **options):
    return ask(ask.plan(**options))["inputs"]


def test_inputs_of_zero_are_told_with_the_first_step(ask):
    one = found(ask, change=lambda step, x: x * 0 if step >= 20 else x)
    assert one.verdict is Verdict.SUPPORTED
    assert "input is all 0 in 20 of the last 20" in one.said
    assert one.since == 20


def test_constant_inputs_are_told(ask):
    one = found(ask, change=lambda step, x: torch.full_like(x, 0.3))
    assert one.verdict is Verdict.SUPPORTED
    assert "the inputs are constant" in one.cause


def test_a_sample_that_fills_the_batch_is_told(ask):
    one = found(ask, change=lambda step, x: x[:1].expand_as(x))
    assert one.verdict is Verdict.SUPPORTED
    assert "the same for all samples" in one.cause


def test_pixels_from_0_to_255_are_told_with_their_range(ask):
    one = found(ask, change=lambda step, x: (x * 255).round(), rate=0.001)
    assert one.verdict is Verdict.SUPPORTED
    assert "whole numbers from 0 to 255" in one.said
    assert "scale of the inputs" in one.cause
    assert one.value > 100


def test_missing_values_are_told_where_they_begin(ask):
    def with_nan(step, x):
        return torch.where(torch.arange(len(x))[:, None] == 1, torch.nan, x) if step == 30 else x

    one = found(ask, change=with_nan)
    assert one.verdict is Verdict.SUPPORTED
    assert one.since == 30
    assert "NaN or infinite, in" in one.said
    assert one.when == ""


def repeated(step, x, kept=[]):  # noqa: B006 - kept is the batch of the first step
    kept.append(x)
    return kept[0]


def test_the_same_batch_in_every_step_is_never_called_fit(ask):
    """It may be all of the data: then nothing is wrong, but the recording cannot know."""
    one = found(ask, change=repeated)
    assert one.verdict is Verdict.INCONCLUSIVE
    assert "had the same mean, deviation and range in all 60 recorded steps" in one.note
    assert "the loader returns this one again and again" in one.note
    assert "all of the data" in one.next_step


@pytest.mark.parametrize(
    ("steps", "verdict"), [(1, Verdict.CONTRADICTED), (3, Verdict.INCONCLUSIVE)]
)
def test_all_of_the_data_in_a_step_an_epoch_is_fit(tmp_path, steps, verdict):
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 3), torch.randn(32, 4), torch.randint(0, 3, (32,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        for _ in range(10):
            for _ in range(steps):
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
                optimizer.zero_grad()
            tracer.end_epoch()
    told = INPUTS.read(gradflow.open_run(tmp_path / "run"), Thresholds())
    assert [one.verdict for one in told] == [verdict]


class LooksUp(nn.Module):
    """Takes numbers of tokens, with a mask of ones that never changes."""

    def __init__(self, of_floats=False):
        super().__init__()
        self.embedding, self.head = nn.Embedding(5000, 16), nn.Linear(16, 10)

    def forward(self, ids):
        return self.head(self.embedding(ids) * torch.ones(len(ids), 1))


class TakesBytes(nn.Module):
    """Divides bytes by their range itself."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Linear(16, 10)

    def forward(self, x):
        return self.layers(x.float() / 255)


class Masked(nn.Module):
    """Is given a mask of ones and a state of zeros beside its inputs."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Linear(16, 10)

    def forward(self, x, mask, state):
        return self.layers(x) * mask[:, None] + state.sum()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"change": lambda step, x: (x - 0.5) / 0.29},
        {"change": lambda step, x: F.one_hot((x * 15.9).long()[:, 0], 16).float()},
        {"change": lambda step, x: torch.poisson(x * 10)},
        {"change": lambda step, x: (x > 0.5).float()},
        {"change": lambda step, x: (x[:, 0] * 4999).long(), "model": LooksUp},
        {"change": lambda step, x: (x * 255).byte(), "model": TakesBytes},
        {"change": lambda step, x: (x * 255).round(), "model": TakesBytes},
        {"change": lambda step, x: x * 0 if step == 5 else x},
    ],
    ids=(
        "pixels in [0, 1]",
        "standardized",
        "one-hot",
        "counts",
        "binary",
        "tokens",
        "bytes",
        "divided in the model",
        "one empty batch",
    ),
)
def test_usual_inputs_are_healthy(ask, options):
    one = found(ask, steps=20, rate=0.01, **options)
    assert isinstance(one, Reading)
    assert one.verdict is Verdict.CONTRADICTED


def test_few_steps_leave_it_open(ask):
    one = found(ask, steps=3, change=lambda step, x: x * 0)
    assert one.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("fault", [True, False])
def test_a_mask_of_ones_and_a_state_of_zeros_count_only_if_nothing_else_varies(
    ask, tmp_path, fault
):
    model = Masked()
    with gradflow.Tracer(model, tmp_path, schedule=1) as tracer:
        for _ in range(10):
            x = torch.rand(8, 16) * (not fault)
            model(x, torch.ones(8), torch.zeros(8, 4)).square().sum().backward()
            tracer.step()
        tracer.end_epoch()
    verdict = ask.run(gradflow.open_run(tmp_path))["inputs"].verdict
    assert verdict is (Verdict.SUPPORTED if fault else Verdict.CONTRADICTED)
