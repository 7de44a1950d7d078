import math

import pytest
import torch
from torch import nn

import gradflow
from gradflow.errors import TracingError
from gradflow.hooks.selection import schedules
from gradflow.hooks.selection.schedules import (
    Budget,
    default_schedule,
    every,
    first_recorded_of_each_epoch,
    first_then_every,
    log_spaced,
)
from gradflow.hooks.selection.steps import HistogramSchedule


def steps_of(schedule, count):
    return [step for step in range(count) if schedule(step)]


def test_every_and_first_then_every():
    assert steps_of(every(4), 10) == [0, 4, 8]
    assert steps_of(first_then_every(3, 5), 12) == [0, 1, 2, 5, 10]


@pytest.mark.parametrize("per_decade", [1, 3, 10])
def test_log_spaced_steps_are_the_whole_parts_of_a_geometric_series(per_decade):
    powers = {int(10 ** (i / per_decade) + 1e-9) for i in range(5 * per_decade)}
    expected = sorted({0} | {power for power in powers if power < 5000})
    assert steps_of(log_spaced(per_decade), 5000) == expected


@pytest.mark.parametrize("make", [every, log_spaced, lambda n: first_then_every(1, n)])
@pytest.mark.parametrize("count", [0, -1, 1.5, True])
def test_an_invalid_number_of_steps_is_refused(make, count):
    with pytest.raises(TracingError, match="whole number of steps"):
        make(count)


@pytest.mark.parametrize("share", [0, 1, -0.1, math.nan, True])
def test_an_invalid_share_is_refused(share):
    with pytest.raises(TracingError, match="between 0 and 1"):
        Budget(share)


def spend(budget, *, plain, extra, writing, steps):
    """Run `budget` with an artificial clock; return the share of time that recording took."""
    spent = total = 0.0
    for step in range(steps):
        recorded = budget(step)
        now_writing = writing if recorded and step % 5 == 0 else 0.0
        cost = (extra if recorded else 0.0) + now_writing
        budget.add_step(recorded=recorded, seconds=plain + cost, writing=now_writing)
        spent, total = spent + cost, total + plain + cost
    return spent / total


@pytest.mark.parametrize("share", [0.01, 0.02, 0.2])
@pytest.mark.parametrize("extra", [0.1, 0.5, 3.0])
@pytest.mark.parametrize("writing", [0.0, 0.05])
def test_a_budget_is_kept_and_used(share, extra, writing):
    budget = Budget(share)
    real = spend(budget, plain=1.0, extra=extra, writing=writing, steps=5000)
    assert real <= share
    assert real > 0.8 * min(share, extra / (1 + extra))
    summary = budget.summary()
    assert summary["measured_share"] == pytest.approx(real, rel=1e-6)
    assert summary["recorded_steps"] < summary["steps"] == 5000


def test_a_budget_that_recording_does_not_reach_records_all_but_the_measured_ones():
    budget = Budget(0.5)
    assert spend(budget, plain=1.0, extra=0.1, writing=0.0, steps=100) < 0.1
    assert budget.summary()["recorded_steps"] == 97


def spend_together(share, *, extra, steps, slowness=(1.0, 1.7)):
    """Run a budget in each of several processes, whose clocks differ, as `spend` runs one.

    Return the steps recorded by each, the share of the time of the first, and how often it was
    asked.
    """
    budgets = [Budget(share) for _ in slowness]
    told: list[int] = []
    asked = []

    def first_says(number):
        told.append(number)
        asked.append(number)
        return number

    budgets[0].decide_with(first_says)
    for budget in budgets[1:]:
        budget.decide_with(lambda number: told[-1])
    recorded: list[list[int]] = [[] for _ in budgets]
    spent = total = 0.0
    for step in range(steps):
        for rank, (budget, factor) in enumerate(zip(budgets, slowness, strict=True)):
            wanted = budget(step)
            seconds = factor * (1.0 + extra * wanted)
            budget.add_step(recorded=wanted, seconds=seconds, writing=0.0)
            if wanted:
                recorded[rank].append(step)
            if rank == 0:
                total += seconds
                spent += extra * wanted
    return recorded, spent / total, len(asked)


@pytest.mark.parametrize("share", [0.01, 0.02, 0.2])
@pytest.mark.parametrize("extra", [0.1, 3.0])
def test_processes_with_different_clocks_record_the_same_steps_within_the_budget(share, extra):
    recorded, real, asked = spend_together(share, extra=extra, steps=4000)
    assert recorded[0] == recorded[1]
    assert recorded[0][:2] == [0, 4]
    assert 0.8 * min(share, extra / (1 + extra)) < real <= share
    assert asked <= len(recorded[0])


def test_processes_decide_again_if_the_next_recorded_step_is_far_off():
    recorded, real, asked = spend_together(0.001, extra=30.0, steps=20_000)
    assert recorded[0] == recorded[1] == [0, 4]
    assert asked == 20  # at step 5, and after each 1000
    assert real == pytest.approx(60 / 20_060)


