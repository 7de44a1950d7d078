"""Does the loss fall? From made series, and from trainings that cannot learn."""

import math
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from analyses.health.condition import NotAsked
from analyses.health.conditions import read_health
from analyses.health.conditions.losses.loss import not_learning_answer
from analyses.health.question import all_findings
from analyses.health.readings import Reading
from analyses.result import Verdict
from gradflow.runs.format.schema import TABLES


class Recorded:
    """A run of which only the losses and the last layer are known."""

    description: ClassVar = {}

    def __init__(self, losses, shape, role):
        self.steps = pd.DataFrame({"loss": losses, "step": range(len(losses))})
        self.parameters = pd.DataFrame()
        self.layers = pd.DataFrame({"role": [role], "depth": [1], "shape": [shape]})

    def table(self, name):
        return pd.DataFrame({one.name: [] for one in TABLES[name].columns})


def read(losses, shape="10", role="linear"):
    return not_learning_answer(Recorded(losses, shape, role), 0.98, 20)


def noise(count, level, seed=0):
    return level * (1 + 0.01 * np.random.default_rng(seed).normal(size=count))


@pytest.mark.parametrize(
    ("losses", "verdict", "says"),
    [
        (noise(60, 1.0) * np.linspace(2.3, 0.5, 60), Verdict.CONTRADICTED, ""),
        (noise(60, math.log(10)), Verdict.SUPPORTED, "guessing among 10 classes"),
        (noise(60, 1.0) * np.geomspace(1, 40, 60), Verdict.SUPPORTED, "It rises, from"),
        (noise(60, 1.0) * np.linspace(1, 3.5, 60), Verdict.INCONCLUSIVE, ""),
        (noise(60, 0.02), Verdict.INCONCLUSIVE, ""),
    ],
    ids=["falls", "guesses", "rises", "rises a little", "had converged"],
)
def test_verdict(losses, verdict, says):
    found = read(losses)
    assert found.verdict is verdict
    assert says in found.cause


def test_a_loss_that_rises_a_little_is_told_with_what_else_does_so():
    found = read(noise(60, 1.0) * np.linspace(1, 1.3, 60))
    assert found.note.startswith("It rises, from 1.0")
    assert "an adversary that learns" in found.note
    assert "another measure of progress" in found.next_step


@pytest.mark.parametrize(
    ("shape", "role", "classes"),
    [
        ("32x10", "linear", 10),
        ("10x32", "linear", None),
        ("10x32x32", "convolution", 10),
        ("1x10x10", "convolution", None),
    ],
)
def test_classes_are_the_channels_of_the_last_layer_not_its_places(shape, role, classes):
    found = read(noise(60, math.log(10)), shape, role)
    assert (f"guessing among {classes} classes" in found.cause) == (classes is not None)
    assert (found.verdict is Verdict.SUPPORTED) == (classes is not None)


def test_a_loss_that_rises_does_so_since_it_left_what_it_was():
    losses = np.concatenate([noise(30, 1.0), noise(30, 8.0, seed=1)])
    assert read(losses).since == 30
    losses[45:47] = 1.0  # two good batches are no end of it
    assert read(losses).since == 30
    losses[44:48] = 1.0
    assert read(losses).since == 48


def test_a_loss_that_falls_to_that_of_guessing_and_no_further_does_not_fall():
    fallen = np.concatenate([noise(20, 3.0), noise(40, 1.01 * math.log(10), seed=1)])
    found = read(fallen)
    assert found.verdict is Verdict.SUPPORTED
    assert found.value == pytest.approx(1.0, abs=0.01)
    assert "the ones before" in found.quantity
    # A hundredth below it something has been learnt; and so it has while it still falls.
    below = np.concatenate([noise(20, 3.0), noise(40, 0.98 * math.log(10), seed=1)])
    assert read(below).verdict is Verdict.CONTRADICTED
    falls = noise(60, 1.0) * np.linspace(3.0, 1.01 * math.log(10), 60)
    assert read(falls).verdict is Verdict.CONTRADICTED


def test_number_is_the_ratio_of_both_medians_and_its_interval_that_of_both():
    losses = noise(60, 3.0)
    found = read(losses)
    first, last = np.sort(losses[:20]), np.sort(losses[-20:])
    assert found.value == pytest.approx(np.median(last) / np.median(first))
    # Order statistics 6 and 15 of 20 (P(Binomial(20, 1/2) < 6) = 0.0207).
    assert (found.low, found.high) == pytest.approx((last[5] / first[14], last[14] / first[5]))


def test_few_steps_are_not_asked():
    assert isinstance(read(noise(39, math.log(10))), NotAsked)
    assert isinstance(read(noise(40, math.log(10))), Reading)


def test_a_loss_that_falls_from_above_zero_to_below_falls():
    """As the negative log-likelihood of a density does."""
    found = read(noise(60, 1.0) + np.linspace(3, -5, 60))
    assert found.verdict is Verdict.CONTRADICTED
    assert found.value is None


@pytest.mark.parametrize("losses", [np.linspace(-1, -5, 60), np.linspace(1, -5, 60), -noise(60, 1)])
def test_losses_below_zero_from_the_start_leave_it_open_for_a_reason(losses):
    found = read(losses)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.value is None
    assert "a loss that is not above 0 has no ratio" in found.note


def test_flat_loss_is_seldom_called_falling_or_rising_by_chance():
    seeds = range(200)
    verdicts = [read(noise(60, 0.5, seed)).verdict for seed in seeds]
    assert verdicts.count(Verdict.INCONCLUSIVE) >= 0.98 * len(verdicts)


