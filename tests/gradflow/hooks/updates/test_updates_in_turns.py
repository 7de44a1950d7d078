"""With `updates_every`, updates and cosines have turns, and all other numbers are at each step."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import gradflow
from gradflow.errors import TracingError
from gradflow.hooks.updates import turns

EVERY, STEPS = 3, 10
IN_TURNS = ["update_norm", "update_to_weight", "gradient_cosine"]


def network():
    torch.manual_seed(0)
    layers = nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 2)
    return nn.Sequential(*layers).double()


def batch(step):
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(step)).double()


class ByHand:
    """Norms and cosines of each step by autograd and copies of everything."""

    def __init__(self, model):
        self.model, self.rows, self.last = model, {}, {}
        self.begin()

    def begin(self):
        self.before = {name: one.detach().clone() for name, one in self.model.named_parameters()}

    def end(self, step, gradients):
        for name, one in self.model.named_parameters():
            row = self.rows[step, name] = {
                "weight_norm": self.before[name].norm().item(),
                "update_norm": (one.detach() - self.before[name]).norm().item(),
            }
            if name not in gradients:
                continue
            row["gradient_norm"] = gradients[name].norm().item()
            if name in self.last:
                both = gradients[name].flatten(), self.last[name].flatten()
                row["gradient_cosine"] = torch.cosine_similarity(*both, dim=0).item()
        self.last = gradients
        self.begin()


def gradients_of(model):
    named = model.named_parameters()
    return {name: one.grad.clone() for name, one in named if one.grad is not None}


def train(folder, *, model=None, optimizers=None, steps=range(STEPS), passes=1, **options):
    """Train `steps`; return model, optimizers, the tracer's state in the end, and what is true."""
    model = model or network()
    optimizers = optimizers or [torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)]
    options = {"updates_every": EVERY, "groups": {"first": "0", "all": "*"}, **options}
    true = ByHand(model)
    with gradflow.Tracer(model, folder, optimizer=optimizers, **options) as tracer:
        for step in steps:
            model.zero_grad()
            for one in range(passes):
                model(batch(step + one)).square().sum().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            gradients = gradients_of(model)
            for optimizer in optimizers:
                optimizer.step()
            true.end(step, gradients)
        state = tracer.state_dict()
    return model, optimizers, state, true


def rows(folder):
    return gradflow.open_run(folder).parameters.set_index(["step", "parameter"])


def require_true(table, true, *, first=0):
    """What was recorded is right, all norms are there, and each update once in a round."""
    assert set(table.index) == set(true.rows)
    for key, known in true.rows.items():
        for quantity in ("weight_norm", "gradient_norm"):
            assert table.loc[key, quantity] == pytest.approx(known[quantity], rel=1e-12)
        for quantity in ("update_norm", "gradient_cosine"):
            found = table.loc[key, quantity]
            if not np.isnan(found):
                assert found == pytest.approx(known[quantity], rel=1e-9)
    measured = table[table.update_norm.notna()]
    cosines = measured[measured.index.get_level_values("step") > first]
    assert cosines.gradient_cosine.notna().all()
    assert table[table.update_norm.isna()][IN_TURNS].isna().all(axis=None)
    require_one_turn_a_round(measured, first=first)


