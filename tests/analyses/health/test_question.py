"""Small traced models with one fault each, and healthy models that look ill at first."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from analyses.health.conditions import CONDITIONS, Thresholds, read_health
from analyses.health.conditions.units import mean_slope
from analyses.health.question import ANALYSIS, all_findings, run
from analyses.registry import NotApplicableError
from analyses.result import Verdict

STEPS = 18


@pytest.fixture
def trace(tmp_path):
    """Trains `model` under the tracer, as a user's script does, and opens the run."""

    def traced(model, rate=0.02, *, before=lambda step: None, parameters=None, factor=None):
        torch.manual_seed(0)
        optimizer = torch.optim.SGD(parameters or model.parameters(), lr=rate)
        inputs, targets = torch.randn(48, 16), torch.randint(0, 4, (48,))
        with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
            for step in range(STEPS):
                before(step)
                if factor is not None:
                    optimizer.param_groups[0]["lr"] = rate * factor(step / STEPS)
                given = inputs + 1e-4 * torch.randn_like(inputs)  # no two batches are the same
                F.cross_entropy(model(given), targets).backward()
                optimizer.step()
                optimizer.zero_grad()
            tracer.end_epoch()
        return gradflow.open_experiment(tmp_path / "run")

    return traced


def chain(depth, activation=nn.ReLU, gain=2.0, width=48):
    """Weights N(0, gain / inputs) and zero biases, in a chain of equal width."""
    torch.manual_seed(1)
    sizes = [16, *[width] * depth]
    parts = []
    for inputs, outputs in pairwise(sizes):
        linear = nn.Linear(inputs, outputs)
        nn.init.normal_(linear.weight, 0, (gain / inputs) ** 0.5)
        nn.init.zeros_(linear.bias)
        parts += [linear, activation()]
    return nn.Sequential(*parts, nn.Linear(width, 4))


class Block(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.branch = nn.Sequential(
            nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width)
        )
        self.last = nn.BatchNorm1d(width)
        nn.init.zeros_(self.last.weight)

    def forward(self, x):
        return x + self.last(self.branch(x))


def found(experiment, **bounds):
    findings = all_findings(experiment, Thresholds(**bounds) if bounds else None)
    return {finding.topic for finding in findings if finding.verdict is Verdict.SUPPORTED}


def reading(experiment, condition):
    return {one.condition: one for one in read_health(experiment.runs[0])}[condition]


def test_a_moderate_network_is_healthy(trace):
    assert found(trace(chain(5))) == {"healthy"}


def test_small_weights_vanish_by_their_factor(trace):
    """He's weights times 0.3: the norm falls by 0.3 a layer, ten layers."""
    experiment = trace(chain(10, gain=2 * 0.3**2))
    assert "vanishing" in found(experiment)
    assert reading(experiment, "vanishing").since == 0
    assert np.log10(reading(experiment, "vanishing").value) == pytest.approx(
        10 * np.log10(0.3), abs=1
    )


def test_the_default_initialization_vanishes_though_its_weight_gradients_look_level(trace):
    """Exact case 8: outputs' gradients fall by 6^(-depth/2)."""
    torch.manual_seed(1)
    model = chain(12)
    for layer in model:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
            nn.init.zeros_(layer.bias)
    experiment = trace(model, rate=1e-3)
    assert "vanishing" in found(experiment)
    weights = experiment.runs[0].parameters.query("step == 0").set_index("parameter")
    ratio = weights["gradient_norm"]["2.weight"] / weights["gradient_norm"]["22.weight"]
    assert 0.1 < ratio < 10


def test_large_weights_explode(trace):
    assert "exploding" in found(trace(chain(8, gain=2 * 3.0**2), rate=1e-12))


def test_a_residual_network_whose_branches_start_closed_is_healthy(trace):
    """Exact case 7: with a last gamma of zero nothing vanishes along the trunk."""
    model = nn.Sequential(nn.Linear(16, 32), *[Block() for _ in range(4)], nn.Linear(32, 4))
    experiment = trace(model)
    assert found(experiment) == {"healthy"}
    gradients = experiment.runs[0].gradients.query("step == 0").set_index("layer")["norm"]
    assert gradients["0"] == pytest.approx(gradients["4"], rel=1e-5)
    assert reading(experiment, "vanishing").early_value == pytest.approx(1, abs=0.2)


def test_negative_biases_make_a_layer_dead(trace):
    model = chain(4)
    nn.init.constant_(model[2].bias, -20.0)
    experiment = trace(model)
    assert "dead" in found(experiment)
    assert reading(experiment, "dead").layer == "3"
    assert reading(experiment, "dead").value == 1
    assert "weights had a gradient of exactly zero" in reading(experiment, "stalled").note


def test_large_inputs_saturate_tanh(trace):
    model = chain(3, nn.Tanh, gain=1.0)
    with torch.no_grad():
        model[2].weight *= 80
    experiment = trace(model, rate=1e-4)
    assert "saturated" in found(experiment)
    assert reading(experiment, "saturated").layer == "3"


@pytest.mark.parametrize("kind", [nn.Tanh, nn.Sigmoid])
def test_the_mean_derivative_comes_from_recorded_moments(trace, kind):
    torch.manual_seed(2)
    model = chain(2, kind, gain=3.0)
    torch.manual_seed(0)
    inputs = torch.randn(48, 16)
    hidden = model[0](inputs).detach().requires_grad_()
    (slope,) = torch.autograd.grad(kind()(hidden).sum(), hidden)
    largest = 1.0 if kind is nn.Tanh else 0.25
    experiment = trace(model, rate=1e-9)
    measured = mean_slope(experiment.runs[0])["1"].iloc[0]
    assert measured == pytest.approx(float(slope.mean()) / largest, rel=1e-4)


