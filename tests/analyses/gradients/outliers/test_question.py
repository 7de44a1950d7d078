import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import gradflow
from analyses.gradients.outliers.figures import MOST_GROUPS, shown_groups
from analyses.gradients.outliers.measure import COMPARED, grouped_values
from analyses.gradients.outliers.question import MOST_OUTLIERS, farthest, run
from analyses.registry import NotApplicableError
from gradflow.runs.format.schema import TABLES
from gradflow.runs.reading.run import open_experiment
from gradflow.runs.writing.run import ExperimentWriter, RunWriter

BLOCKS = 120
NAMES = [f"blocks.{place}.fc" for place in range(BLOCKS)]
GRADIENT = COMPARED[0]


@pytest.fixture
def experiment_of(tmp_path):
    """Writes runs of `names`; values are [epochs, steps, layers], root mean squares of gradients.

    Each run is (network, seed, names, values).
    """

    def write(*runs):
        ExperimentWriter(tmp_path, {"runs": [f"run{place}" for place in range(len(runs))]})
        for place, (network, seed, names, values) in enumerate(runs):
            writer = RunWriter(tmp_path / f"run{place}", {"network": network, "seed": seed})
            writer.write_layers(
                {
                    "layer": names,
                    "type": ["Linear"] * len(names),
                    "depth": range(1, len(names) + 1),
                    "stage": [0] * len(names),
                    "role": ["linear"] * len(names),
                    "shape": ["16"] * len(names),
                    "parameters": [256] * len(names),
                }
            )
            epochs, steps, layers = values.shape
            columns = {one.name: np.ones(values.size) for one in TABLES["gradients"].columns}
            columns["epoch"] = np.repeat(np.arange(epochs) + 1, steps * layers)
            columns["step"] = np.repeat(np.arange(epochs * steps), layers)
            columns["layer"] = list(names) * (epochs * steps)
            columns["rms"] = values.ravel()
            for one in TABLES["gradients"].columns:
                if one.dtype.startswith("int"):
                    columns[one.name] = np.asarray(columns[one.name]).astype(int)
            writer.append("gradients", columns, 0, epochs * steps - 1)
            writer.close("complete")
        return open_experiment(tmp_path)

    return write


def spread(epochs=2, steps=3, layers=BLOCKS, seed=0):
    return np.exp(0.2 * np.random.default_rng(seed).normal(size=(epochs, steps, layers)))


def test_values_are_medians_over_the_last_epoch_and_the_seeds(experiment_of):
    one, other = spread(seed=1), spread(seed=2)
    experiment = experiment_of(("deep", 1, NAMES, one), ("deep", 2, NAMES, other))
    found = grouped_values("deep", list(experiment.runs), GRADIENT)
    expected = np.median(np.concatenate([one[-1], other[-1]]), axis=0)
    assert list(found.values["name"]) == NAMES
    np.testing.assert_allclose(found.values["value"], expected)
    (row,) = found.groups.to_dict("records")
    assert row["group"] == "blocks.*.fc"
    assert row["members"] == BLOCKS
    for name, value in (("median", np.median), ("lowest", np.min), ("highest", np.max)):
        assert row[name] == pytest.approx(value(expected))
    assert found.epoch == 2


def test_outliers_on_both_sides_are_named_farthest_first(experiment_of):
    values = spread()
    values[:, :, 7] *= 20
    values[:, :, 90] /= 1000
    result = run(experiment_of(("deep", 1, NAMES, values)))
    (finding,) = result.findings
    assert finding.verdict == "supported"
    assert finding.estimates[0].value == 2
    outliers = result.tables[0].frame
    assert list(outliers["name"]) == ["blocks.90.fc", "blocks.7.fc"]
    medians = np.median(values[-1], axis=0)
    assert list(outliers["value"]) == pytest.approx([medians[90], medians[7]])
    assert finding.meaning.index("blocks.90.fc") < finding.meaning.index("blocks.7.fc")
    assert f"of {BLOCKS} layers in 1 group, 2 are far" in finding.meaning
    assert "2 values far from those" in result.figures[0].title


def test_alike_layers_contradict_it(experiment_of):
    result = run(experiment_of(("deep", 1, NAMES, spread())))
    assert result.findings[0].verdict == "contradicted"
    assert result.tables[0].frame.empty


def test_an_outlier_of_an_earlier_epoch_is_none_at_the_last(experiment_of):
    values = spread()
    values[0, :, 7] *= 100
    assert run(experiment_of(("deep", 1, NAMES, values))).findings[0].verdict == "contradicted"


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_values_without_logarithm_are_left_to_the_health_check(experiment_of, value):
    values = spread()
    values[:, :, 3] = value
    result = run(experiment_of(("deep", 1, NAMES, values)))
    assert result.findings[0].verdict == "contradicted"
    result.figures[0].draw()


