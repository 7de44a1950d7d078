"""In a round of turns each parameter had its update measured once, also where a run goes on."""

import numpy as np
import pytest
import torch
from torch import nn

import gradflow
from analyses.reading.options import rounds_of_turns, rows_of_whole_rounds

EVERY = 4


def train(folder, steps, state=None, model=None, **options):
    torch.manual_seed(0)
    model = model or nn.Sequential(*(nn.Linear(3, 3, bias=False) for _ in range(6)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with gradflow.Tracer(model, folder, optimizer=optimizer, resume=state, **options) as tracer:
        for _ in steps:
            optimizer.zero_grad()
            model(torch.ones(2, 3)).sum().backward()
            optimizer.step()
        state = tracer.state_dict()
    return model, state


@pytest.mark.parametrize("option", ["updates_every", "parameters_every"])
def test_a_round_has_one_update_of_each_parameter(tmp_path, option):
    model, state = train(tmp_path / "run", range(6), **{option: EVERY})
    train(tmp_path / "run", range(6, 15), state, model, **{option: EVERY})
    run = gradflow.open_run(tmp_path / "run")
    rows = run.parameters.assign(round=rounds_of_turns(run))
    known = rows.dropna(subset=["round"])
    assert np.array_equal(known["round"], known.step // EVERY)
    assert rows[rows.step >= 12]["round"].isna().all()
    counts = rows.groupby(["round", "parameter"]).update_norm.count()
    assert len(counts) == 3 * 6
    assert (counts == 1).all()


def test_without_turns_all_rows_are_there_step_by_step(tmp_path):
    train(tmp_path / "run", range(3))
    run = gradflow.open_run(tmp_path / "run")
    rows = rows_of_whole_rounds(run)
    assert rows.drop(columns="time").equals(run.parameters)
    assert rows.time.equals(rows.step.rename("time"))


@pytest.mark.parametrize("frozen", [0, 2, 4])
def test_a_turn_of_which_no_parameter_is_trained_is_a_turn(tmp_path, frozen):
    model = nn.Sequential(*(nn.Linear(3, 3, bias=False) for _ in range(5)))
    for layer in model[:frozen]:
        layer.requires_grad_(False)
    every = 7 if not frozen else EVERY
    train(tmp_path / "run", range(3 * every), model=model, parameters_every=every)
    run = gradflow.open_run(tmp_path / "run")
    rows = run.parameters.assign(round=rounds_of_turns(run))
    assert np.array_equal(rows["round"], rows.step // every)
    counts = rows.groupby(["round", "parameter"]).update_norm.count()
    assert len(counts) == 3 * (5 - frozen)
    assert (counts == 1).all()
