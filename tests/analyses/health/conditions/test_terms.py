"""Terms that drown or hold up each other: planted, and in trainings of several kinds."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional

import gradflow
from analyses.health.condition import NotAsked
from analyses.health.conditions import read_health
from analyses.health.conditions.terms import CONFLICTING, DOMINATED, TermBounds
from analyses.health.question import all_findings
from analyses.reading.loss_terms import loss_terms
from analyses.result import Verdict

STEPS = 24
LAYERS, PARAMETERS = ("enc", "mid", "out"), ("enc.weight", "mid.weight")


class Planted:
    """A run of two terms: `strong` with gradients of `ratio`, `weak` with gradients of 1.

    Args:
        ratio, cosine: a number, or one for each step.
        values: first and last value of `strong` and `weak`; between them it goes evenly.
        weights: of the two, or none.
        layers: those that both reach.
    """

    def __init__(
        self, ratio=1.0, cosine=0.0, values=((1, 0.1), (1, 0.1)), weights=None, layers=LAYERS
    ):
        ratios, cosines = (np.broadcast_to(one, STEPS) for one in (ratio, cosine))
        noise = np.random.default_rng(0).normal(1, 0.02, STEPS)
        terms, pairs = [], []
        for step in range(STEPS):
            places = [("layer", one) for one in layers] + [("parameter", one) for one in PARAMETERS]
            for kind, place in [("model", "all parameters"), *places]:
                at = {"epoch": 1, "step": step, "kind": kind, "place": place}
                for which, name in enumerate(("strong", "weak")):
                    first, last = values[which]
                    terms.append({
                        **at, "term": name,
                        "gradient_norm": 1.0 if which else ratios[step] * noise[step],
                        "share": 0.5, "contribution": 0.5, "sum_norm": 1.0, "sum_error": None,
                        "value": first + (last - first) * step / (STEPS - 1),
                        "weight": None if weights is None else weights[which],
                    })  # fmt: skip
                if kind != "model":
                    pairs.append({
                        **at, "term": "strong", "other": "weak", "cosine": cosines[step],
                        "norm_ratio": ratios[step] * noise[step],
                    })  # fmt: skip
        self.tables = {"terms": pd.DataFrame(terms), "term_pairs": pd.DataFrame(pairs)}

    def table(self, name):
        return self.tables[name]


def answer(run, condition=DOMINATED):
    answers = {one.condition: one for one in condition.read(run, TermBounds())}
    return answers[condition.key]


FALLING, FLAT, SMALL = (1, 0.3), (1, 1), (0.004, 0.005)


@pytest.mark.parametrize(
    ("run", "verdict"),
    [
        (Planted(3, values=(FALLING, FALLING)), Verdict.CONTRADICTED),
        (Planted(300, values=(FALLING, (1, 0.6))), Verdict.SUPPORTED),
        (Planted(300, values=((10, 9), (1, 0.02))), Verdict.CONTRADICTED),
        (Planted(300, values=(FALLING, SMALL)), Verdict.INCONCLUSIVE),
        (Planted(300, values=(FALLING, SMALL), weights=(1, 0.001)), Verdict.CONTRADICTED),
        (Planted(300, values=(FALLING, SMALL), weights=(1, 1)), Verdict.SUPPORTED),
        (Planted(300, values=(FALLING, FLAT), weights=(1, 1)), Verdict.SUPPORTED),
        (Planted(np.geomspace(1e4, 3, STEPS), values=(FALLING, (0, 0.1))), Verdict.CONTRADICTED),
        (Planted(1 / 300, values=(FLAT, FALLING), weights=(1, 1)), Verdict.SUPPORTED),
        (Planted(300, values=((10, 9), (1, 0.5)), weights=(1e4, 1)), Verdict.SUPPORTED),
        (Planted(300, values=((10, 9), (1, 0.05)), weights=(1e4, 1)), Verdict.CONTRADICTED),
        (Planted(300, values=((10, 9), (1, 0.5)), weights=(20, 1)), Verdict.CONTRADICTED),
        (Planted(300, values=((10, 9), (0.1, 0.1)), weights=(1e4, 1e-3)), Verdict.CONTRADICTED),
    ],
    ids=[
        "alike",
        "a term to be learned is drowned",
        "learned all the same",
        "a regularizer, or not",
        "a regularizer with its weight",
        "small without its weight being so",
        "a term that does not fall",
        "warm-up",
        "the other way round",
        "a weight that drowns it though it falls",
        "a large weight, and it is learned",
        "a usual weight, and it falls",
        "a small weight beside a large one",
    ],
)
def test_whether_a_term_is_drowned(run, verdict):
    assert answer(run).verdict is verdict


def test_what_is_said_of_a_term_that_is_drowned():
    found = answer(Planted(np.repeat([2, 300], STEPS // 2), values=(FALLING, (1, 0.6))))
    assert found.since == STEPS // 2
    assert found.said.startswith("the gradient of strong is 30")
    assert (
        "In 3 of 3 layers that both reach, strong outweighs weak more than 50 times" in found.cause
    )
    assert "The term weak went from 1 to 0.6" in found.cause
    assert 'tracer.terms({"weak": (weight, term), ...})' in found.otherwise


def test_an_open_verdict_says_what_to_give():
    found = answer(Planted(300, values=(FALLING, SMALL)))
    assert "may be meant to count so little" in found.note
    assert found.next_step.startswith("Give the terms with their weights")


def test_terms_that_meet_in_no_layer_are_not_compared():
    found = answer(Planted(300, layers=()))
    assert isinstance(found, NotAsked)
    assert not found.applies


@pytest.mark.parametrize(
    ("run", "verdict"),
    [
        (Planted(cosine=-0.5, values=(FLAT, FALLING)), Verdict.SUPPORTED),
        (Planted(cosine=0.4, values=(FLAT, FALLING)), Verdict.CONTRADICTED),
        (Planted(cosine=[(-1) ** k * 0.6 for k in range(STEPS)], values=(FLAT, FLAT)), None),
        (Planted(cosine=-0.5, values=((1, 0.1), (1, 0.1))), Verdict.CONTRADICTED),
        (Planted(cosine=-0.9, values=((1, 0.3), (0.001, 0.3))), Verdict.CONTRADICTED),
        (Planted(cosine=np.linspace(0.3, -1, STEPS), values=(FLAT, FALLING)), Verdict.CONTRADICTED),
    ],
    ids=[
        "opposed",
        "together",
        "scattered about 0",
        "opposed, and both learned",
        "a divergence that began at 0",
        "at a minimum",
    ],
)
def test_whether_two_terms_hold_each_other_up(run, verdict):
    found = answer(run, CONFLICTING)
    if verdict is None:
        assert found.verdict is not Verdict.SUPPORTED
    else:
        assert found.verdict is verdict


def test_the_layer_that_conflicts_most_is_named():
    run = Planted(cosine=-0.5, values=(FLAT, FALLING))
    pairs = run.tables["term_pairs"]
    pairs.loc[(pairs["place"] == "enc.weight") & (pairs["step"] % 2 == 0), "cosine"] = 0.1
    found = answer(run, CONFLICTING)
    assert "They conflict most at mid: in 100.0 % of the measured steps" in found.cause
    scores = loss_terms(run).conflict_scores(("strong", "weak"))
    assert scores.to_dict() == {"enc": 0.5, "mid": 1.0}


def test_the_cosine_over_all_shared_parameters_is_that_of_the_joined_gradients():
    one = {"enc.weight": np.array([3.0, 1.0]), "mid.weight": np.array([-1.0, 2.0, 0.5])}
    other = {"enc.weight": np.array([1.0, -2.0]), "mid.weight": np.array([0.5, 4.0, 1.0])}
    run = Planted()
    terms, pairs = run.tables["terms"], run.tables["term_pairs"]
    for name in PARAMETERS:
        for term, gradient in (("strong", one), ("weak", other)):
            rows = (terms["place"] == name) & (terms["term"] == term)
            terms.loc[rows, "gradient_norm"] = np.linalg.norm(gradient[name])
        size = np.linalg.norm(one[name]) * np.linalg.norm(other[name])
        pairs.loc[pairs["place"] == name, "cosine"] = one[name] @ other[name] / size
    found = loss_terms(run).shared_cosines(("strong", "weak"))
    a, b = (np.concatenate(list(each.values())) for each in (one, other))
    assert found.tolist() == pytest.approx([a @ b / np.linalg.norm(a) / np.linalg.norm(b)] * STEPS)


class TwoTasks(nn.Module):
    """Classes, and a number, from one trunk."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU())
        self.classes, self.number = nn.Linear(24, 4), nn.Linear(24, 1)

    def forward(self, x):
        x = self.trunk(x)
        return self.classes(x), self.number(x)


