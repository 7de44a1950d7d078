"""Planted differences between real trainings are named with step and layer, others are not."""

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from analyses.comparison.combination import combine
from analyses.comparison.divergence import beyond_seeds, fewest_seeds, first_difference
from analyses.comparison.first_divergence import ANALYSIS
from analyses.registry import NotApplicableError
from analyses.result import Verdict
from gradflow.runs.reading.run import Experiment

STEPS, CHANGED = 16, 9


def train(folder, planted="", seed=0, steps=STEPS):
    """Train a net of two hidden layers; the planted change is at step `CHANGED`."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)
    )
    groups = [{"params": list(layer.parameters())} for layer in (model[0], model[2], model[4])]
    optimizer = torch.optim.SGD(groups, lr=0.05)
    description = {"network": "net", "seed": seed}
    with gradflow.Tracer(model, folder, optimizer=optimizer, description=description) as tracer:
        for step in range(steps):
            x = torch.randn(16, 8)
            y = torch.randint(0, 4, (16,))
            if planted == "batch" and step == CHANGED:
                x = torch.randn(16, 8, generator=torch.Generator().manual_seed(99))
            if planted == "targets" and step == CHANGED:
                y = y.roll(1)
            if planted == "decay" and step == CHANGED:
                with torch.no_grad():
                    model[2].weight *= 0.99
            factor = 4.0 if planted == "strong rate" else 1.01
            changed = planted.endswith("rate") and step >= CHANGED
            optimizer.param_groups[1]["lr"] = 0.05 * (factor if changed else 1.0)
            loss = F.cross_entropy(model(x), y)
            tracer.log(loss=loss)
            loss.backward()
            if planted == "gradient" and step == CHANGED:
                model[0].weight.grad *= 1.001
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    return gradflow.open_run(folder)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return train(tmp_path_factory.mktemp("plain") / "run")


@pytest.mark.parametrize(
    ("planted", "name", "what"),
    [
        ("rate", "2.weight", "the update of 2.weight (norm)"),
        ("batch", "0", "the output of 0 (root mean square)"),
        ("targets", "loss", "the loss"),
        ("decay", "2.weight", "the norm of 2.weight"),
        ("gradient", "0.weight", "the update of 0.weight (norm)"),
    ],
)
def test_one_seed_and_a_changed_line_name_step_and_layer(tmp_path, plain, planted, name, what):
    found = first_difference(plain, train(tmp_path / "run", planted))
    assert (found.place.step, found.place.name, found.place.what) == (CHANGED, name, what)
    assert found.before == 0.0


def test_the_rate_shows_with_its_factor(tmp_path, plain):
    place = first_difference(plain, train(tmp_path / "run", "rate")).place
    assert place.second / place.first == pytest.approx(1.01, rel=1e-4)


def test_equal_runs_diverge_nowhere(tmp_path, plain):
    found = first_difference(plain, train(tmp_path / "run"))
    assert (found.place, found.before, found.drifts_from, found.steps) == (None, 0.0, None, STEPS)


def noisy(run, growth):
    """`run` with gradient norms that differ by 1e-7 at first and `growth` times more each step."""
    other = gradflow.open_run(run.folder)
    rows = run.gradients
    other._tables["gradients"] = rows.assign(
        norm=rows["norm"] * (1 + 1e-7 * growth ** rows["step"])
    )
    return other


def test_rounding_that_grows_is_a_drift_and_no_place(plain):
    assert first_difference(plain, noisy(plain, 1.0)).drifts_from is None
    found = first_difference(plain, noisy(plain, 3.0))
    assert found.place is None
    assert found.drifts_from == 5  # 1e-7 * 3^5 is the first above 1e-5


def test_a_jump_stands_out_of_rounding(plain):
    other = noisy(plain, 1.0)
    rows = other._tables["gradients"]
    there = (rows["step"] == 11) & (rows["layer"] == "2")
    other._tables["gradients"] = rows.assign(norm=rows["norm"].where(~there, 2 * rows["norm"]))
    place = first_difference(plain, other).place
    assert (place.step, place.name) == (11, "2")


def test_a_layer_that_did_not_run_in_one_of_them_is_a_place(plain):
    other = gradflow.open_run(plain.folder)
    rows = other.activations
    other._tables["activations"] = rows[(rows["step"] != 7) | (rows["layer"] != "2")]
    place = first_difference(plain, other).place
    assert (place.step, place.name) == (7, "2")


def test_runs_without_a_common_step_are_not_compared(plain):
    other = gradflow.open_run(plain.folder)
    for name in ("activations", "gradients", "parameters", "steps"):
        rows = getattr(plain, name)
        other._tables[name] = rows.assign(step=rows["step"] + 1000)
    assert first_difference(plain, other) is None


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Twelve runs: four of other seeds without a change, as often again, and four with one."""
    folder = tmp_path_factory.mktemp("seeds")
    return {
        (planted, seed): train(folder / f"{planted or 'plain'}-{seed}", planted, seed)
        for planted, first in (("", 0), ("strong rate", 8))
        for seed in range(first, first + (8 if not planted else 4))
    }


def test_groups_of_seeds_differ_first_where_the_change_is(seeds):
    plain = [seeds["", seed] for seed in range(4)]
    place, assignments = beyond_seeds(plain, [seeds["strong rate", seed] for seed in range(8, 12)])
    assert assignments == 70
    assert place.step == CHANGED
    assert place.what in ("the update of 2.weight (norm)", "the update of 2.bias (norm)")
    assert 2 < place.second / place.first < 8


def test_groups_of_seeds_without_a_change_differ_nowhere(seeds):
    plain = [seeds["", seed] for seed in range(8)]
    place, _ = beyond_seeds(plain[:4], plain[4:])
    assert place is None


def test_too_few_seeds_say_nothing(seeds):
    plain = [seeds["", seed] for seed in range(6)]
    assert fewest_seeds() == 4
    assert beyond_seeds(plain[:3], plain[3:]) is None


def experiment(folder, runs):
    made = [
        Experiment(folder / str(place), {"runs": [one.name]}, (one,))
        for place, one in enumerate(runs)
    ]
    return combine(made, folder)


def test_the_question_says_it_in_words(tmp_path, plain):
    changed = train(tmp_path / "changed", "rate")
    result = ANALYSIS.run(experiment(tmp_path, [plain, changed]))
    (finding,) = result.findings
    assert finding.verdict is Verdict.SUPPORTED
    assert f"differ first in step {CHANGED}, in the update of 2.weight (norm)" in finding.meaning
    assert finding.next_step.startswith(
        "Look at what updates 2.weight in step 9: its learning rate"
    )
    assert isinstance(result.tables[0].frame, pd.DataFrame)
    assert result.tables[0].frame["step"].tolist() == [CHANGED]


def test_the_question_needs_a_seed_in_common(tmp_path, plain):
    other = train(tmp_path / "other", seed=1)
    with pytest.raises(NotApplicableError, match="no two runs share network, seed"):
        ANALYSIS.run(experiment(tmp_path, [plain, other]))
    with pytest.raises(NotApplicableError, match="a single experiment"):
        ANALYSIS.run(experiment(tmp_path, [plain, other]).members[0])
