"""Copies of weights are there only while a step changes them, and their numbers are right."""

import gc

import pytest
import torch
from torch import nn

import gradflow
from gradflow.hooks.reduction import cpu
from gradflow.hooks.updates.measures import grouped, kept_weights
from gradflow.hooks.updates.measures.kept_weights import KeptWeights
from gradflow.hooks.updates.measures.room import in_one_piece

STEPS = 5


@pytest.fixture(params=["one compiled loop", "grouped", "one by one"])
def way(request, monkeypatch):
    if request.param != "one compiled loop":
        monkeypatch.setattr(cpu, "addresses_module", lambda: None)
        monkeypatch.setattr(cpu, "loops_module", lambda: None)
    monkeypatch.setattr(grouped, "_trusted", {})
    if request.param == "one by one":
        monkeypatch.setattr(grouped, "_are_right", lambda device: False)
    return request.param


def network():
    """With weights above and below the size from which copies are let go of."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(150, 150), nn.Tanh(), nn.Linear(150, 3)).double()


def held(tracer):
    """The bytes of the copies of weights."""
    gc.collect()
    copies = [
        one for kept in tracer._cycle.updates.parameters._kept for one in kept._copies.values()
    ]
    storages = [one.untyped_storage() for one in copies]
    return sum({one.data_ptr(): one.nbytes() for one in storages}.values())


def train(folder, *, has_optimizer=True, change=lambda model, step: None, **options):
    """Train; return what the updates are by hand, and the bytes held in each forward pass."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    true, bytes_held = {}, []
    given = optimizer if has_optimizer else None
    with gradflow.Tracer(model, folder, optimizer=given, **options) as tracer:
        for step in range(STEPS):
            change(model, step)
            optimizer.zero_grad()
            loss = model(torch.randn(4, 150).double()).square().sum()
            bytes_held.append(held(tracer))
            loss.backward()
            before = {name: one.detach().clone() for name, one in model.named_parameters()}
            optimizer.step()
            for name, one in model.named_parameters():
                true[step, name] = (one.detach() - before[name]).norm().item()
            if not has_optimizer:
                tracer.step()
    return true, bytes_held


def recorded(folder):
    return gradflow.open_run(folder).parameters.set_index(["step", "parameter"]).update_norm


def require_right(folder, true):
    found = recorded(folder)
    assert len(found) > 0
    for key, value in found.items():
        assert value == pytest.approx(true[key], rel=1e-9), key


SMALL = 8 * (150 + 3 * 150 + 3)


@pytest.mark.parametrize("schedule", [1, 2])
def test_large_copies_are_not_held_while_the_model_runs(tmp_path, way, schedule):
    true, bytes_held = train(tmp_path / "run", schedule=schedule)
    assert max(bytes_held) <= SMALL
    require_right(tmp_path / "run", true)


def test_without_an_optimizer_they_are_held_from_the_beginning_of_the_step(tmp_path):
    true, bytes_held = train(tmp_path / "run", has_optimizer=False)
    assert min(bytes_held) >= 8 * 150 * 150
    require_right(tmp_path / "run", true)


def test_what_the_c_library_takes_from_the_system_anew_is_used_again(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_weights, "_FROM_THE_HEAP", 8 * 150 * 150 - 1)
    true, bytes_held = train(tmp_path / "run")
    assert min(bytes_held[2:]) >= 8 * 150 * 150
    require_right(tmp_path / "run", true)


def test_weights_that_change_their_type_or_layer_are_kept_anew(tmp_path, way):
    def change(model, step):
        if step == 2:
            model[0] = nn.Linear(150, 150).double()
        if step == 3:
            model[0].weight.data = model[0].weight.data.clone().mul_(2)
        if step == 4:
            model[2].weight.requires_grad_(False)

    true, bytes_held = train(tmp_path / "run", change=change)
    assert max(bytes_held) <= SMALL
    require_right(tmp_path / "run", true)


def test_the_first_copies_are_in_one_piece_and_have_the_order_of_the_weights():
    weights = [torch.randn(70, 40), torch.randn(40, 70).t(), torch.randn(3), torch.randn(5, 5)]
    copies = in_one_piece(weights)
    assert len({one.untyped_storage().data_ptr() for one in copies}) == 1
    assert [one.stride() for one in copies] == [one.stride() for one in weights]
    for copy, weight in zip(copies, weights, strict=True):
        copy.copy_(weight)
    assert all(map(torch.equal, copies, weights))
    assert in_one_piece([]) == []


def test_letting_go_changes_no_bit():
    torch.manual_seed(0)
    weights = {f"w{k}": torch.randn(200 + k, 100) for k in range(5)}
    numbers = []
    for let_go in (False, True):
        kept = KeptWeights()
        generator = torch.Generator().manual_seed(1)
        now = {name: one.clone() for name, one in weights.items()}
        for _ in range(4):
            norms = kept.keep(list(now), list(now.values()))
            for one in now.values():
                one.add_(torch.randn(one.shape, generator=generator))
            names, distances = kept.distances(now)
            numbers.append((let_go, names, norms.each(), distances.each()))
            kept.end_step(let_go=let_go)
    assert [one[1:] for one in numbers[:4]] == [one[1:] for one in numbers[4:]]
