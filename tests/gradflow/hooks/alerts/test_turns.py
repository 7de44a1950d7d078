"""Alerts from updates that are measured in turns."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import gradflow
from gradflow.hooks.alerts.updates import WholeUpdates
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


def rows_of(*given):
    """Columns of rows (step, parameter, update, weight); a missing number is None."""
    steps, names, updates, weights = zip(*given, strict=True)
    numbers = {
        key: np.ma.array([one or 0.0 for one in column], mask=[one is None for one in column])
        for key, column in (("update_norm", updates), ("weight_norm", weights))
    }
    return {"step": np.array(steps), "parameter": np.array(names, dtype=object), **numbers}


def test_the_ratio_of_a_step_is_estimated_beside_all_weights():
    rows = rows_of((3, "a", 2, 3), (3, "b", None, 4), (4, "a", None, 3), (4, "b", 5, 4))
    found = WholeUpdates(2).ratios(rows, [3, 4], ["a", "b"])
    assert found == pytest.approx([np.sqrt(2) * 2 / 5, np.sqrt(2) * 5 / 5])
    whole = rows_of((3, "a", 2, 3), (3, "b", 1, 4))
    assert WholeUpdates().ratios(whole, [3], ["a", "b"]) == pytest.approx([np.sqrt(5) / 5])


def test_weights_whose_turn_it_is_not_count_with_their_last_norm():
    updates = WholeUpdates(2)
    first = updates.ratios(rows_of((3, "a", 2, 3)), [3], ["a", "b"])
    assert first == pytest.approx([np.sqrt(2) * 2 / 3])
    again = WholeUpdates(2)
    again.load_state_dict(json.loads(json.dumps(updates.state_dict())))
    rows = rows_of((4, "b", 5, 4), (5, "a", 2, 12))
    found = again.ratios(rows, [4, 5], ["a", "b"])
    expected = [np.sqrt(2) * 5 / 5, np.sqrt(2) * 2 / np.sqrt(12**2 + 4**2)]
    assert found == pytest.approx(expected)
    # One that the model no longer has does not.
    assert again.ratios(rows_of((6, "b", 5, 4)), [6], ["b"]) == pytest.approx([np.sqrt(2) * 5 / 4])


class Adapted(nn.Module):
    """A frozen layer and a low-rank adapter, one of whose weights starts at 0."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(16, 16).requires_grad_(False)
        self.down, self.up = nn.Linear(16, 4, bias=False), nn.Linear(4, 16, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return x + torch.tanh(self.base(x) + self.up(self.down(x)))


@pytest.mark.parametrize("options", [{}, {"updates_every": 4}, {"parameters_every": 4}], ids=str)
@pytest.mark.parametrize("rate", [1e-5, 0.3])
def test_steps_of_adapters_that_start_at_0_are_large_only_beside_all_weights(
    options, rate, tmp_path
):
    """The loss grows with the targets, or because the steps are too large."""
    torch.manual_seed(0)
    model = nn.Sequential(*(Adapted() for _ in range(4)))
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer, heard = torch.optim.AdamW(trained, lr=rate), []
    with gradflow.Tracer(
        model, tmp_path / "run", optimizer=optimizer, alerts=heard.append, **options
    ) as tracer:
        for step in range(48):
            optimizer.zero_grad()
            targets = torch.randn(16, 16) * (4 if step > 12 else 1)
            loss = (model(torch.randn(16, 16)) - targets).square().mean()
            loss.backward()
            tracer.log(loss=loss)
            optimizer.step()
    assert ("overshooting" in {one.condition for one in heard}) == (rate > 0.1)


def test_a_window_by_name_keeps_the_last_numbers_of_each_name():
    window = Window(2, by_name=True)
    for step in range(6):
        rows = {"step": np.array([step]), "parameter": np.array([["a", "b"][step % 2]])}
        window.add([step], rows, "parameter", np.array([float(step)]))
    assert window.of(["a", "b"]).tolist() == [[2.0, 3.0], [4.0, 5.0]]
    again = Window(2, by_name=True)
    again.load_state_dict(window.state_dict())
    assert again.of(["a"]).tolist() == [[2.0], [4.0]]


def test_a_step_without_an_update_leaves_the_other_weights_beside_those_of_its_turn():
    rows = {
        "step": np.array([0, 1, 2, 3]),
        "parameter": np.array(["a", "b", "a", "b"]),
        "weight_norm": np.array([3.0, 4.0, 3.0, 4.0]),
        "update_norm": np.ma.array([0.3, 0.4, 0.3, 0.0], mask=[False, False, False, True]),
    }
    found = WholeUpdates(2).ratios(rows, [0, 1, 2, 3], ["a", "b"])
    expected = [np.sqrt(2) * 0.1, np.sqrt(2) * 0.4 / 5, np.sqrt(2) * 0.3 / 5, np.nan]
    assert found == pytest.approx(expected, nan_ok=True)
