"""Alerts from updates that are measured in turns."""

import numpy as np
import torch
from torch import nn

import gradflow
from gradflow.hooks.alerts.updates import whole_updates
from gradflow.hooks.alerts.windows import Window


def alerts(folder, *, rate, steps, state=None):
    """The conditions of which alerts tell, with the steps; resumed in the middle."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    heard = []
    for span in (range(steps // 2), range(steps // 2, steps)):
        with gradflow.Tracer(
            model, folder, optimizer=optimizer, updates_every=4, alerts=heard.append, resume=state
        ) as tracer:
            for step in span:
                draw = torch.Generator().manual_seed(step)
                inputs = torch.randn(32, 6, generator=draw).double()
                optimizer.zero_grad()
                (model(inputs) - inputs[:, :3]).square().mean().backward()
                optimizer.step()
            tracer.end_epoch()
            state = tracer.state_dict()
    return {one.condition: one for one in heard if one.begins}


def test_weights_that_hardly_move_are_told_once_each_has_had_enough_turns(tmp_path):
    found = alerts(tmp_path / "run", rate=1e-9, steps=96)
    assert found["stalled"].step < 4
    assert 40 <= found["stalled"].noticed <= 64


def test_weights_that_move_are_not(tmp_path):
    assert alerts(tmp_path / "run", rate=0.05, steps=96) == {}


def test_the_ratio_of_a_step_is_over_the_weights_whose_turn_it_was():
    rows = {
        "step": np.ma.array([3, 3, 4, 4]),
        "parameter": np.ma.array(["a", "b", "a", "b"], dtype=object),
        "update_norm": np.ma.array([2.0, 0.0, 0.0, 5.0], mask=[0, 1, 1, 0]),
        "weight_norm": np.ma.array([4.0, 100.0, 100.0, 10.0]),
    }
    assert whole_updates(rows, [3, 4], ["a", "b"]).tolist() == [0.5, 0.5]


def test_a_window_by_name_keeps_the_last_numbers_of_each_name():
    window = Window(2, by_name=True)
    for step in range(6):
        rows = {"step": np.array([step]), "parameter": np.array([["a", "b"][step % 2]])}
        window.add([step], rows, "parameter", np.array([float(step)]))
    assert window.of(["a", "b"]).tolist() == [[2.0, 3.0], [4.0, 5.0]]
    again = Window(2, by_name=True)
    again.load_state_dict(window.state_dict())
    assert again.of(["a"]).tolist() == [[2.0], [4.0]]
