"""Verdicts from updates that were measured in turns are those from the updates of every step."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from analyses.comparison.divergence import first_difference
from analyses.gradients.groups.measure import network_groups
from analyses.health.conditions import read_health
from analyses.health.conditions.updates import weight_updates, whole_updates
from analyses.reasons.possible_reasons import update_to_weight
from analyses.result import Verdict

EVERY = 4


def network(depth=2):
    torch.manual_seed(0)
    inner = [part for _ in range(depth - 1) for part in (nn.Linear(16, 16), nn.ReLU())]
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), *inner, nn.Linear(16, 3)).double()


def recorded(
    folder,
    every,
    *,
    steps=48,
    rates=(0.05, 0.05),
    keep=False,
    without="",
    depth=2,
):
    """Train with two groups of parameters, of the first layer and of the others."""
    model = network(depth)
    first = list(model[0].parameters())
    others = [one for name, one in model[2:].named_parameters() if name != without]
    parts = zip((first, others), rates, strict=True)
    optimizer = torch.optim.SGD([{"params": part, "lr": rate} for part, rate in parts])
    options = {"groups": {"all": "*", "first": "0"}, "updates_every": every}
    with gradflow.Tracer(model, folder, optimizer=optimizer, **options) as tracer:
        for step in range(steps):
            draw = torch.Generator().manual_seed(step)
            inputs = torch.randn(32, 6, generator=draw).double()
            loss = F.cross_entropy(model(inputs), (inputs[:, 0] > 0).long())
            loss.backward()
            tracer.log(loss=loss)
            optimizer.step()
            if not keep:
                optimizer.zero_grad()
        tracer.end_epoch()
    return gradflow.open_run(folder)


def both(tmp_path, **options):
    """The same training with all updates at each step, and with updates in turns."""
    return [recorded(tmp_path / str(every), every, **options) for every in (1, EVERY)]


def verdicts(run):
    return {one.condition: one.verdict for one in read_health(run)}


@pytest.mark.parametrize(
    ("options", "condition", "expected"),
    [
        ({}, "stalled", Verdict.CONTRADICTED),
        ({"rates": (1e-9, 1e-9)}, "stalled", Verdict.SUPPORTED),
        ({"rates": (1e-9, 0.05)}, "stalled", Verdict.SUPPORTED),
        ({"rates": (300.0, 300.0)}, "overshooting", Verdict.SUPPORTED),
        ({}, "overshooting", Verdict.CONTRADICTED),
        ({"keep": True}, "accumulating", Verdict.SUPPORTED),
        ({}, "accumulating", Verdict.CONTRADICTED),
        ({"without": "2.weight"}, "not-updated", Verdict.SUPPORTED),
        ({"rates": (0.0, 0.05)}, "not-updated", Verdict.SUPPORTED),
        ({}, "not-updated", Verdict.CONTRADICTED),
        # Of each weight there are then five updates, too few for an interval.
        ({"steps": 20}, "stalled", Verdict.CONTRADICTED),
    ],
)
def test_a_verdict_is_the_same_as_with_the_updates_of_every_step(
    tmp_path, options, condition, expected
):
    found = [verdicts(run) for run in both(tmp_path, **options)]
    assert [one[condition] for one in found] == [expected, expected]


def test_gradients_that_are_carried_over_show_if_one_parameter_has_its_turn_in_a_step(tmp_path):
    run = recorded(tmp_path / "run", 6, steps=24, keep=True)
    assert run.parameters.groupby("step").update_norm.count().max() == 1
    assert verdicts(run)["accumulating"] is Verdict.SUPPORTED


@pytest.mark.parametrize("every", [1, EVERY, 6])
@pytest.mark.parametrize("period", [2, 4])
def test_steps_in_which_an_optimizer_may_have_waited_count_as_unknown(tmp_path, every, period):
    """Its gradients are zeroed before each of its steps, and are left over in those between."""
    model = network()
    often = torch.optim.SGD([*model[2].parameters(), *model[4].parameters()], lr=0.05)
    rare = torch.optim.SGD(model[0].parameters(), lr=0.05)
    options = {"optimizer": [often, rare], "updates_every": every}
    with gradflow.Tracer(model, tmp_path / "run", **options):
        for step in range(72):
            is_due = step % period == period - 1
            for one in [often, rare] if is_due else [often]:
                one.zero_grad()
            inputs = torch.randn(32, 6, generator=torch.Generator().manual_seed(step)).double()
            model(inputs).square().sum().backward()
            for one in [often, rare] if is_due else [often]:
                one.step()
    run = gradflow.open_run(tmp_path / "run")
    found = {one.condition: one for one in read_health(run)}["accumulating"]
    assert (found.verdict, found.value) == (Verdict.CONTRADICTED, 0.0)


@pytest.mark.parametrize("every", [1, EVERY, 8])
@pytest.mark.parametrize("period", [2, 4])
def test_steps_in_which_an_optimizer_waits_make_no_weight_one_that_hardly_moves(
    tmp_path, every, period
):
    """In some of them all updates that have a turn are those of the optimizer that waits."""
    model, heard = network(), []
    often = torch.optim.SGD([*model[2].parameters(), *model[4].parameters()], lr=0.05)
    rare = torch.optim.Adam(model[0].parameters(), lr=1e-3)
    options = {"optimizer": [often, rare], "updates_every": every, "alerts": heard.append}
    with gradflow.Tracer(model, tmp_path / "run", **options):
        for step in range(96):
            model.zero_grad()
            inputs = torch.randn(32, 6, generator=torch.Generator().manual_seed(step)).double()
            F.cross_entropy(model(inputs), (inputs[:, 0] > 0).long()).backward()
            often.step()
            if step % period == 0:
                rare.step()
    run = gradflow.open_run(tmp_path / "run")
    assert weight_updates(run)["0.weight"].dropna().min() > 0
    assert "stalled" not in {one.condition for one in heard}
    found = {one.condition: one for one in read_health(run)}["stalled"]
    assert found.verdict is Verdict.CONTRADICTED


def test_too_few_updates_of_a_weight_that_hardly_moves_leave_it_open(tmp_path):
    run = recorded(tmp_path / "run", EVERY, steps=20, rates=(1e-9, 0.05))
    assert verdicts(run)["stalled"] is Verdict.INCONCLUSIVE


def test_parameters_without_a_turn_leave_open_whether_all_are_updated(tmp_path):
    run = recorded(tmp_path / "run", 12, steps=8, depth=5)
    found = {one.condition: one for one in read_health(run)}["not-updated"]
    assert found.verdict is Verdict.INCONCLUSIVE
    measured = run.parameters.groupby("parameter").update_norm.count()
    left = int((measured == 0).sum())
    assert left > 0
    assert found.note == f"The updates of {left} trained parameters have had no turn yet."


def test_the_ratio_of_a_step_is_estimated_from_the_weights_whose_turn_it_was(tmp_path):
    whole, in_turns = both(tmp_path, steps=12)
    rows = whole.parameters.set_index(["step", "parameter"])
    measured = in_turns.parameters[in_turns.parameters.update_norm.notna()]
    names = list(weight_updates(in_turns).columns)
    assert names == list(weight_updates(whole).columns)
    found = whole_updates(in_turns)
    assert len(found) > 0
    for step, one in measured[measured.parameter.isin(names)].groupby("step"):
        every = rows.loc[[(step, name) for name in names]]
        own = rows.loc[[(step, name) for name in one.parameter]]
        ratio = np.sqrt(EVERY * (own.update_norm**2).sum() / (every.weight_norm**2).sum())
        assert found[step] == pytest.approx(ratio, rel=1e-12)


def test_runs_with_and_without_turns_do_not_differ(tmp_path):
    whole, in_turns = both(tmp_path, steps=12)
    for pair in ((whole, in_turns), (in_turns, whole)):
        assert first_difference(*pair).place is None
    other = recorded(tmp_path / "other", EVERY, steps=12, rates=(0.05, 0.06))
    place = first_difference(whole, other).place
    assert place is not None
    assert place.step <= EVERY


def test_medians_over_parameters_are_those_of_each_round_of_turns(tmp_path):
    whole, in_turns = both(tmp_path, steps=14)
    assert len(update_to_weight(whole)) == 14
    found = update_to_weight(in_turns)
    ratios = in_turns.parameters.set_index("step").update_to_weight
    rounds = [ratios.loc[4 * k : 4 * k + 3].median() for k in range(3)]
    assert found == pytest.approx(np.log(rounds), rel=1e-12)


def test_the_ratio_of_a_group_is_that_of_a_round_in_which_each_parameter_had_its_turn(tmp_path):
    whole, in_turns = both(tmp_path, steps=12)
    assert in_turns.groups.update_to_weight.isna().all()
    found = {one.group: one for one in network_groups("net", [in_turns]).by_group.itertuples()}
    true = {one.group: one for one in network_groups("net", [whole]).by_group.itertuples()}
    assert set(found) == set(true)
    table = network_groups("net", [in_turns]).by_group.dropna(subset=["update_to_weight"])
    assert list(table[table.group == "all"].step) == [3, 7, 11]
    rows = in_turns.parameters
    one = rows[rows.step.between(4, 7)].assign(
        u=lambda x: x.update_norm**2, w=lambda x: x.weight_norm**2
    )
    for group, own in (("all", one), ("first", one[one.parameter.str.startswith("0.")])):
        ratio = np.sqrt(own.u.sum() / own.groupby("parameter").w.mean().sum())
        at = table[(table.group == group) & (table.step == 7)].update_to_weight
        assert at.item() == pytest.approx(ratio, rel=1e-9)


class Adapted(nn.Module):
    """A frozen layer and a low-rank adapter, one of whose weights starts at 0."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(16, 16).requires_grad_(False)
        self.down, self.up = nn.Linear(16, 4, bias=False), nn.Linear(4, 16, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return x + torch.tanh(self.base(x) + self.up(self.down(x)))


@pytest.mark.parametrize("option", ["updates_every", "parameters_every"])
@pytest.mark.parametrize("every", [1, 2, EVERY])
def test_adapters_that_start_at_0_make_no_large_steps_whatever_shares_their_turn(
    every, option, tmp_path
):
    torch.manual_seed(0)
    model = nn.Sequential(*(Adapted() for _ in range(4)))
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, **{option: every}) as tracer:
        for _ in range(20):
            optimizer.zero_grad()
            loss = (model(torch.randn(16, 16)) - torch.randn(16, 16)).square().mean()
            loss.backward()
            tracer.log(loss=loss)
            optimizer.step()
    run = gradflow.open_run(tmp_path / "run")
    assert whole_updates(run).max() < 1e-3
    assert verdicts(run)["overshooting"] is Verdict.CONTRADICTED