def test_a_group_of_few_is_not_judged(experiment_of):
    values = spread()
    values[:, :, 3] *= 1000
    names = [f"stem.{place}.fc" if place < 7 else name for place, name in enumerate(NAMES)]
    assert run(experiment_of(("deep", 1, names, values))).findings[0].verdict == "contradicted"


def test_of_many_outliers_the_farthest_are_listed_and_all_counted(experiment_of):
    values = spread()
    far = np.arange(0, BLOCKS, 5)
    values[:, :, far] *= 10.0 ** (3 + np.arange(len(far)) / 10)
    result = run(experiment_of(("deep", 1, NAMES, values)))
    table = result.tables[0]
    assert len(far) > MOST_OUTLIERS == len(table.frame)
    assert table.title.startswith(f"{MOST_OUTLIERS} of the {len(far)} values")
    assert table.frame["name"].iloc[0] == f"blocks.{far[-1]}.fc"
    assert f"and {len(far) - 5} more" in result.findings[0].meaning


def test_of_many_groups_those_with_outliers_are_shown(experiment_of):
    names = [f"part{chr(97 + group % 26)}{chr(97 + group // 26)}.{place}.fc"
             for group in range(60) for place in range(8)]  # fmt: skip
    values = spread(layers=len(names))
    values[:, :, 55 * 8 + 2] *= 1000
    experiment = experiment_of(("deep", 1, names, values))
    found = grouped_values("deep", list(experiment.runs), GRADIENT)
    shown = shown_groups(found)
    assert len(found.groups) == 60
    assert len(shown) == MOST_GROUPS
    assert "partdc.*.fc" in shown
    result = run(experiment)
    assert all(len(table.frame) <= MOST_GROUPS for table in result.tables)
    assert f"{MOST_GROUPS} of the 60 groups are drawn" in result.figures[0].caption
    (axis,) = result.figures[0].draw().axes
    assert len(axis.get_yticks()) == MOST_GROUPS


def test_only_networks_of_many_layers_are_compared(experiment_of):
    few = ("shallow", 1, NAMES[:20], spread(layers=20))
    result = run(experiment_of(("deep", 1, NAMES, spread()), few))
    assert [finding.network for finding in result.findings] == ["deep"]
    assert set(result.tables[1].frame["network"]) == {"deep"}


def test_without_a_deep_network_it_does_not_apply(experiment_of):
    with pytest.raises(NotApplicableError, match="more than 100 layers"):
        run(experiment_of(("shallow", 1, NAMES[:20], spread(layers=20))))


def test_outliers_of_one_quantity_do_not_hide_those_of_another():
    outliers = pd.DataFrame(
        {"quantity": ["a"] * 6 + ["b", "a", "c", "b"], "name": list("0123456789")}
    )
    assert list(farthest(outliers, 3)["name"]) == ["0", "6", "8"]
    assert list(farthest(outliers, 6)["name"]) == ["0", "1", "2", "6", "8", "9"]
    assert len(farthest(outliers, 99)) == len(outliers)


@pytest.mark.parametrize("option", ["updates_every", "parameters_every"])
def test_with_turns_all_parameters_are_compared_each_by_as_many_turns(tmp_path, option):
    """In the last epoch half of them have a turn, in other steps."""
    torch.manual_seed(0)
    layers = [nn.Linear(4, 4, bias=False) for _ in range(12)]
    optimizer = torch.optim.SGD((one.weight for one in layers), lr=0.01)
    model = nn.Sequential(*layers)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, **{option: 8}) as tracer:
        for step in range(20):
            optimizer.zero_grad()
            model(torch.ones(2, 4)).square().sum().backward()
            optimizer.step()
            if step % 4 == 3:
                tracer.end_epoch()
    recorded = gradflow.open_run(tmp_path / "run")
    found = grouped_values("net", [recorded], COMPARED[-1])
    assert found.epoch == 4  # of steps 12 to 15, where the second round ends
    ratios = recorded.parameters[recorded.parameters.step.between(8, 15)].dropna(
        subset=["update_to_weight"]
    )
    expected = ratios.set_index("parameter").update_to_weight
    assert len(expected) == len(layers)
    values = found.values.set_index("name").value
    assert values.to_dict() == pytest.approx(expected.to_dict())
    weights = grouped_values("net", [recorded], COMPARED[2])
    assert len(weights.values) == len(layers)
    assert weights.epoch == (5 if option == "updates_every" else 4)


@pytest.mark.parametrize("options", [{}, {"updates_every": 4}, {"parameters_every": 4}], ids=str)
def test_it_is_said_where_values_are_those_of_whole_rounds_of_turns(tmp_path, options):
    model = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(101)))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, **options):
        for _ in range(4):
            optimizer.zero_grad()
            model(torch.ones(2, 2)).sum().backward()
            optimizer.step()
    method = str(run(open_experiment(tmp_path / "run")).method)
    assert ("measured of parameters in turns" in method) == bool(options)
