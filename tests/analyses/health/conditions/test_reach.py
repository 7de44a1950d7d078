"""Trainings of which some parameters learn nothing, each for a reason that is known."""

import json

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from analyses.health.conditions import read_health
from analyses.health.conditions.reach import named
from analyses.health.question import all_findings
from analyses.result import Verdict

STEPS = 8


class Net(nn.Module):
    """A chain of three layers and a head; `how` says what is wrong with it."""

    def __init__(self, how=""):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU()
        )
        self.head, self.spare = nn.Linear(8, 3), nn.Linear(8, 3) if how else nn.Identity()
        self.how = how

    def forward(self, x):
        if self.how == "no_grad":
            with torch.no_grad():
                h = self.body(x)
        else:
            h = self.body(x)
        if self.how == "output not used":
            self.spare(h)
        return self.head(h.detach() if self.how == "detached" else h)


@pytest.fixture
def train(tmp_path):
    """Trains `model` on made data and returns the run."""

    def trained(model, optimizer=None, steps=STEPS):
        torch.manual_seed(0)
        inputs, targets = torch.randn(32, 6), torch.randint(0, 3, (32,))
        optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.05)
        with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
            for _ in range(steps):
                F.cross_entropy(model(inputs), targets).backward()
                optimizer.step()
                optimizer.zero_grad()
            tracer.end_epoch()
        return gradflow.open_run(tmp_path / "run")

    return trained


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    folder = tmp_path_factory.mktemp("runs") / "run"
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        for _ in range(STEPS):
            optimizer.zero_grad()
            F.cross_entropy(model(torch.randn(32, 6)), torch.randint(0, 3, (32,))).backward()
            optimizer.step()
        tracer.end_epoch()
    return gradflow.open_run(folder)


def readings(run):
    return {one.condition: one for one in read_health(run)}


def finding(run, condition):
    experiment = gradflow.open_experiment(run.folder)
    return next(one for one in all_findings(experiment) if one.topic == condition)


def ill(run):
    return {name for name, one in readings(run).items() if one.verdict is Verdict.SUPPORTED}


def test_all_parameters_of_a_sound_network_are_reached_and_updated(train):
    torch.manual_seed(0)
    found = readings(train(Net()))
    for condition in ("unused", "disconnected", "not-updated"):
        assert found[condition].verdict is Verdict.CONTRADICTED
        assert found[condition].value == 0
        assert found[condition].said == "0 of 8 trained parameters"


def test_layers_before_a_detached_output_get_no_gradient(train):
    run = train(Net("detached"))
    assert ill(run) == {"disconnected", "unused"}
    meaning = finding(run, "disconnected").meaning
    assert "6 of 10 trained parameters, those of body.0 to body.4" in meaning
    assert "body.0 to body.4 run forward: what comes out is detached" in meaning


def test_a_layer_that_never_runs_is_unused_not_disconnected(train):
    run = train(Net("not called"))
    assert ill(run) == {"unused"}
    assert readings(run)["unused"].layer == "spare"
    assert "2 of 10 trained parameters, those of spare" in finding(run, "unused").meaning


def test_a_layer_whose_output_the_loss_does_not_use_is_disconnected(train):
    run = train(Net("output not used"))
    assert ill(run) == {"disconnected"}
    assert "spare runs forward" in finding(run, "disconnected").meaning


def test_layers_that_run_without_gradients_are_told_so(train):
    meaning = finding(train(Net("no_grad")), "disconnected").meaning
    assert "body.0 ran without gradients." in meaning
    assert "body.2 ran without gradients." in meaning


def test_parameters_of_no_optimizer_are_never_updated(train):
    model = Net()
    run = train(model, torch.optim.SGD(model.head.parameters(), lr=0.05))
    assert ill(run) == {"not-updated"}
    meaning = finding(run, "not-updated").meaning
    assert "6 of 8 trained parameters, those of body.0 to body.4" in meaning
    assert "No optimizer given to the tracer has body.0 to body.4" in meaning


