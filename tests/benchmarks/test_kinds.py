"""The trainings of the benchmark on kinds have the truth that they are said to have."""

import importlib
import json
import random
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

FOLDER = Path(__file__).parents[2] / "benchmarks" / "kinds"
OWN = ("answers", "healthy", "planted", "run", "tables", "training", "trial")


@pytest.fixture(scope="module")
def kinds():
    """The modules of the benchmark, which find each other as scripts in one folder do."""
    sys.path.insert(0, str(FOLDER))
    threads = torch.get_num_threads()
    try:
        yield {name: importlib.import_module(name) for name in OWN}
    finally:
        torch.set_num_threads(threads)
        sys.path.pop(0)
        for name in list(sys.modules):
            if name.partition(".")[0] in OWN:
                del sys.modules[name]


def drawn(kinds, kind, seed=0):
    torch.manual_seed(seed)
    return kinds["planted"].maker(kind)(random.Random(seed))


@pytest.fixture(scope="module")
def rows(kinds):
    """A healthy and an ill training of two kinds, as lines of results."""
    trial, run_trial = kinds["trial"].Trial, kinds["trial"].run_trial
    wanted = [
        trial(3, "perceptron, digits", "healthy", 0),
        trial(3, "perceptron, digits", "detached before the head", 0),
        trial(3, "graph network", "healthy", 0),
        trial(3, "graph network", "parameters in no optimizer", 0),
    ]
    return [run_trial(one) for one in wanted]


def test_a_healthy_training_learns_and_is_called_healthy(rows):
    for row in (rows[0], rows[2]):
        assert row["kept"]
        assert row["answers"]["found"] == []


def test_a_planted_fault_is_found_with_its_cause_and_its_place(kinds, rows):
    tables = kinds["tables"]
    for row, condition in ((rows[1], "disconnected"), (rows[3], "not-updated")):
        assert tables.hit(row)["condition"] == condition
        assert tables.cause_is(row) == "right"
        assert tables.layer_is_right(row)
        assert tables.alarms(row) == []


