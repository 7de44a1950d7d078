"""Gradients through time in recurrent layers, exact beside closed forms and autograd by hand."""

import copy
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

from gradflow import Tracer
from gradflow.hooks.instruments.positions import instrument
from gradflow.hooks.selection.modules import select_modules
from gradflow.runs.reading.run import open_run

TOLERANCE = 1e-5


def trace(model: nn.Module, folder, *passes: Callable[[], Tensor], **options) -> pd.DataFrame:
    """The table of a step with these passes, each of which returns a loss."""
    with Tracer(model, folder, **options) as tracer:
        for loss in passes:
            loss().backward()
        tracer.step()
        tracer.end_epoch()
    return open_run(folder).table("positions")


def norms(table: pd.DataFrame, layer: str, tensor: str) -> np.ndarray:
    rows = table[(table["layer"] == layer) & (table["tensor"] == tensor)]
    return rows.sort_values("bin")["gradient_norm"].to_numpy()


def by_position(gradient: Tensor, axis: int = 1) -> np.ndarray:
    return gradient.double().transpose(0, axis).flatten(1).norm(dim=1).numpy()


class Linear(nn.Module):
    """h_t = W h_(t-1) + x_t: a cell that a loop calls, without a nonlinearity."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(size, size, bias=False)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return self.hidden(h) + x


class Loop(nn.Module):
    def __init__(self, cell: nn.Module, size: int) -> None:
        super().__init__()
        self.cell, self.size = cell, size

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(len(x), self.size, dtype=x.dtype)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
        return h


@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0])
def test_in_a_linear_recurrence_the_gradient_at_distance_k_is_the_kth_power(tmp_path, factor):
    model = Loop(Linear(4), 4)
    torch.nn.init.orthogonal_(model.cell.hidden.weight, gain=factor)
    table = trace(model, tmp_path, lambda: model(torch.randn(2, 12, 4)).sum())
    distances = np.arange(11, -1, -1)
    expected = np.sqrt(8) * factor**distances
    assert norms(table, "cell", "calls") == pytest.approx(expected, rel=TOLERANCE)
    # The linear layer in the cell is called in the same loop.
    assert norms(table, "cell.hidden", "calls") == pytest.approx(expected, rel=TOLERANCE)


def test_what_reaches_the_inputs_of_a_fused_layer_falls_by_the_factor_of_its_weights(tmp_path):
    model = nn.RNN(3, 3, nonlinearity="relu", batch_first=True, bias=False)
    with torch.no_grad():
        model.weight_hh_l0.copy_(0.5 * torch.eye(3))
        model.weight_ih_l0.copy_(torch.eye(3))
    raw = torch.rand(2, 20, 3)  # positive: the units stay linear

    def loss() -> Tensor:
        return model(raw)[0][:, -1].sum()

    table = trace(model, tmp_path, loss)
    expected = np.sqrt(6) * 0.5 ** np.arange(19, -1, -1)
    assert norms(table, "RNN", "input") == pytest.approx(expected, rel=TOLERANCE)
    assert norms(table, "RNN", "output")[:-1].max() == 0
    assert not raw.requires_grad


def lstm_by_hand(lstm: nn.LSTM, x: Tensor) -> Tensor:
    """The last state of a layer: the equations of torch's page, step by step."""
    h = c = torch.zeros(len(x), lstm.hidden_size)
    for t in range(x.shape[1]):
        gates = x[:, t] @ lstm.weight_ih_l0.T + lstm.bias_ih_l0
        gates = gates + h @ lstm.weight_hh_l0.T + lstm.bias_hh_l0
        i, f, g, o = gates.chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
    return h


@pytest.mark.parametrize("is_raw", [True, False])
def test_an_lstm_has_the_gradients_of_a_loop_by_hand(tmp_path, is_raw):
    model = nn.Sequential(nn.Linear(3, 3), nn.LSTM(3, 5, batch_first=True))
    lstm, x = model[1], torch.randn(4, 30, 3)
    whole = nn.ModuleList([lstm]) if is_raw else model
    given = x if is_raw else model[0](x).detach()
    leaf = given.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(lstm_by_hand(lstm, leaf).square().sum(), leaf)

    def loss() -> Tensor:
        return (lstm(x) if is_raw else model(x))[1][0].square().sum()

    table = trace(whole, tmp_path, loss)
    name = "0" if is_raw else "1"
    assert norms(table, name, "input") == pytest.approx(by_position(wanted), rel=TOLERANCE)


