"""The rules of SageMaker Debugger, and other tools' complaints, are read as they are published."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

FOLDER = Path(__file__).parents[2] / "benchmarks" / "kinds"
OWN = ("answers", "beside_peers", "diagnosers", "healthy", "planted", "run", "tables", "training",
       "trial")  # fmt: skip


@pytest.fixture(scope="module")
def modules():
    """The modules of the benchmark, which find each other as scripts in one folder do."""
    sys.path.insert(0, str(FOLDER))
    names = (*OWN, "diagnosers.debugger", "diagnosers.rules", "diagnosers.subjects",
             "diagnosers.watcher", "planted.fault")  # fmt: skip
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.pop(0)
        for name in list(sys.modules):
            if name.partition(".")[0] in OWN:
                del sys.modules[name]


@pytest.fixture
def debugger(modules):
    return modules["diagnosers.debugger"]


def test_a_gradient_vanishes_below_its_mean_absolute_value(debugger):
    gradients = {"a": torch.tensor([-2e-7, 1e-8]), "b": torch.tensor([-1.5e-7, 1e-8])}
    assert debugger.vanishing_gradient(gradients) == ["b"]


def test_a_tensor_explodes_by_infinities_or_by_nan_alone(debugger):
    tensors = {"inf": torch.tensor([1.0, float("inf")]), "nan": torch.tensor([float("nan")])}
    assert debugger.exploding_tensor({**tensors, "large": torch.tensor(1e30)}) == ["inf", "nan"]
    assert debugger.exploding_tensor(tensors, only_nan=True) == ["nan"]


def test_relus_are_dead_if_over_half_of_a_layer_is(debugger):
    output = torch.ones(8, 4)
    output[:, :2] = 0
    assert debugger.dead_relu({"half": output}) == []
    output[:, 2] = 0
    assert debugger.dead_relu({"most": output}) == ["most"]
    output[0, 2] = 1  # active in one sample of eight
    assert debugger.dead_relu({"most": output}) == []


def test_tanh_is_saturated_outside_its_published_bounds(debugger):
    inputs = torch.full((8, 3), 9.4)
    assert debugger.saturated_activation({"a": inputs}, *debugger.TANH) == []
    inputs[:, :2] = -9.6
    assert debugger.saturated_activation({"a": inputs}, *debugger.TANH) == ["a"]
    assert debugger.saturated_activation({"a": inputs}, *debugger.SIGMOID) == []


def test_updates_are_compared_with_the_weights_before(debugger):
    before = {"grown": torch.ones(2), "kept": torch.ones(2), "moved": torch.ones(2)}
    after = {"grown": torch.full((2,), 11.1), "kept": torch.ones(2), "moved": torch.full((2,), 1.1)}
    assert debugger.weight_update_ratio(before, after) == (["grown"], ["kept"])


def test_all_zero_and_unchanged(debugger):
    zeros = {"zeros": torch.zeros(3), "one": torch.tensor([0.0, 0.0, 1.0])}
    assert debugger.all_zero(zeros) == ["zeros"]
    assert debugger.all_zero(zeros, threshold=60) == ["zeros", "one"]
    steps = [{"a": torch.ones(2), "b": torch.ones(2) * k} for k in (1, 2, 1)]
    assert debugger.unchanged_tensor(steps[:2]) == []
    assert debugger.unchanged_tensor(steps) == ["a"]


def test_the_loss_is_compared_every_ten_steps(debugger):
    falling = [20.0 - step for step in range(11)]
    assert not debugger.loss_not_decreasing(falling)
    assert debugger.loss_not_decreasing([1.0] * 11)
    assert not debugger.loss_not_decreasing([1.0] * 12)  # step 11 is not looked at
    assert debugger.loss_not_decreasing(falling, diff_percent=60)


def test_overfitting_is_a_gap_of_a_tenth_and_stalling_half_an_hour(debugger):
    assert debugger.overfit([1.0], [1.11])
    assert not debugger.overfit([1.0], [1.09])
    assert not debugger.overfit([1.0, 1.0], [1.2, 1.0], patience=2)
    assert debugger.stalled_training(1801)
    assert not debugger.stalled_training(1799)


def test_an_initialization_is_poor_by_variance_or_by_narrow_gradients(debugger):
    wide = {"g": torch.linspace(-1, 1, 100)}
    narrow = {"g": torch.linspace(-1, 1, 100) * 5e-4}
    alike = {"a": torch.tensor([-1.0, 1.0]), "b": torch.tensor([-3.0, 3.0])}
    apart = {"a": torch.tensor([-1.0, 1.0]), "b": torch.tensor([-4.0, 4.0])}
    assert not debugger.poor_weight_initialization(alike, wide, 0)
    assert debugger.poor_weight_initialization(apart, wide, 0)
    assert debugger.poor_weight_initialization(alike, narrow, 9)
    assert not debugger.poor_weight_initialization(apart, narrow, 10)


def test_complaints_speak_of_conditions_that_exist(modules):
    known = set(modules["answers"].CONDITIONS)
    subjects = modules["diagnosers.subjects"].SUBJECTS
    assert set().union(*subjects.values()) <= known
    rules = modules["diagnosers.rules"].RULES
    assert {f"debugger: {one}" for one in rules} == {
        one for one in subjects if one.startswith("debugger: ")
    }
    assert modules["diagnosers.subjects"].conditions_of("gradflow: dead") == {"dead"}


def small(modules, rate):
    """A linear model on four samples, six steps long."""
    torch.manual_seed(0)
    inputs, targets = torch.randn(4, 3), torch.randn(4, 2)
    return modules["training"].Training(
        "small", nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)),
        lambda _: (inputs, targets),
        lambda model, given, wanted: nn.functional.mse_loss(model(given), wanted),
        "SGD", rate, 12, "2",
    )  # fmt: skip


def test_watching_does_not_change_the_training_and_finds_what_does_not_move(modules, tmp_path):
    watched = modules["diagnosers.watcher"].watched
    rules = modules["diagnosers.rules"].Debugger
    plain = modules["training"].train(small(modules, 0.1), tmp_path / "run").losses
    losses, _ = watched(small(modules, 0.1), rules(), tmp_path)
    assert losses == plain
    _, complaints = watched(small(modules, 0.0), rules(), tmp_path)
    found = {one.subject: one.step for one in complaints}
    assert found["debugger: WeightUpdateRatio: small"] == 0
    assert found["debugger: UnchangedTensor"] == 2
    assert found["debugger: LossNotDecreasing"] == 10


def row(truth, complaints, reason="", found=()):
    said = {"complaints": [[one, 0] for one in complaints], "could_not_run": reason,
            "losses": 1, "seconds": 1.0}  # fmt: skip
    return {
        "kind": "small", "fault": "dead units" if truth else "healthy", "kept": True,
        "truth": truth, "losses": 1, "seconds": 2.0,
        "answers": {"found": [{"condition": one} for one in found]}, "tools": {"torchmortem": said},
    }  # fmt: skip


def test_the_tables_tell_named_from_said_and_from_could_not_run(modules):
    beside = modules["beside_peers"]
    truth = {"expected": ["dead"], "effects": ["stalled"]}
    ill = [
        row(truth, ["torchmortem: Dead units"], found=["dead"]),
        row(truth, ["torchmortem: Update ratio too low"]),
        row(truth, ["torchmortem: Rank collapse"]),
        row(truth, [], reason="takes one optimizer"),
    ]
    well = [row(None, ["torchmortem: Rank collapse"]), row(None, [])]
    tools = ["gradflow", "torchmortem"]
    text = "\n".join(beside.totals(well, ill, tools))
    assert "| gradflow | 4 of 4 ill, 2 of 2 healthy | 25.0 %" in text
    assert "| torchmortem | 3 of 4 ill, 2 of 2 healthy | 33.3 %" in text
    for expected in ("66.7 %", "50.0 %", "5 of 5"):
        assert expected in text
    assert beside.finds_table(ill, tools)[2] == (
        "| dead units | 4 | 1 (1) | 1 (3), 1 could not run |"
    )
    assert beside.wolves(well, tools)[2:] == ["| torchmortem: Rank collapse | 1 | 2 |"]
    assert beside.reasons(ill, tools) == [
        "- torchmortem could not run on small: takes one optimizer"
    ]


def test_a_training_is_prepared_alike_every_time(modules):
    trial = modules["trial"]
    one = trial.Trial(3, "perceptron with ReLUs", "dead units", 0)
    (first, _, truth), (second, _, again) = trial.prepared(one), trial.prepared(one)
    assert truth == again
    pairs = zip(first.model.parameters(), second.model.parameters(), strict=True)
    assert all(torch.equal(mine, other) for mine, other in pairs)