@pytest.fixture
def train(tmp_path):
    def trained(fault=""):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
        inputs = torch.randn(48, 512, 8)
        targets = inputs[..., :4].argmax(2)
        if fault == "labels shuffled":
            targets = targets[:, torch.randperm(512)]
        if fault == "inputs zero":
            inputs = torch.zeros_like(inputs)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-9 if fault == "rate" else 0.1)
        with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
            for step in range(48):
                if fault == "units die" and step == 20:
                    nn.init.constant_(model[0].bias, -20.0)
                scores = model(inputs[step])
                scores = 0.01 * scores.softmax(1) if fault == "softmax twice" else scores
                loss = F.cross_entropy(scores, targets[step])
                tracer.log(loss=loss)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            tracer.end_epoch()
        run = gradflow.open_run(tmp_path / "run")
        return {one.condition: one for one in read_health(run)}

    return trained


def test_a_training_that_learns_is_not_told_to_be_idle(train):
    found = train()
    assert found["not-learning"].verdict is Verdict.CONTRADICTED
    assert found["inputs"].verdict is Verdict.CONTRADICTED


def test_units_that_die_and_then_a_loss_of_guessing_are_one_chain(train, tmp_path):
    found = train("units die")
    assert (found["dead"].since, found["not-learning"].since) == (20, 20)
    assert (
        "first 32 of 32 channels of layer 1 are dead (from step 20 on), then the outputs are alike "
        "for all inputs (layer 1, from step 20 on), then the loss"
        in told(tmp_path, "healthy").meaning
    )
    assert "at layer 1, from step 20 on." in told(tmp_path, "dead").meaning
    assert "updates moved them there" in told(tmp_path, "dead").meaning
    assert told(tmp_path, "healthy").next_step == told(tmp_path, "dead").next_step


@pytest.mark.parametrize("fault", ["labels shuffled", "softmax twice"])
def test_a_loss_that_stays_at_that_of_guessing_is_named(fault, train):
    found = train(fault)["not-learning"]
    assert found.verdict is Verdict.SUPPORTED
    assert "guessing among 4 classes" in found.cause
    assert "a softmax before the cross-entropy" in found.otherwise
    assert found.since == 0


def test_a_softmax_within_the_model_is_the_cause(ask):
    plan = ask.plan(model=lambda: ask.perceptron([nn.Softmax(1)]), rate=0.01)
    found = ask(plan)["not-learning"]
    assert found.verdict is Verdict.SUPPORTED
    assert "The network ends in a softmax" in found.cause


def test_labels_at_random_stay_at_guessing_though_the_loss_was_higher_at_first():
    losses = np.concatenate([np.full(10, 2.36), noise(50, math.log(10))])
    losses += 0.02 * np.random.default_rng(1).normal(size=60)
    assert read(losses).verdict is Verdict.SUPPORTED
    assert read(losses, shape="12").verdict is not Verdict.SUPPORTED


def told(folder, condition):
    findings = all_findings(gradflow.open_experiment(folder / "run"))
    return next(one for one in findings if one.topic == condition)


def test_inputs_that_are_zero_come_first(train, tmp_path):
    found = train("inputs zero")
    assert found["inputs"].verdict is Verdict.SUPPORTED
    assert "the inputs are all 0" in found["inputs"].cause
    meaning = told(tmp_path, "not-learning").meaning
    assert "This is an effect of what came first: the inputs are not fit to learn" in meaning
    assert "Either the labels" not in meaning


def test_a_flat_loss_is_told_as_the_effect_of_what_causes_it(train, tmp_path):
    found = train("rate")
    assert found["not-learning"].verdict is Verdict.SUPPORTED
    meaning = told(tmp_path, "not-learning").meaning
    assert "This is an effect of what came first: training is stalled" in meaning
    assert told(tmp_path, "not-learning").next_step == told(tmp_path, "stalled").next_step


def ascending(parameters, lr):
    return torch.optim.SGD(parameters, lr=lr, maximize=True)


def test_a_classifier_that_climbs_from_guessing_does_not_learn_though_it_rises_less_than_fivefold(
    ask,
):
    found = ask(ask.plan(rule=ascending, rate=0.2, steps=60))["not-learning"]
    assert 1.5 < found.value < 5
    assert found.verdict is Verdict.SUPPORTED
    assert "It rises from about that of guessing" in found.cause
    assert "wrong sign" in found.cause
    assert "maximize=True" in found.next_step


def test_a_loss_that_need_not_fall_is_not_asked():
    run = Recorded(np.linspace(1.0, 3.0, 80), "10", "linear")
    assert not isinstance(not_learning_answer(run, 0.98, 20), NotAsked)
    run.description = {"objective": "moving"}
    answer = not_learning_answer(run, 0.98, 20)
    assert isinstance(answer, NotAsked)
    assert not answer.applies
    assert 'objective="moving"' in answer.reason


def test_a_loss_that_reaches_zero_falls():
    assert read(np.maximum(np.linspace(1.0, -1.0, 80), 0.0)).verdict is Verdict.CONTRADICTED


def test_an_open_verdict_says_what_to_declare():
    answer = read(np.linspace(1.0, 3.0, 80))
    assert answer.verdict is Verdict.INCONCLUSIVE
    assert 'Tracer(..., objective="moving")' in answer.next_step