def test_a_key_draws_the_same_training_again(kinds):
    first, second = (drawn(kinds, "graph network", 5) for _ in range(2))
    assert first.words == second.words
    for one, other in zip(first.batch_of(7), second.batch_of(7), strict=True):
        assert torch.equal(one, other)
    pairs = zip(first.model.parameters(), second.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_run_that_was_stopped_goes_on_where_it_was(kinds, rows, tmp_path, monkeypatch, capsys):
    run, path = kinds["run"], tmp_path / "kinds.jsonl"
    lines = [json.dumps({**row, "code": run.code()}) for row in rows]
    path.write_text("\n".join([*lines[:3], lines[3][:40]]) + "\n", encoding="utf-8")
    asked = []
    monkeypatch.setattr(run, "run_trial", lambda one: asked.append(one.key) or rows[2])
    options = run.Options(3, ("graph",), ("detached",), healthy=1, ill=0, results=path)
    run.main(options)
    assert asked == []
    run.main(run.Options(3, ("graph",), ("detached",), healthy=2, ill=0, results=path))
    assert asked == ["3/graph network/healthy/1"]
    monkeypatch.setattr(run, "code", lambda: "other")
    run.main(options)
    assert asked[1:] == ["3/graph network/healthy/0"]
    assert "1 of 1 trainings" in capsys.readouterr().out


def test_the_tables_count_alarms_misses_and_causes(kinds, rows):
    tables = kinds["tables"]
    said = {
        "condition": "dead",
        "value": 1.0,
        "cause": "",
        "otherwise": "",
        "layers": [],
        "step": None,
    }
    alarmed = {**rows[0], "answers": {**rows[0]["answers"], "found": [said]}}
    missed = {**rows[1], "answers": {**rows[1]["answers"], "found": []}}
    lines, kept = tables.report([alarmed, rows[2], missed, rows[3]], ["dead", "disconnected",
                                "not-updated"], verbose=True)  # fmt: skip
    text = "\n".join(lines)
    assert not kept
    assert "false alarms: 1 of 2" in text
    assert "missed: 1 of 2" in text
    assert "| perceptron, digits | 1 | 0 | 100.0 % (20.7 to 100.0)" in text
    assert "disconnected missed" in text
    lines, kept = tables.report([rows[0], rows[2], rows[1], rows[3]], ["dead"], verbose=False)
    assert "missed: 0 of 0" in "\n".join(lines)  # conditions that are absent are not counted


def test_a_detached_head_leaves_the_features_without_a_gradient(kinds):
    training = drawn(kinds, "perceptron, digits")
    draw = next(one for one in map(random.Random, range(9)) if random_start(one) is None)
    truth = kinds["planted"].FAULTS["detached before the head"].plant(training, draw)
    training.loss_of(*training.batch_of(0)).backward()
    without = {
        name.rpartition(".")[0]
        for name, one in training.model.named_parameters()
        if one.grad is None
    }
    assert without == set(truth.layers)
    assert training.model.head.weight.grad is not None


def random_start(draw):
    """None if `draw`, which is left as it was, plants a fault from the beginning."""
    state = draw.getstate()
    first = None if draw.random() < 0.6 else 1
    draw.setstate(state)
    return first


@pytest.mark.parametrize(("factor", "low", "high"), [(0.3, 0.0, 1e-3), (1.0, 1e-2, 1e2)])
def test_recurrent_weights_keep_or_lose_the_gradient_in_time(kinds, factor, low, high):
    numbers = importlib.import_module("planted.numbers")
    training = drawn(kinds, "rnn to the end")
    numbers.in_time(factor)(training, random.Random(0))
    assert low <= numbers.factor_in_time(training) < high


def test_one_way_to_average_leaves_all_outputs_alike(kinds):
    training = drawn(kinds, "autoencoder")
    kinds["planted"].FAULTS["features averaged over the batch"].plant(training, random.Random(0))
    with torch.no_grad():
        outputs = training.model(training.batch_of(0)[0])
    assert torch.equal(outputs, outputs[:1].expand_as(outputs))


def test_every_fault_can_be_planted_into_each_of_its_kinds(kinds):
    for fault in kinds["planted"].FAULTS.values():
        known = set(kinds["answers"].CONDITIONS)
        for kind in fault.kinds:
            if "transformer" in kind or kind in {"experts", "low-rank adapters"}:
                continue  # as the others, but slower to make
            training = drawn(kinds, kind, 1)
            truth = fault.plant(training, random.Random(1))
            assert set(truth.expected) | truth.effects <= known
            assert not truth.cause or truth.cause in importlib.import_module("planted.truth").CAUSES
            assert set(truth.layers) <= dict(training.model.named_modules()).keys()


def test_gates_that_remember_keep_most_of_a_state(kinds):
    sequences = importlib.import_module("healthy.sequences")
    module = nn.LSTM(1, 8)
    sequences.remember(module, 50)
    forget = (module.bias_ih_l0 + module.bias_hh_l0).detach()[8:16].sigmoid()
    assert float(forget.min()) == pytest.approx(49 / 50, rel=1e-6)


@pytest.mark.slow
def test_the_faults_of_probes_are_there_and_found(kinds):
    trial, run_trial = kinds["trial"].Trial, kinds["trial"].run_trial
    for fault, condition in (
        ("mostly noise", "noisy"),
        ("deep, plain and shattered", "shattered"),
    ):
        row = run_trial(trial(9101, "perceptron with ReLUs", fault, 0))
        assert row["kept"]
        assert condition in [one["condition"] for one in row["answers"]["found"]]


def test_each_condition_has_a_fault_that_is_to_show_it(kinds):
    planted = importlib.import_module("planted")
    expected = set()
    for fault in planted.FAULTS.values():
        draw = random.Random(3)
        training = drawn(kinds, fault.kinds[0], 3)
        expected |= set(fault.plant(training, draw).expected)
    assert set(kinds["answers"].CONDITIONS) <= expected