def test_a_learning_rate_of_zero_updates_nothing(train):
    model = Net()
    groups = [
        {"params": model.body.parameters(), "lr": 0.0},
        {"params": model.head.parameters(), "lr": 0.05},
    ]
    run = train(model, torch.optim.SGD(groups))
    assert ill(run) == {"not-updated"}
    meaning = finding(run, "not-updated").meaning
    assert "The learning rate of body.0 to body.4 is 0 in every recorded step" in meaning


def test_what_is_frozen_on_purpose_is_healthy(train):
    model = Net()
    model.body.requires_grad_(False)
    assert ill(train(model)) == set()


def test_an_adapter_that_starts_at_zero_is_healthy(train):
    """LoRA: the gradient of A is exactly 0 in the first step, while B is 0."""
    torch.manual_seed(0)

    class LoRA(nn.Module):
        def __init__(self):
            super().__init__()
            self.base, self.a, self.b = (
                nn.Linear(6, 3),
                nn.Linear(6, 2, bias=False),
                nn.Linear(2, 3),
            )
            self.base.requires_grad_(False)
            nn.init.zeros_(self.b.weight)

        def forward(self, x):
            return self.base(x) + self.b(self.a(x))

    run = train(LoRA())
    first = run.parameters.query("step == 0").set_index("parameter")["gradient_norm"]
    assert first["a.weight"] == 0
    assert ill(run) == set()


def test_an_expert_that_is_chosen_now_and_then_is_healthy(train):
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(6, 3) for _ in range(3))
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return self.experts[self.calls % 3](x)

    assert ill(train(Experts())) == set()


def test_experts_that_were_never_chosen_leave_it_open(train):
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(6, 6)
            self.experts = nn.ModuleList(nn.Sequential(nn.Linear(6, 3)) for _ in range(4))
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return self.experts[self.calls % 2](self.first(x))

    found = readings(train(Experts()))["unused"]
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.layer == "experts.2.0 and experts.3.0"
    assert "as experts do that a router chooses" in found.note