def trained(folder, scale, opposed=0.0):
    """Train on two tasks; `scale` is that of the number, `opposed` the weight of wrong classes."""
    torch.manual_seed(0)
    model = TwoTasks()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    with gradflow.Tracer(model, folder, optimizer=optimizer, terms=1, schedule=4) as tracer:
        for _ in range(100):
            x = torch.randn(32, 8)
            classes = 2 * (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
            scores, number = model(x)
            right = functional.cross_entropy(scores, classes)
            other = functional.mse_loss(number, scale * x[:, 2:3])
            if opposed:
                other = opposed * functional.cross_entropy(scores, 3 - classes)
            tracer.terms({"classes": (1.0, right), "other": (1.0, other)})
            (right + other).backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    return gradflow.open_run(folder)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"scale": 1.0}, set()),
        ({"scale": 1000.0}, {"dominated"}),
        ({"scale": 1.0, "opposed": 0.9}, {"conflicting"}),
    ],
)
def test_trainings_of_two_tasks(tmp_path, options, found):
    run = trained(tmp_path / "run", **options)
    readings = [one for one in read_health(run) if one.condition in ("dominated", "conflicting")]
    assert len(readings) == 2
    assert {one.condition for one in readings if one.verdict is Verdict.SUPPORTED} == found
    if found == {"dominated"}:
        (said,) = [
            one
            for one in all_findings(gradflow.open_experiment(tmp_path / "run"))
            if one.key.startswith("dominated")
        ]
        assert "one term of the loss drowns another" in said.meaning
        assert "the gradient of other is" in said.meaning