def require_one_turn_a_round(measured, *, first=0, last=STEPS):
    """Each parameter is measured once in `EVERY` steps in a row, from the first whole round on."""
    begin = -(-first // EVERY)
    for _, one in measured.reset_index().groupby("parameter"):
        rounds = [step // EVERY for step in one.step if step // EVERY >= begin]
        assert len(set(rounds)) == len(rounds)
        assert set(rounds) >= set(range(begin, last // EVERY))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same training with all updates at each step and in turns; with the weights of both."""
    folder = tmp_path_factory.mktemp("runs")
    models = [train(folder / str(every), updates_every=every)[0] for every in (1, EVERY)]
    return [folder / str(every) for every in (1, EVERY)], models


def test_numbers_are_those_of_autograd_and_each_update_has_its_turn(tmp_path):
    *_, true = train(tmp_path / "run")
    require_true(rows(tmp_path / "run"), true)


def test_what_is_measured_has_the_bits_that_it_has_at_each_step_and_training_too(runs):
    folders, models = runs
    whole, in_turns = map(rows, folders)
    others = [name for name in whole if name not in IN_TURNS]
    assert in_turns[others].equals(whole[others])
    measured = in_turns[in_turns.update_norm.notna()]
    assert measured.equals(whole.loc[measured.index])
    assert all(map(torch.equal, models[0].parameters(), models[1].parameters()))


def test_totals_of_gradients_are_there_and_those_of_updates_are_missing(runs):
    folders, _ = runs
    whole, in_turns = map(gradflow.open_run, folders)
    assert in_turns.steps.equals(whole.steps)
    assert (
        in_turns.steps[["backward_gradient_norm", "gradient_norm", "clipping_factor"]]
        .notna()
        .all(axis=None)
    )
    of_updates = ["update_norm", "update_to_weight"]
    assert in_turns.groups[of_updates].isna().all(axis=None)
    assert whole.groups[of_updates].notna().all(axis=None)
    assert in_turns.groups.drop(columns=of_updates).equals(whole.groups.drop(columns=of_updates))


def test_the_run_says_so(runs):
    said = [json.loads((folder / "run.json").read_text()) for folder in runs[0]]
    assert [one.get("updates_every") for one in said] == [None, EVERY]
    assert not any("parameters_every" in one for one in said)


def test_a_resumed_run_goes_on_with_the_next_turn(tmp_path, runs):
    model, optimizers, state, _ = train(tmp_path / "run", steps=range(4))
    given = {"model": model, "optimizers": optimizers, "resume": state}
    train(tmp_path / "run", steps=range(4, STEPS), **given)
    assert rows(tmp_path / "run").equals(rows(runs[0][1]))


@pytest.mark.parametrize("rate", [0.05, 0.0])
def test_several_optimizers_each_keep_the_gradients_of_their_own(tmp_path, rate):
    model = network()
    parts = [list(model[place].parameters()) for place in (0, 2, 4)]
    optimizers = [torch.optim.SGD(parts[0] + parts[2], lr=rate), torch.optim.Adam(parts[1])]
    *_, true = train(tmp_path / "run", model=model, optimizers=optimizers)
    require_true(rows(tmp_path / "run"), true)


@pytest.mark.parametrize("count", [1, 2])
def test_gradients_that_are_zeroed_in_place_are_copied_and_compared_all_the_same(tmp_path, count):
    """Then gradients cannot be kept without copies, which share the room of other turns."""
    model = network()
    parts = [[*model[0].parameters(), *model[4].parameters()], [*model[2].parameters()]]
    parts = parts if count == 2 else [parts[0] + parts[1]]
    optimizers = [torch.optim.SGD(part, lr=0.05) for part in parts]
    true = ByHand(model)
    options = {"optimizer": optimizers, "updates_every": EVERY}
    with gradflow.Tracer(model, tmp_path / "run", **options) as tracer:
        places = set()
        for step in range(STEPS):
            model.zero_grad(set_to_none=False)
            model(batch(step)).square().sum().backward()
            gradients = gradients_of(model)
            for optimizer in optimizers:
                optimizer.step()
            true.end(step, gradients)
            recorder = tracer._cycle.updates.parameters
            places |= set(held_by(recorder))
    require_true(rows(tmp_path / "run"), true)
    # One piece for the weights, and one for the gradients; two if those of one optimizer wait.
    assert len(places) == 1 + count


def held_by(recorder):
    """The pieces of memory that a recorder's copies are in: bytes by address."""
    copies = [one for kept in recorder._kept for one in kept._copies.values()]
    copies += [tensor for batch in recorder._previous._batches for tensor in batch.seen.tensors]
    storages = [one.untyped_storage() for one in (*copies, *recorder._previous._buffers.values())]
    return {one.data_ptr(): one.nbytes() for one in storages}


def test_the_copies_of_all_turns_share_a_room_as_large_as_the_largest(tmp_path):
    model = nn.Sequential(*(nn.Linear(20, 20, bias=False) for _ in range(8)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    places = set()
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, updates_every=4) as tracer:
        for _ in range(9):
            optimizer.zero_grad(set_to_none=False)
            model(torch.ones(1, 20)).sum().backward()
            optimizer.step()
            held = held_by(tracer._cycle.updates.parameters)
            places |= set(held)
            # Two matrices of 1600 bytes have the same turn.
            assert sorted(held.values()) == [3200, 3200]
    assert len(places) == 2


def test_gradients_that_are_accumulated_over_passes_are_compared_as_received(tmp_path):
    *_, true = train(tmp_path / "run", passes=2)
    require_true(rows(tmp_path / "run"), true)


def test_without_an_optimizer_the_user_ends_the_steps(tmp_path):
    model = network()
    true = ByHand(model)
    with gradflow.Tracer(model, tmp_path / "run", updates_every=EVERY) as tracer:
        for step in range(STEPS):
            model.zero_grad()
            model(batch(step)).square().sum().backward()
            with torch.no_grad():
                for one in model.parameters():
                    one.sub_(0.05 * one.grad)
            gradients = gradients_of(model)
            tracer.step()
            true.end(step, gradients)
    require_true(rows(tmp_path / "run"), true)


def test_updates_made_within_the_backward_pass_have_turns_too(tmp_path):
    model = network()
    optimizers = {one: torch.optim.SGD([one], lr=0.05) for one in model.parameters()}
    seen = {}

    def update(parameter):
        seen[parameter] = parameter.grad.clone()
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for one in model.parameters():
        one.register_post_accumulate_grad_hook(update)
    true = ByHand(model)
    with gradflow.Tracer(model, tmp_path / "run", updates_every=EVERY) as tracer:
        for step in range(STEPS):
            model(batch(step)).square().sum().backward()
            tracer.step()
            true.end(step, {name: seen[one] for name, one in model.named_parameters()})
    table = rows(tmp_path / "run")
    measured = table[table.update_norm.notna()]
    for key, row in true.rows.items():
        assert table.loc[key, "weight_norm"] == pytest.approx(row["weight_norm"], rel=1e-12)
    for key, found in measured.update_norm.items():
        assert found == pytest.approx(true.rows[key]["update_norm"], rel=1e-9)
    counts = measured.reset_index().groupby("parameter").size()
    assert set(counts) <= {STEPS // EVERY, STEPS // EVERY + 1}
    assert len(counts) == len(list(model.parameters()))


def test_parameters_that_are_added_get_turns_also_after_a_resumption(tmp_path):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    given = {"model": model, "optimizers": [optimizer]}
    *_, state, true = train(tmp_path / "run", steps=range(4), **given)
    added = nn.Linear(2, 9).double()
    model.append(added)
    optimizer.add_param_group({"params": list(added.parameters())})
    *_, state, more = train(tmp_path / "run", steps=range(4, 9), resume=state, **given)
    *_, last = train(tmp_path / "run", steps=range(9, 16), resume=state, **given)
    table = rows(tmp_path / "run")
    new = table.index.get_level_values("parameter").isin(["5.weight", "5.bias"])
    true.rows |= more.rows | last.rows
    for key, known in true.rows.items():
        for quantity in ("weight_norm", "update_norm"):
            found = table.loc[key, quantity]
            assert np.isnan(found) or found == pytest.approx(known[quantity], rel=1e-9)
    for part, first in ((table[~new], 0), (table[new], 4)):
        require_one_turn_a_round(part[part.update_norm.notna()], first=first, last=16)
    # That of the step before is kept in the state of the tracer.
    later = table[table.update_norm.notna() & (table.index.get_level_values("step") > 4)]
    assert later.gradient_cosine.notna().all()


def test_a_model_whose_weights_change_type_is_measured_after_it_in_full(tmp_path):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with gradflow.Tracer(
        model, tmp_path / "run", optimizer=optimizer, updates_every=EVERY
    ) as tracer:
        for step in range(12):
            if step == 4:
                model.float()
            if step == 8:
                model.double()
            optimizer.zero_grad()
            model(batch(step).to(model[0].weight.dtype)).square().sum().backward()
            optimizer.step()
            pieces = tracer._cycle.updates.parameters._kept[0]._room._pieces
            largest = max(map(sum, _sizes(tracer)))
            assert sum(map(len, pieces.values())) <= 2 * largest
    table = rows(tmp_path / "run")
    measured = table[table.update_norm.notna()].reset_index()
    assert (measured.groupby("parameter").size() == 4).all()


def test_a_model_that_gets_other_layers_again_and_again_needs_no_more_room(tmp_path):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    held = []
    with gradflow.Tracer(
        model, tmp_path / "run", optimizer=optimizer, updates_every=EVERY
    ) as tracer:
        for step in range(96):
            if step % 6 == 5:
                del model[-1]
                model.add_module(f"other{step}", nn.Linear(5, 2).double())
            optimizer.zero_grad()
            model(batch(step)).square().sum().backward()
            optimizer.step()
            held.append(sum(held_by(tracer._cycle.updates.parameters).values()))
    assert max(held[48:]) <= max(held[:48])


def _sizes(tracer):
    known = tracer._cycle.updates.parameters._copied
    names = tracer._cycle.updates.parameters._known.trained()
    return [[-(-8 * one.numel() // 64) * 64 for one in turn] for turn in known.each(names)]


@pytest.mark.parametrize("other", [{"parameters_every": 2}, {"around_spikes": 3}], ids=str)
def test_turns_of_updates_are_refused_beside_what_leaves_some_without_a_turn(other, tmp_path):
    (name,) = other
    with pytest.raises(TracingError, match=f"{name}.*updates_every=2"):
        gradflow.Tracer(network(), tmp_path / "other", updates_every=2, **other)


@pytest.mark.parametrize(("before", "after"), [(1, EVERY), (EVERY, 1), (EVERY, 2)])
def test_a_training_goes_on_with_the_turns_that_it_had(before, after, tmp_path):
    model = network()
    with gradflow.Tracer(model, tmp_path / "run", updates_every=before) as tracer:
        model(batch(0)).sum().backward()
        tracer.step()
        state = tracer.state_dict()
    with (
        pytest.raises(TracingError, match=f"updates_every={before}.*not {after}"),
        gradflow.Tracer(model, tmp_path / "run", updates_every=after, resume=state),
    ):
        pass


def test_the_largest_parameter_has_a_turn_of_its_own():
    """Bytes are balanced, not counts: no turn holds most of the model, but for a single tensor."""
    sizes = [10_000, 300, 250, 200, 200, 150, 100, 100]
    named = {f"p{k}": nn.Parameter(torch.zeros(size)) for k, size in enumerate(sizes)}
    named["double"] = nn.Parameter(torch.zeros(150).double())
    parts = turns.Turns(4, named).each(turns.Trained(named))
    found = sorted(sum(one.nbytes for one in part) for part in parts)
    assert found[-1] == 40_000
    assert found[2] - found[0] < 600


@pytest.mark.parametrize("every", [1, 2, 3, 4, 5, 6, 7, 8, 16])
def test_each_part_has_turns_in_steps_of_every_rhythm(every):
    """So no optimizer that steps more rarely than the tracer records leaves one without updates."""
    for period in (2, 3, 4, 5, 7, 8, 16):
        found = {(turns.turn_at(n, every), n % period) for n in range(100 * every)}
        assert len(found) == every * period
    for begin in range(0, 100 * every, every):
        assert {turns.turn_at(n, every) for n in range(begin, begin + every)} == set(range(every))


@pytest.mark.parametrize("period", [2, 4, 8])
def test_with_eight_turns_so_many_rounds_suffice_for_a_rhythm(period):
    found = {(turns.turn_at(n, 8), n % period) for n in range(period * 8)}
    assert len(found) == 8 * period


@pytest.mark.parametrize("period", [2, 4])
@pytest.mark.parametrize("accumulates", [False, True], ids=["two optimizers", "accumulation"])
def test_all_parameters_have_turns_in_which_they_move_though_steps_are_rare(
    tmp_path, period, accumulates
):
    """One optimizer steps at every `period`-th step that is recorded, the other at each."""
    model = network()
    first, others = model[0].parameters(), [*model[2].parameters(), *model[4].parameters()]
    rare, often = torch.optim.SGD(first, lr=0.05), torch.optim.SGD(others, lr=0.05)
    given = {} if accumulates else {"optimizer": [often, rare]}
    true, steps = ByHand(model), 4 * 4
    with gradflow.Tracer(model, tmp_path / "run", updates_every=4, **given) as tracer:
        for step in range(steps):
            often.zero_grad()
            if step % period == 0:
                rare.zero_grad()
            model(batch(step)).square().sum().backward()
            gradients = gradients_of(model)
            is_due = step % period == period - 1
            if is_due or not accumulates:
                often.step()
            if is_due:
                rare.step()
            if accumulates:
                tracer.step()
            true.end(step, gradients)
    table = rows(tmp_path / "run")
    for key, value in table.update_norm.dropna().items():
        assert value == pytest.approx(true.rows[key]["update_norm"], rel=1e-9)
    assert (table.groupby("parameter").update_norm.max() > 0).all()


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "8", None])
def test_what_is_no_number_of_steps_is_refused(tmp_path, every):
    with pytest.raises(TracingError, match="updates_every"):
        gradflow.Tracer(network(), tmp_path / "run", updates_every=every)