def test_layers_of_a_list_of_which_the_same_run_in_each_step_are_unused(train):
    class Short(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.head = nn.ModuleList(nn.Linear(6, 6) for _ in range(4)), Net()

        def forward(self, x):
            for layer in self.layers[:2]:
                x = layer(x).relu()
            return self.head(x)

    run = train(Short())
    assert ill(run) == {"unused"}
    assert readings(run)["unused"].layer == "layers.2 and layers.3"


def test_what_no_optimizer_has_and_no_gradient_reaches_is_not_meant_to_be_trained(train):
    """A teacher that follows its student as a running mean, or a target network."""

    class Student(nn.Module):
        def __init__(self):
            super().__init__()
            self.student, self.teacher, self.spare = Net(), Net(), nn.Linear(2, 2)

        def forward(self, x):
            with torch.no_grad():
                aim = self.teacher(x)
            return self.student(x) + aim

    model = Student()
    run = train(model, torch.optim.SGD(model.student.parameters(), lr=0.05))
    assert ill(run) == set()
    assert readings(run)["disconnected"].value == 0


def test_a_learning_rate_of_zero_is_left_open_while_the_training_goes_on(tmp_path):
    model = Net()
    groups = [
        {"params": model.body.parameters(), "lr": 0.0},
        {"params": model.head.parameters(), "lr": 0.05},
    ]
    optimizer = torch.optim.SGD(groups)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        for _ in range(STEPS):
            model(torch.randn(4, 6)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
        now = readings(gradflow.open_run(tmp_path / "run"))["not-updated"]
    assert now.verdict is Verdict.INCONCLUSIVE
    assert "may still be raised" in now.note
    end = readings(gradflow.open_run(tmp_path / "run"))["not-updated"]
    assert end.verdict is Verdict.SUPPORTED


@pytest.mark.parametrize("entry", [[1], "text", 5, {"did not run": 5}, {"did not run": [[], {}]}])
def test_damaged_reasons_are_not_read(train, entry):
    folder = train(Net("not called")).folder
    path = folder / "run.json"
    described = json.loads(path.read_text())
    path.write_text(json.dumps(described | {"not_observed": entry, "parameter_types": entry}))
    found = readings(gradflow.open_run(folder))
    assert found["disconnected"].layer == "spare"


@pytest.mark.parametrize(
    ("reason", "layer", "verdict"),
    [
        ("ran in a second thread", "body.1", Verdict.INCONCLUSIVE),
        ("ran in a second thread", "body.0", Verdict.SUPPORTED),  # its parameters are known
        ("ran in evaluation mode", "body.1", Verdict.SUPPORTED),
        ("ran without gradients", "body.1", Verdict.SUPPORTED),
    ],
)
def test_a_network_is_not_called_healthy_if_nothing_was_recorded_of_a_layer(
    sound, reason, layer, verdict
):
    path = sound.folder / "run.json"
    described = json.loads(path.read_text())
    path.write_text(json.dumps(described | {"not_observed": {reason: [layer]}}))
    healthy = finding(sound, "healthy")
    assert healthy.verdict is verdict
    assert ("nothing was recorded of layer body.1" in healthy.meaning) == (
        verdict is Verdict.INCONCLUSIVE
    )


def test_few_steps_leave_it_open(train):
    run = train(Net("detached"), steps=2)
    found = readings(run)["disconnected"]
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.note == "6 recorded steps are needed."


def test_without_an_optimizer_nothing_is_said_about_updates(tmp_path):
    model = Net()
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        for _ in range(STEPS):
            model(torch.randn(4, 6)).sum().backward()
            tracer.step()
        tracer.end_epoch()
    assert "not-updated" not in readings(gradflow.open_run(tmp_path / "run"))


def test_layers_are_named_as_a_range_only_if_none_lies_between():
    class Recorded:
        layers = pd.DataFrame({"layer": ["c", "a", "b", "d"]})
        parameters = pd.DataFrame({"parameter": [f"{one}.weight" for one in "abcde"]})

    assert named(["a.weight", "b.weight", "c.weight"], Recorded()) == "c to b"
    assert named(["c.weight", "b.weight", "d.weight"], Recorded()) == "c, b and d"
    assert named(["b.weight"], Recorded()) == "b"
    assert named(["e.weight", "c.weight"], Recorded()) == "c and e"
    Recorded.layers = pd.DataFrame({"layer": ["c"]})
    assert named([f"{one}.weight" for one in "abde"], Recorded()) == "a, b, d and e"


class Attending(nn.Module):
    """Attention of torch's own, which uses the weights of its `out_proj` without calling it."""

    def __init__(self):
        super().__init__()
        self.enter, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        h = self.enter(x)[:, None]
        return self.head(self.attention(h, h, h)[0][:, 0].detach())


def test_what_attention_uses_without_a_call_is_disconnected_not_unused(train):
    found = readings(train(Attending()))
    assert found["disconnected"].verdict is Verdict.SUPPORTED
    assert found["disconnected"].value == 6
    assert found["unused"].verdict is Verdict.CONTRADICTED


def test_gradients_that_are_not_numbers_are_not_told_as_none(train):
    class Dividing(nn.Module):
        def forward(self, x):
            return x / x.new_zeros(())

    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), Dividing(), nn.Linear(8, 3))
    found = {one.condition: one for one in read_health(train(model))}
    assert found["non-finite"].verdict is Verdict.SUPPORTED
    assert "disconnected" not in found


def test_weights_that_no_optimizer_has_are_told_once(train):
    model = nn.Sequential(nn.GRU(6, 8), First(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.05)
    found = {one.condition: one for one in read_health(train(model, optimizer))}
    assert found["not-updated"].verdict is Verdict.SUPPORTED
    assert "stalled" not in found  # no layer's weight is left


class First(nn.Module):
    """The first of what a module returns."""

    def forward(self, given):
        return given[0]