KINDS = [
    (nn.RNN, {}),
    (nn.RNN, {"nonlinearity": "relu", "bias": False}),
    (nn.GRU, {"bidirectional": True}),
    (nn.LSTM, {"num_layers": 2, "dropout": 0.5}),
    (nn.LSTM, {"bidirectional": True}),
]


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_training_on_raw_data_is_bit_for_bit_that_without_the_tracer(
    tmp_path, kind, options, batch_first
):
    plain = kind(3, 4, batch_first=batch_first, **options)
    traced = copy.deepcopy(plain)
    x = torch.randn(6, 7, 3)

    def train(model: nn.Module, step: Callable[[], None]) -> None:
        torch.manual_seed(1)
        for _ in range(3):
            model.zero_grad()
            model(x)[0].square().mean().backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.sub_(parameter.grad)
            step()

    train(plain, str)
    with Tracer(traced, tmp_path) as tracer:
        train(traced, tracer.step)
        tracer.end_epoch()
    for a, b in zip(plain.parameters(), traced.parameters(), strict=True):
        assert torch.equal(a, b)
    assert len(open_run(tmp_path).table("positions")) == 3 * 2 * (7 if batch_first else 6)


def test_a_packed_sequence_is_taken_by_its_own_positions(tmp_path):
    lstm = nn.LSTM(3, 4, batch_first=True)
    x, lengths = torch.randn(3, 9, 3), torch.tensor([9, 5, 2])

    def loss(given: Tensor) -> Tensor:
        packed = pack_padded_sequence(given, lengths, batch_first=True)
        out, _ = pad_packed_sequence(lstm(packed)[0], batch_first=True)
        return out[torch.arange(3), lengths - 1].sum()

    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(loss(leaf), leaf)
    table = trace(nn.ModuleList([lstm]), tmp_path, partial(loss, x))
    assert norms(table, "0", "input") == pytest.approx(by_position(wanted), rel=TOLERANCE)
    rms = table[table["tensor"] == "input"]["rms"].to_numpy()
    assert rms[3] == pytest.approx(x[:2, 3].square().mean().sqrt().item())


