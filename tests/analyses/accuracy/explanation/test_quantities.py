"""Quantities by epoch are logarithms of medians."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import gradflow
from analyses.accuracy.explanation.quantities import epoch_quantities, staleness


def test_quantities_of_an_epoch_are_logarithms_of_medians(build):
    experiment = build.experiment(build.plan("resnet8", factor=0.8, skip_share=0.6))
    quantities = epoch_quantities(experiment.runs[0])
    assert list(quantities.index) == [1, 2, 3]
    assert quantities["factor per layer"].tolist() == pytest.approx([np.log(0.8)] * 3)
    first = quantities["gradient at the first layer"].tolist()
    assert first == pytest.approx([7 * np.log(0.8)] * 3)
    assert quantities["share of the skips"].tolist() == pytest.approx([0.6] * 3)


def test_staleness_is_the_logarithm_of_the_median_over_layers(build, monkeypatch):
    run = build.experiment(build.plan()).runs[0]
    rows = {
        "epoch": [1, 1, 1, 2, 2, 2],
        "layer": ["a", "b", "c"] * 2,
        "mean_shift": [0.1, 0.2, 9.0, 0.0, 0.0, 0.0],
        "variance_shift": [1.0, 1.0, 1.0, 3.0, 2.0, 1.0],
    }
    monkeypatch.setattr(type(run), "table", lambda _, name: pd.DataFrame(rows))
    stale = staleness(run)
    assert stale["shift of the means"][1] == pytest.approx(np.log(0.2))
    assert np.isnan(stale["shift of the means"][2])
    assert stale["shift of the variances"].tolist() == pytest.approx([0.0, np.log(2)])


def test_a_run_without_doses_has_none(build):
    assert staleness(build.experiment(build.plan()).runs[0]).empty


def recorded(folder, *, epochs=6, steps=4, **options):
    """Train nine layers, of which the first five have weights four times as large."""
    torch.manual_seed(0)
    layers = [one for _ in range(9) for one in (nn.Linear(8, 8, bias=False), nn.Tanh())]
    model = nn.Sequential(*layers)
    with torch.no_grad():
        for layer in layers[:10:2]:
            layer.weight.mul_(4.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    with gradflow.Tracer(model, folder, optimizer=optimizer, **options) as tracer:
        for step in range(epochs * steps):
            optimizer.zero_grad()
            x = torch.randn(16, 8, generator=torch.Generator().manual_seed(step))
            (model(x) - 1).square().sum().backward()
            optimizer.step()
            if step % steps == steps - 1:
                tracer.end_epoch()
    return gradflow.open_run(folder)


@pytest.mark.parametrize("option", ["updates_every", "parameters_every"])
def test_with_turns_each_parameter_counts_as_often_as_any_other(tmp_path, option):
    """Half of them have a turn in an epoch: a median over these would be that of other weights."""
    whole = epoch_quantities(recorded(tmp_path / "whole"))
    run = recorded(tmp_path / "turns", **{option: 8})
    found = epoch_quantities(run)
    assert list(found["update to weight"].dropna().index) == [2, 4, 6]
    # After the first steps sizes change little in an epoch; weights differ by a factor of four.
    for name in ("update to weight", "gradient of all parameters"):
        known = found[name].dropna().loc[4:]
        assert known.to_numpy() == pytest.approx(whole[name][known.index].to_numpy(), abs=0.25)
    rows = run.parameters.dropna(subset=["update_to_weight"])
    naive = rows.groupby("epoch")["update_to_weight"].median().map(np.log)
    assert (naive - whole["update to weight"]).loc[4:].abs().max() > 0.5


def test_a_round_belongs_to_the_epoch_in_which_it_ends(tmp_path):
    run = recorded(tmp_path / "run", epochs=4, steps=5, updates_every=8)
    found = epoch_quantities(run)["update to weight"].dropna()
    ratios = run.parameters.set_index("step").update_to_weight
    expected = [np.log(ratios.loc[begin : begin + 7].median()) for begin in (0, 8)]
    assert list(found.index) == [2, 4]
    assert found.tolist() == pytest.approx(expected)
