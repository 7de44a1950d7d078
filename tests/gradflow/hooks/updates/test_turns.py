"""With `parameters_every`, each parameter is measured more rarely, and no number is another one."""

import json

import pytest
import torch
from torch import nn

import gradflow
from gradflow.errors import TracingError
from gradflow.hooks.updates.known import Trained
from gradflow.hooks.updates.turns import Turns

EVERY, STEPS = 3, 9


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 2))


def train(folder, *, every=1, steps=range(STEPS), model=None, optimizer=None, **options):
    """Train `steps`; return model, optimizer and the tracer's state in the end."""
    model = model or network()
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    options = {"parameters_every": every, "groups": {"first": "0"}, **options}
    with gradflow.Tracer(model, folder, optimizer=optimizer, **options) as tracer:
        for step in steps:
            optimizer.zero_grad()
            x = torch.randn(6, 4, generator=torch.Generator().manual_seed(step))
            model(x).square().sum().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        state = tracer.state_dict()
    return model, optimizer, state


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same training measured at each step, and in turns; with the weights of both."""
    folder = tmp_path_factory.mktemp("runs")
    models = [train(folder / str(every), every=every)[0] for every in (1, EVERY)]
    return [gradflow.open_run(folder / str(every)) for every in (1, EVERY)], models


def held_by(recorder):
    """The bytes that a recorder's copies take."""
    copies = [one for kept in recorder._kept for one in kept._copies.values()]
    copies += [tensor for batch in recorder._previous._batches for tensor in batch.seen.tensors]
    storages = [one.untyped_storage() for one in (*copies, *recorder._previous._buffers.values())]
    return sum({one.data_ptr(): one.nbytes() for one in storages}.values())


def rows(run):
    return run.parameters.set_index(["step", "parameter"])


def test_each_parameter_has_its_turn_once_in_so_many_steps(runs):
    (_, turns), _ = runs
    table = turns.parameters
    for _, steps in table.groupby("parameter").step:
        assert [step // EVERY for step in steps] == list(range(STEPS // EVERY))
    assert set(table.parameter) == {name for name, _ in network().named_parameters()}


def test_what_is_measured_has_the_bits_that_it_has_at_each_step(runs):
    """Also cosines: the gradient of the step before is kept for those whose turn comes."""
    (whole, turns), models = runs
    measured = rows(turns)
    assert measured.equals(rows(whole).loc[measured.index])
    later = measured[measured.index.get_level_values("step") > 0]
    assert later.gradient_cosine.notna().all()
    assert all(map(torch.equal, models[0].parameters(), models[1].parameters()))


def test_totals_are_missing_rather_than_those_of_some(runs):
    (whole, turns), _ = runs
    totals = ["backward_gradient_norm", "gradient_norm", "clipping_factor"]
    assert turns.steps[totals].isna().all(axis=None)
    assert whole.steps[totals].notna().all(axis=None)
    of_group = [*totals, "weight_norm", "update_norm", "update_to_weight"]
    assert turns.groups[of_group].isna().all(axis=None)
    others = ["step", "group", "parameters", "layers", "output_norm", "output_gradient_norm"]
    assert turns.groups[others].equals(whole.groups[others])
    # The factor of a single parameter is true all the same.
    assert turns.parameters.clipping_factor.between(0, 1).all()


def test_the_run_says_so(runs):
    (whole, turns), _ = runs
    said = [json.loads((run.folder / "run.json").read_text()) for run in (whole, turns)]
    assert [one.get("parameters_every") for one in said] == [None, EVERY]


def test_a_resumed_run_goes_on_with_the_next_turn(tmp_path, runs):
    (_, turns), _ = runs
    model, optimizer, state = train(tmp_path / "run", every=EVERY, steps=range(4))
    again = range(4, STEPS)
    train(
        tmp_path / "run", every=EVERY, steps=again, model=model, optimizer=optimizer, resume=state
    )
    assert rows(gradflow.open_run(tmp_path / "run")).equals(rows(turns))


def test_with_steps_between_the_cosine_is_with_the_step_before_that_is_recorded_too(tmp_path):
    train(tmp_path / "run", every=2, schedule=lambda step: step % 4 in (0, 1))
    table = gradflow.open_run(tmp_path / "run").parameters
    known = table[table.gradient_cosine.notna()]
    train(tmp_path / "whole")
    expected = rows(gradflow.open_run(tmp_path / "whole"))
    # The step before a recorded one keeps the gradients, whether or not it is recorded itself.
    assert set(known.step) == {1, 4, 5, 8}
    measured = known.set_index(["step", "parameter"]).gradient_cosine
    assert measured.equals(expected.gradient_cosine.loc[measured.index])


def test_the_parts_are_of_about_the_same_size_and_new_parameters_join_the_smallest():
    sizes = [500, 3, 90, 90, 100, 100, 30, 90, 5, 1]
    parameters = {f"p{k}": nn.Parameter(torch.zeros(size)) for k, size in enumerate(sizes)}
    turns, trained = Turns(2, parameters), Trained(parameters)
    first = turns.now(trained)
    turns.advance()
    second = turns.now(trained)
    assert set(first.names) | set(second.names) == set(parameters)
    assert not set(first.names) & set(second.names)
    elements = [sum(one.numel() for one in part.tensors) for part in (first, second)]
    assert abs(elements[0] - elements[1]) < 20
    parameters["new"] = nn.Parameter(torch.zeros(1000))
    turns.look_up(parameters)
    assert set(turns.now(Trained(parameters)).names) - {"new"} == set(second.names)


def test_copies_are_kept_of_those_alone_whose_turn_it_is(tmp_path):
    model = nn.Sequential(*(nn.Linear(20, 20, bias=False) for _ in range(8)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradflow.Tracer(
        model, tmp_path / "run", optimizer=optimizer, parameters_every=4
    ) as tracer:
        for _ in range(5):
            optimizer.zero_grad(set_to_none=False)  # gradients are then copied as well
            model(torch.ones(1, 20)).sum().backward()
            optimizer.step()
            recorder = tracer._cycle.updates.parameters
            assert held_by(recorder) == 2 * 2 * 400 * 4


def test_they_are_refused_where_only_some_of_the_recorded_steps_are_written(tmp_path):
    with pytest.raises(TracingError, match=r"around_spikes=.*parameters_every=4 some"):
        gradflow.Tracer(network(), tmp_path / "run", parameters_every=4, around_spikes=3)


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "8"])
def test_what_is_no_number_of_steps_is_refused(tmp_path, every):
    with pytest.raises(TracingError, match="parameters_every must be"):
        gradflow.Tracer(network(), tmp_path / "run", parameters_every=every)


def test_frozen_parameters_have_no_turn_until_they_are_trained():
    parameters = {
        "base": nn.Parameter(torch.ones(1000), requires_grad=False),
        **{f"adapter {k}": nn.Parameter(torch.ones(10)) for k in range(4)},
        "last": nn.Parameter(torch.ones(500), requires_grad=False),
    }

    def sizes():
        now = {name: one for name, one in parameters.items() if one.requires_grad}
        return [sum(one.numel() for one in part) for part in turns.each(Trained(now))]

    turns = Turns(2, parameters)
    assert sizes() == [20, 20]
    parameters["base"].requires_grad_(True)
    assert sorted(sizes()) == [20, 1020]
    parameters["last"].requires_grad_(True)
    assert sorted(sizes()) == [520, 1020]
    again = Turns(2, parameters)
    again.load_state_dict(turns.state_dict(), parameters)
    assert again.state_dict() == turns.state_dict()