@pytest.mark.parametrize("cell", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_torchs_cells_in_a_loop_have_the_gradients_of_their_states(tmp_path, cell):
    model = nn.ModuleList([cell(3, 4)])
    x, states = torch.randn(2, 10, 3), []

    def loss() -> Tensor:
        state, kept = None, []
        for t in range(10):
            state = model[0](x[:, t], state)
            kept.append(state if isinstance(state, Tensor) else state[0])
            kept[-1].retain_grad()
        states[:] = kept
        return kept[-1].square().sum() + kept[4].sum()

    def begin_and_loss(tracer: Tracer) -> Tensor:
        tracer.begin_pass()
        return loss()

    with Tracer(model, tmp_path) as tracer:
        begin_and_loss(tracer).backward()
        tracer.step()
        tracer.end_epoch()
    table = open_run(tmp_path).table("positions")
    wanted = [state.grad.norm().item() for state in states]
    assert norms(table, "0", "calls") == pytest.approx(wanted, rel=TOLERANCE)
    rms = table["rms"].to_numpy()
    assert rms[-1] == pytest.approx(states[-1].square().mean().sqrt().item())


def test_passes_that_are_accumulated_count_as_one_batch(tmp_path):
    lstm, first, second = nn.GRU(2, 3), torch.randn(8, 2, 2), torch.randn(8, 5, 2)
    leaves = [x.clone().requires_grad_() for x in (first, second)]
    sum(lstm(leaf)[0][-1].sum() for leaf in leaves).backward()
    wanted = sum(by_position(leaf.grad, 0) ** 2 for leaf in leaves) ** 0.5
    one, other = (lambda x=x: lstm(x)[0][-1].sum() for x in (first, second))
    table = trace(lstm, tmp_path, one, other)
    assert norms(table, "GRU", "input") == pytest.approx(wanted, rel=TOLERANCE)


def test_a_checkpointed_layer_on_raw_data_trains_and_has_no_gradient_of_its_input(tmp_path):
    lstm, x = nn.LSTM(2, 3), torch.randn(8, 2, 2)

    def loss() -> Tensor:
        return checkpoint(lstm, x, use_reentrant=False)[0].sum()

    table = trace(nn.ModuleList([lstm]), tmp_path, loss)
    assert "input" not in set(table["tensor"])
    assert len(norms(table, "0", "output")) == 8


def test_a_layer_that_is_not_trained_on_raw_data_stays_without_a_graph(tmp_path):
    model = nn.Sequential(nn.GRU(2, 3).requires_grad_(False))
    head = nn.Linear(3, 1)
    whole = nn.ModuleList([model, head])

    def loss() -> Tensor:
        out, _ = model(torch.randn(8, 2, 2))
        assert not out.requires_grad
        return head(out).sum()

    assert "input" not in set(trace(whole, tmp_path, loss)["tensor"])


class Pyramid(nn.Module):
    """A head and an activation that are shared by tensors of several levels."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Linear(4, 4) for _ in range(5))
        self.head, self.relu = nn.Linear(4, 2), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(())
        for layer in self.down:
            x = self.relu(layer(x))
            total = total + self.head(x).square().mean()
        return total


def test_what_is_shared_without_a_loop_over_time_is_left_out(tmp_path):
    model = Pyramid()
    assert not len(trace(model, tmp_path, lambda: model(torch.rand(3, 4))))


def test_gradients_are_those_of_the_loss_without_its_scale(tmp_path):
    torch.manual_seed(3)
    lstm, x = nn.LSTM(2, 3), torch.randn(8, 2, 2)
    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(lstm(leaf)[0][-1].sum(), leaf)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = torch.optim.SGD(lstm.parameters(), 0.1)
    with Tracer(lstm, tmp_path, optimizer=optimizer, scaler=scaler) as tracer:
        scaler.scale(lstm(x)[0][-1].sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        tracer.end_epoch()
    table = open_run(tmp_path).table("positions")
    assert norms(table, "LSTM", "input") == pytest.approx(by_position(wanted, 0), rel=TOLERANCE)


@pytest.mark.parametrize("schedule", [1, 2])
def test_an_input_that_outlasts_the_step_keeps_no_hooks(tmp_path, schedule):
    torch.manual_seed(0)
    model = nn.LSTM(4, 3, batch_first=True)
    x = torch.randn(2, 5, 4, requires_grad=True)  # such as a learned prompt
    with Tracer(nn.Sequential(model), tmp_path / "run", schedule=schedule) as tracer:
        for _ in range(4):
            model_loss = model(x)[0].square().mean()
            model_loss.backward()
            tracer.step()
            assert not x._backward_hooks
        model(x)
    assert not x._backward_hooks


def test_the_modules_are_looked_up_once_until_the_model_changes(tmp_path, monkeypatch):
    """To go through a model of a thousand modules takes milliseconds, in every recorded step."""
    looked_up = []

    def select(*given):
        looked_up.append(given)
        return select_modules(*given)

    monkeypatch.setattr(instrument, "select_modules", select)
    model = nn.Sequential(nn.LSTM(4, 3, batch_first=True))
    with Tracer(model, tmp_path / "run") as tracer:
        for step in range(6):
            if step == 3:
                model[0] = nn.GRU(4, 3, batch_first=True)
                looked_up.clear()
            model(torch.ones(2, 5, 4))[0].square().mean().backward()
            tracer.step()
            assert len(looked_up) == 1
        tracer.end_epoch()
    table = open_run(tmp_path / "run").table("positions")
    assert sorted(set(table.loc[table["tensor"] == "input", "step"])) == list(range(6))