def test_a_budget_that_many_processes_share_is_resumed_at_the_same_step():
    budget = Budget(0.02)
    budget.decide_with(lambda number: number)
    for step in range(40):
        budget.add_step(recorded=budget(step), seconds=2.0, writing=0.0)
    state = budget.state_dict()
    again = Budget(0.02)
    again.decide_with(lambda number: pytest.fail("the next step was known already"))
    again.load_state_dict(state)
    assert [again(step) for step in range(40, state["next"] + 1)] == [
        step == state["next"] for step in range(40, state["next"] + 1)
    ]


def test_a_budget_is_measured_by_the_tracer_and_written_into_the_run(tmp_path, monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr(schedules, "median", lambda values: sorted(values)[len(values) // 2])
    monkeypatch.setattr("gradflow.hooks.step_cycle.time.monotonic", lambda: float(next(clock)))
    model = nn.Sequential(nn.Linear(3, 2))
    with gradflow.Tracer(model, tmp_path / "run", schedule=Budget(0.02)) as tracer:
        for _ in range(20):
            model(torch.ones(2, 3)).sum().backward()
            tracer.step()
    run = gradflow.open_run(tmp_path / "run")
    assert run.description["tracing"]["schedule"] == "a budget of 2.00% of the time"
    budget = run.description["budget"]
    assert budget["share"] == 0.02
    assert budget["steps"] == 20
    assert budget["recorded_steps"] == len(run.steps)
    # Three readings a step, the third of them the next one's first.
    assert budget["seconds"] == 40.0


def test_a_schedule_is_called_once_for_every_step_in_order(tmp_path):
    asked = []

    def schedule(step):
        asked.append(step)
        return step % 2 == 0

    model = nn.Sequential(nn.Linear(3, 2))
    with gradflow.Tracer(model, tmp_path / "run", schedule=schedule) as tracer:
        for _ in range(5):
            model(torch.ones(2, 3)).sum().backward()
            tracer.step()
        tracer.end_epoch()
    assert asked == list(range(len(asked)))


@pytest.mark.parametrize("steps_per_epoch", [1, 3, 10])
@pytest.mark.parametrize("interval", [1, 2, 4, 7])
def test_the_first_recorded_step_of_each_epoch(steps_per_epoch, interval):
    recorded = [step for step in range(60) if step % interval == 0]
    first = {step // steps_per_epoch: step for step in reversed(recorded)}
    schedule = first_recorded_of_each_epoch(steps_per_epoch)
    assert [step for step in recorded if schedule(step)] == sorted(first.values())


def test_epochs_of_zero_steps_are_refused():
    with pytest.raises(TracingError, match="whole number of steps"):
        first_recorded_of_each_epoch(0)


def recorded_in_epochs(budget, lengths, *, extra):
    """The recorded steps of each epoch, counted from its beginning, and the share of their cost."""
    found, start, spent, total = [], 0, 0.0, 0.0
    for length in lengths:
        budget.epoch_begins(start)
        of_epoch = []
        for place in range(length):
            wanted = budget(start + place)
            of_epoch += [place] * wanted
            budget.add_step(recorded=wanted, seconds=1 + extra * wanted, writing=0.0)
            spent, total = spent + extra * wanted, total + 1 + extra * wanted
        found.append(of_epoch)
        start += length
    return found, spent / total


def middle(part, parts, length):
    """The first step at or after the middle of one of several equal parts of an epoch."""
    return math.ceil((part + 0.5) * length / parts)


@pytest.mark.parametrize("length", [1, 5, 8, 41, 1000])
@pytest.mark.parametrize("is_known", [False, True])
def test_each_epoch_has_its_steps_even_if_the_budget_is_spent(length, is_known):
    budget = Budget(0.0001, each_epoch=8, steps_per_epoch=length if is_known else None)
    found, _ = recorded_in_epochs(budget, [length] * 5, extra=3.0)
    # The first steps of the training are not recorded: first steps are slow.
    marks = sorted({middle(part, 8, length) % length for part in range(8)})
    for epoch, steps in enumerate(found[1:], 1):
        assert steps == [one for one in marks if not 0 < epoch * length + one < 4]
    if is_known:
        expected = {0, 4, *marks}
    else:
        expected = {0, *(2**n for n in range(10)), *(3 * 2**n for n in range(10))}
    assert found[0] == sorted(one for one in expected if not 0 < one < 4 and one < length)


def test_epochs_of_changing_length_each_have_about_as_many_steps():
    found, _ = recorded_in_epochs(Budget(0.0001, each_epoch=8), [100, 100, 140, 60, 60], extra=3.0)
    assert [len(steps) for steps in found] == [11, 8, 11, 3, 8]


def test_what_the_steps_of_each_epoch_cost_counts_within_the_budget():
    _, share = recorded_in_epochs(Budget(0.02, each_epoch=8), [1000] * 6, extra=0.1)
    found, again = recorded_in_epochs(Budget(0.02), [1000] * 6, extra=0.1)
    assert share == pytest.approx(again, rel=0.02)
    assert share <= 0.02
    assert all(len(steps) > 100 for steps in found)


def test_in_short_epochs_the_share_is_exceeded_by_no_more_than_their_steps():
    _, share = recorded_in_epochs(Budget(0.02, each_epoch=8), [41] * 10, extra=3.0)
    assert share == pytest.approx(8 * 3 / (41 + 8 * 3), rel=0.05)


def test_a_budget_with_steps_of_each_epoch_is_resumed():
    budget = Budget(0.0001, each_epoch=8)
    recorded_in_epochs(budget, [100, 100], extra=3.0)
    again = Budget(0.0001, each_epoch=8)
    again.load_state_dict(budget.state_dict())
    assert steps_of(again, 300)[-8:] == [200 + middle(part, 8, 100) for part in range(8)]


def test_processes_share_the_steps_of_each_epoch():
    budget = Budget(0.001, each_epoch=4, steps_per_epoch=20)
    budget.decide_with(lambda number: number)
    found, _ = recorded_in_epochs(budget, [20] * 4, extra=30.0)
    assert found[1:] == [[3, 8, 13, 18]] * 3


@pytest.mark.parametrize("option", ["each_epoch", "steps_per_epoch"])
def test_an_invalid_number_of_steps_an_epoch_is_refused(option):
    with pytest.raises(TracingError, match=f"{option} must be a whole number of steps"):
        Budget(0.02, **{option: 0})


def test_by_default_every_step_is_recorded_on_the_cpu_and_a_bounded_share_elsewhere():
    assert str(default_schedule("cpu")) == "every step"
    for device in ("cuda", "mps", "xpu"):
        words = "a budget of 2.00% of the time, at least 8 steps of each epoch"
        assert str(default_schedule(device)) == words


def test_the_tracer_without_a_schedule_takes_that_of_the_models_device(tmp_path):
    kept = {}
    for device in ("cpu", "meta"):
        model = nn.Linear(3, 2, device=device)
        tracer = gradflow.Tracer(model, tmp_path / device)
        kept[device] = tracer._description["tracing"]["schedule"]
    assert kept["cpu"] == "every step"
    assert kept["meta"].startswith("a budget of 2.00%")


def test_the_tracer_says_where_epochs_begin(tmp_path):
    model = nn.Linear(3, 2)
    schedule = Budget(1e-9, each_epoch=2)
    with gradflow.Tracer(model, tmp_path / "run", schedule=schedule) as tracer:
        for _ in range(3):
            for _ in range(10):
                model(torch.ones(2, 3)).sum().backward()
                tracer.step()
            tracer.end_epoch()
    steps = gradflow.open_run(tmp_path / "run").steps.step
    assert list(steps) == [0, 4, 6, 8, 13, 18, 23, 28]


@pytest.mark.parametrize(
    ("histograms", "expected", "words"),
    [
        (False, [], "none"),
        (True, [0, 3, 6, 9, 12], "all recorded steps"),
        (1, [0, 3, 6, 9, 12], "all recorded steps"),
        (2, [0, 6, 12], "every 2 recorded steps"),
        (lambda step: step > 8, [9, 12], "a function"),
        (every(6), [0, 6, 12], "every 6 steps"),
    ],
)
def test_histograms_are_those_of_some_recorded_steps(tmp_path, histograms, expected, words):
    model = nn.Sequential(nn.Linear(3, 2))
    folder = tmp_path / "run"
    with gradflow.Tracer(model, folder, schedule=3, histograms=histograms) as tracer:
        for _ in range(2):
            for _ in range(7):
                model(torch.ones(2, 3)).sum().backward()
                tracer.step()
            tracer.end_epoch()
    run = gradflow.open_run(folder)
    assert list(run.steps.step) == [0, 3, 6, 9, 12]
    for table in (run.activation_histograms, run.gradient_histograms):
        assert list(table.step) == expected
        assert list(table.epoch) == [1 + (step > 6) for step in expected]
    assert run.description["tracing"]["histograms"] == words


def test_a_histogram_function_is_called_once_a_recorded_step(tmp_path):
    asked = []
    model = nn.Sequential(nn.Linear(3, 2))
    with gradflow.Tracer(model, tmp_path / "run", schedule=2, histograms=asked.append) as tracer:
        for _ in range(2):
            for _ in range(4):
                model(torch.ones(2, 3)).sum().backward()
                tracer.step()
            tracer.end_epoch()
    assert asked == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("histograms", "message"), [(0, "histograms must be a whole"), (Budget(0.1), "a budget cannot")]
)
def test_invalid_histogram_options_are_refused(histograms, message):
    with pytest.raises(TracingError, match=message):
        HistogramSchedule(histograms)