def test_the_first_value_that_is_not_finite_is_placed(trace):
    model = chain(4)

    def spoil(step):
        if step == 7:
            with torch.no_grad():
                model[4].weight[0, 0] = float("inf")

    experiment = trace(model, before=spoil)
    result = ANALYSIS.run(experiment)
    assert "non-finite" in found(experiment)
    finding = next(one for one in result.findings if one.key.startswith("non-finite"))
    assert "step 7 of epoch 1, the output of layer 4 (forward pass)" in " ".join(finding.caveats)


def test_values_are_not_finite_since_the_first_such_step(trace):
    model = chain(4)

    def spoil(step):
        if step in (3, 9):
            with torch.no_grad():
                model[4].weight[0, 0] = float("inf") if step == 9 else 0.0

    assert reading(trace(model, before=spoil), "non-finite").since == 9


def test_a_head_alone_on_a_frozen_body_is_healthy(trace):
    model = chain(4)
    model[:-1].requires_grad_(False)
    experiment = trace(model, parameters=model[-1].parameters())
    assert found(experiment) == {"healthy"}
    reasons = run(experiment).tables[1].frame.set_index("not asked")["for"]
    assert reasons["vanishing"] == "fewer than two layers with weights are trained"


def test_without_updates_a_network_cannot_be_called_healthy(tmp_path):
    torch.manual_seed(0)
    model = chain(3)
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        for _ in range(STEPS):
            model(torch.randn(48, 16)).square().mean().backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.sub_(0.02 * parameter.grad)
            tracer.step()
            model.zero_grad()
        tracer.end_epoch()
    healthy = run(gradflow.open_experiment(tmp_path / "run")).findings[0]
    assert healthy.verdict is Verdict.INCONCLUSIVE
    assert "not asked was not-updated (no optimizer was given to the tracer)." in healthy.meaning


def test_a_tiny_learning_rate_stalls(trace):
    assert found(trace(chain(3), rate=1e-9)) == {"stalled"}


def test_a_warm_up_is_not_called_stalled(trace):
    assert found(trace(chain(3), factor=lambda part: part**3)) == {"healthy"}


def test_frozen_parameters_and_those_left_out_are_not_stalled(trace):
    model = chain(4)
    model[0].requires_grad_(False)
    rest = [weight for name, weight in model.named_parameters() if not name.startswith(("0", "2"))]
    experiment = trace(model, parameters=rest)
    assert found(experiment) == {"not-updated"}
    assert reading(experiment, "not-updated").layer == "2"
    assert reading(experiment, "stalled").note == ""


def test_a_condition_of_the_first_steps_only_is_named_so(trace):
    model = chain(4)
    nn.init.constant_(model[2].bias, -20.0)

    def revive(step):
        if step == 8:
            nn.init.zeros_(model[2].bias)

    experiment = trace(model, before=revive)
    assert "dead" not in found(experiment)
    assert reading(experiment, "dead").when == "in the first steps only"


def test_thresholds_are_arguments(trace):
    experiment = trace(chain(5))
    assert "stalled" in found(experiment, stalled=0.5)
    assert "vanishing" in found(experiment, vanishing=50.0)


def test_sizes_that_change_do_not_look_like_vanishing(trace):
    """A raw norm falls where a map of 64 positions is averaged; nothing vanishes there."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Unflatten(1, (1, 4, 4)),
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(16, 24, 1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(24, 32, 1),
        nn.Flatten(),
        nn.Linear(32, 4),
    )
    experiment = trace(model)
    assert not found(experiment) & {"vanishing", "exploding"}


def test_noise_is_asked_where_it_was_recorded(build):
    experiment = build.experiment(build.plan())
    folder = experiment.runs[0].folder / "noise_scale"
    folder.mkdir()
    rows = [
        {"epoch": 1, "draw": draw, "noise": 24 * (500 + draw), "squared_gradient": 1.0}
        for draw in range(6)
    ]
    pd.DataFrame(rows).to_parquet(folder / "part-0000000000-0000000029.parquet")
    experiment = gradflow.open_experiment(experiment.folder)
    one = reading(experiment, "noisy")
    assert one.verdict is Verdict.SUPPORTED
    assert one.value == pytest.approx(502.5)  # the mean of noise / (gradient * batch of 24)
    healthy = run(experiment).findings[0]
    assert healthy.key.startswith("healthy")
    assert healthy.verdict is Verdict.SUPPORTED  # noise alone is no illness


def test_without_records_it_does_not_apply(build):
    without = ("gradients", "activations", "parameters")
    with pytest.raises(NotApplicableError, match="no run recorded"):
        ANALYSIS.run(build.experiment(build.plan(without=without)))


def test_the_figure_names_what_was_found(trace):
    result = ANALYSIS.run(trace(chain(3), rate=1e-9))
    assert result.figures[0].title == "Found: stalled in Sequential"
    texts = [text.get_text() for text in result.figures[0].draw().axes[0].texts]
    assert any(text.startswith("found") for text in texts)


def test_what_the_gradient_profile_asks_of_all_training_is_left_to_it(trace):
    experiment = trace(chain(10, gain=2 * 0.3**2))
    result = ANALYSIS.run(experiment)
    asked = {one.topic for one in all_findings(experiment)}
    left_out = asked - {one.topic for one in result.findings}
    mistakes = {key for key, one in CONDITIONS.items() if one.only_if_present and key in asked}
    assert left_out == {"vanishing", "exploding"} | mistakes
    assert mistakes <= set(result.tables[0].frame["condition"])
    assert {"vanishing", "exploding"} <= set(result.tables[0].frame["condition"])
    assert "vanishing" in result.summary
