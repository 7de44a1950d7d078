"""Clipping and groups, planted in the tables `steps` and `groups`."""

import numpy as np
import pytest
import torch
from torch import nn

import gradflow
from analyses.gradients.groups.measure import MAX_POINTS, network_groups
from analyses.gradients.groups.question import ANALYSIS
from analyses.registry import NotApplicableError
from gradflow.runs.format.schema import TABLES
from gradflow.runs.reading.run import open_experiment


def step_rows(factors, left=2.0, skipped=()):
    return [
        {
            "epoch": 1 + step // 10,
            "step": step,
            "scale": None,
            "skipped": step in skipped,
            "mode": "training",
            "loss": None,
            "backward_gradient_norm": left,
            "gradient_norm": None if factor is None else left * factor,
            "clipping_factor": factor,
        }
        for step, factor in enumerate(factors)
    ]


def group_rows(count, **norms):
    """Rows of groups whose gradients have these norms at every step."""
    empty = {quantity.name: None for quantity in TABLES["groups"].columns}
    return [
        empty
        | {
            "epoch": 1 + step // 10,
            "step": step,
            "group": name,
            "parameters": 4,
            "layers": 2,
            "gradient_norm": norm,
            "clipping_factor": 1.0,
            "update_to_weight": 0.001,
            "nonfinite": 1,
        }
        for step in range(count)
        for name, norm in norms.items()
    ]


@pytest.fixture
def planted(build):
    def make(*factors, skipped=(), groups=None):
        plans = []
        for place, one in enumerate(factors):
            tables = {"steps": step_rows(one, skipped=skipped)}
            if groups:
                tables["groups"] = group_rows(len(one), **groups)
            plans.append(build.plan(f"net{place}", probed=tables))
        return build.experiment(*plans)

    return make


def frames(result):
    return {table.key: table.frame for table in result.tables}


def test_the_share_of_clipped_steps_and_their_factors(planted):
    experiment = planted([1.0] * 6 + [0.5] * 3 + [0.1], [1.0] * 10)
    result = ANALYSIS.run(experiment)
    table = frames(result)["clipping"].set_index("network")
    assert table.loc["net0"].tolist() == [10, 0.4, 1.0, 0.1]
    assert table.loc["net1"].tolist() == [10, 0.0, 1.0, 1.0]
    assert "net0 received a changed gradient in 40.0 % of 10 recorded steps" in result.summary
    assert "Nothing changed the gradient of net1" in result.summary
    assert [figure.key for figure in result.figures] == ["clipping"]


def test_rounding_is_no_clipping_and_gradients_made_longer_are_a_change(planted):
    result = ANALYSIS.run(planted([1.0 - 1e-6] * 8 + [3.0] * 2))
    assert frames(result)["clipping"]["steps with a changed gradient"].tolist() == [0.2]


def test_steps_that_the_scaler_skipped_and_steps_without_a_factor_do_not_count(planted):
    result = ANALYSIS.run(planted([0.5, 0.5, np.inf, None, 1.0, 1.0], skipped={0}))
    table = frames(result)["clipping"].set_index("network").loc["net0"]
    assert table.tolist() == [3, pytest.approx(1 / 3), 1.0, 0.5]


def test_a_training_that_was_never_clipped_is_told_so(planted):
    with pytest.raises(NotApplicableError, match=r"nothing clipped .* 10 recorded steps"):
        ANALYSIS.run(planted([1.0] * 10))


def test_a_run_that_says_nothing_of_clipping_is_told_what_is_needed(build):
    with pytest.raises(NotApplicableError, match="give the Tracer the optimizer, or groups="):
        ANALYSIS.run(build.experiment(build.plan()))


def test_shares_of_groups_are_of_the_squared_norm_of_the_whole(planted):
    # The whole has norm 2: sqrt(3)^2 / 4 and 1^2 / 4.
    result = ANALYSIS.run(planted([1.0] * 10, groups={"small": 1.0, "large": 3**0.5}))
    table = frames(result)["groups"].set_index("group")
    assert list(table.index) == ["small", "large"]
    assert table["share of the square"].tolist() == pytest.approx([0.25, 0.75])
    assert table["update / weight"].tolist() == [0.001, 0.001]
    assert table["nonfinite values"].tolist() == [10, 10]
    assert "Of the groups of net0, large has the largest part" in result.summary
    assert [figure.key for figure in result.figures] == ["groups-net0"]


def test_groups_of_layers_alone_have_no_gradient_of_parameters(planted):
    result = ANALYSIS.run(planted([1.0] * 4, groups={"activations": None}))
    table = frames(result)["groups"]
    assert table["gradient norm"].isna().all()
    for figure in result.figures:
        figure.draw()


def test_more_groups_than_colours_are_all_in_the_table(planted):
    names = {f"group{place}": 1.0 for place in range(9)}
    result = ANALYSIS.run(planted([1.0] * 4, groups=names))
    assert len(frames(result)["groups"]) == 9
    (figure,) = result.figures
    assert "The first 6 groups" in figure.caption
    drawn = figure.draw()
    assert {len(axis.lines) for axis in drawn.axes} == {6}


def test_the_figure_draws_both_norms_of_each_network(planted):
    (figure,) = ANALYSIS.run(planted(*[[0.5] * 10] * 4)).figures
    drawn = figure.draw()
    shown = [axis for axis in drawn.axes if axis.get_visible()]
    assert len(shown) == 4
    left, received = shown[0].lines[:2]
    assert set(left.get_ydata()) == {2.0}
    assert set(received.get_ydata()) == {1.0}


def test_long_runs_are_drawn_by_medians_of_neighbouring_steps(planted):
    experiment = planted([0.5] * 1000)
    curve = network_groups("net0", list(experiment.runs)).curve
    assert MAX_POINTS / 2 < len(curve) <= MAX_POINTS
    assert curve["gradient_norm"].tolist() == [1.0] * len(curve)
    assert curve["step"].is_monotonic_increasing


@pytest.mark.parametrize("every", [1, 4])
def test_it_is_said_where_the_updates_of_a_group_are_those_of_a_round_of_turns(tmp_path, every):
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    options = {"optimizer": optimizer, "groups": {"all": "*"}, "updates_every": every}
    with gradflow.Tracer(model, tmp_path / "run", **options):
        for _ in range(8):
            optimizer.zero_grad()
            model(torch.ones(2, 4)).square().sum().backward()
            optimizer.step()
    method = str(ANALYSIS.run(open_experiment(tmp_path / "run")).method)
    assert ("Updates are measured in turns" in method) == (every > 1)
