"""Layers that no gradient reaches from some step on, and trainings in which that is meant."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from analyses.health.conditions import read_health
from analyses.result import Verdict

STEPS, CUT = 24, 10


class Net(nn.Module):
    """A body with a head and a second head; `cut` says in which steps the body is detached."""

    def __init__(self, cut=lambda step: False, second=lambda step: True):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
        self.head, self.second = nn.Linear(8, 3), nn.Linear(8, 3)
        self.cut, self.uses, self.step = cut, second, 0

    def forward(self, x):
        hidden = self.body(x)
        hidden = hidden.detach() if self.cut(self.step) else hidden
        one, other = self.head(hidden), self.second(hidden)
        used = self.uses(self.step)
        self.step += 1
        return one + other if used else one


@pytest.fixture
def disconnected(tmp_path):
    """Trains a model and reads the condition; `change` is called before each step."""

    def read(model, change=lambda optimizer, step: None, *, to_none=True, steps=STEPS):
        torch.manual_seed(0)
        inputs, targets = torch.randn(32, 6), torch.randint(0, 3, (32,))
        optimizer = torch.optim.SGD([{"params": [one]} for one in model.parameters()], lr=0.05)
        folder = tmp_path / "run"
        with gradflow.Tracer(model, folder, optimizer=optimizer, schedule=1) as tracer:
            for step in range(steps):
                change(optimizer, step)
                F.cross_entropy(model(inputs), targets).backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=to_none)
            tracer.end_epoch()
        found = {one.condition: one for one in read_health(gradflow.open_run(folder))}
        return found["disconnected"]

    return read


@pytest.mark.parametrize("to_none", [True, False])
def test_a_detach_that_begins_later_is_told_with_its_first_step(disconnected, to_none):
    one = disconnected(Net(lambda step: step >= CUT), to_none=to_none)
    assert one.verdict is Verdict.SUPPORTED
    assert (one.since, one.value) == (CUT, 4)
    assert one.layer == "body.0 and body.2"
    assert one.when == f"from step {CUT} on"
    assert f"Before step {CUT} a gradient reached them" in one.cause


def test_a_detach_in_the_middle_is_told_of_the_layers_before_it(disconnected):
    model = Net()
    model.body[1].register_forward_hook(
        lambda module, inputs, output: output.detach() if model.step >= CUT else output
    )
    one = disconnected(model)
    assert (one.verdict, one.since, one.layer) == (Verdict.SUPPORTED, CUT, "body.0")


@pytest.mark.parametrize(
    "cut",
    [lambda step: step >= STEPS - 5, lambda step: CUT <= step < STEPS - 1, lambda step: step % 2],
    ids=("too few steps", "until the last step but one", "every other step"),
)
def test_a_detach_with_a_break_or_in_few_steps_is_not_told(disconnected, cut):
    assert disconnected(Net(cut)).verdict is Verdict.CONTRADICTED


def freeze(model):
    def change(optimizer, step):
        if step == CUT:
            model.body.requires_grad_(False)

    return change


def rate_of_zero(model):
    def change(optimizer, step):
        model.cut = lambda step: step >= CUT
        for group in optimizer.param_groups[:4]:
            group["lr"] = 0.0 if step >= CUT else 0.05

    return change


@pytest.mark.parametrize("schedule", [freeze, rate_of_zero])
def test_freezing_on_schedule_is_not_ill(disconnected, schedule):
    model = Net()
    assert disconnected(model, schedule(model)).verdict is Verdict.CONTRADICTED


def test_an_expert_that_is_chosen_no_more_is_not_ill(disconnected):
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts, self.calls = nn.ModuleList(nn.Linear(6, 3) for _ in range(3)), 0

        def forward(self, x):
            self.calls += 1
            return self.experts[self.calls % (3 if self.calls < CUT else 2)](x)

    assert disconnected(Experts()).verdict is Verdict.CONTRADICTED


def test_a_term_that_is_left_out_from_some_step_on_leaves_it_open(disconnected):
    one = disconnected(Net(second=lambda step: step < CUT))
    assert (one.verdict, one.since, one.layer) == (Verdict.INCONCLUSIVE, CUT, "second")
    assert "a term of the loss that is left out" in one.note


def test_a_second_stage_of_training_leaves_it_open(disconnected):
    """The body with its own head first, then another head on the body as it is."""

    class Stages(Net):
        def forward(self, x):
            hidden = self.body(x)
            self.step += 1
            return self.head(hidden) if self.step <= CUT else self.second(hidden.detach())

    one = disconnected(Stages())
    assert one.verdict is Verdict.INCONCLUSIVE
    assert "a stage of training that begins there" in one.note


def test_a_generator_that_waits_for_its_critic_is_not_ill(tmp_path):
    """The generator's turn comes every eighth step, and the training ends before its next one."""
    torch.manual_seed(0)
    generator, critic = nn.Linear(4, 6), nn.Linear(6, 1)
    model = nn.ModuleDict({"generator": generator, "critic": critic})
    both = [torch.optim.SGD(one.parameters(), lr=0.05) for one in (generator, critic)]
    with gradflow.Tracer(model, tmp_path / "run", optimizer=both, schedule=1) as tracer:
        for step in range(STEPS):
            made = generator(torch.randn(8, 4))
            turn = 0 if step % 8 == 0 else 1
            score = critic(made if turn == 0 else made.detach()).mean()
            both[turn].zero_grad()
            (score if turn == 0 else -score).backward()
            both[turn].step()
        tracer.end_epoch()
    found = {one.condition: one for one in read_health(gradflow.open_run(tmp_path / "run"))}
    assert found["disconnected"].verdict is Verdict.CONTRADICTED
