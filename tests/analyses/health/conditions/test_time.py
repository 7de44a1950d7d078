"""Do gradients vanish or explode through time? From made courses, and from trainings."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradflow
from analyses.health.condition import NotAsked
from analyses.health.conditions.time import time_answers
from analyses.health.question import all_findings
from analyses.result import Verdict

POSITIONS, STEPS = 32, 60
FLAT = np.ones(POSITIONS)
AGO = np.arange(POSITIONS - 1, -1, -1.0)  # how many positions before the last
LAST = np.where(AGO == 0, 1.0, 0.0)
FELL, STAYED = np.linspace(2.0, 0.3, STEPS), np.full(STEPS, 2.0)


class Recorded:
    """A run of which the gradients by position and the losses are known; they are alike in steps.

    `profiles` are by tensor of the layer "rnn": input, output or calls.
    """

    def __init__(self, losses, profiles, kind="RNN", rms=0.3):
        self.steps = pd.DataFrame({"loss": losses})
        role = "block" if "calls" in profiles else "recurrent"
        self.layers = pd.DataFrame({"layer": ["rnn"], "type": [kind], "role": [role]})
        rows = [
            (step, "rnn", tensor, place, place, norm, rms if np.isscalar(rms) else rms[place])
            for step in range(len(losses))
            for tensor, norms in profiles.items()
            for place, norm in enumerate(norms)
        ]
        names = ["step", "layer", "tensor", "bin", "last_position", "gradient_norm", "rms"]
        self._table = pd.DataFrame(rows, columns=names)

    def table(self, name):
        assert name == "positions"
        return self._table


def ask(losses, profiles, **options):
    return time_answers(Recorded(losses, profiles, **options), 1e-3, 2e2, 20)


def verdicts(losses, profiles, **options):
    return [one.verdict.value for one in ask(losses, profiles, **options)]


NEITHER = ["contradicted", "contradicted"]
VANISHING, EXPLODING = ["supported", "contradicted"], ["contradicted", "supported"]


@pytest.mark.parametrize("tensor", ["input", "calls"])
@pytest.mark.parametrize(
    ("norms", "found"),
    [
        (0.5**AGO, VANISHING),
        (np.where(AGO > 20, 0.0, 0.1**AGO), VANISHING),  # too small for float32
        (0.9**AGO, NEITHER),
        (1.05**AGO, NEITHER),
        (1.6**AGO, EXPLODING),
    ],
    ids=["half", "zeros", "slowly", "grows a little", "grows"],
)
def test_the_course_decides_if_the_loss_does_not_fall(tensor, norms, found):
    assert verdicts(STAYED, {tensor: norms}) == found


def test_a_gradient_that_vanishes_is_no_fault_where_the_loss_falls():
    vanishing, _ = ask(FELL, {"input": 0.5**AGO})
    assert vanishing.verdict is Verdict.CONTRADICTED
    assert vanishing.said == (
        "the first 22 of 32 positions get less than 0.001 of the largest gradient at layer rnn, "
        "but the loss falls to 0.332 of what it was: what is learnt needs no longer memory"
    )


def test_growth_does_no_harm_where_the_loss_falls_unless_it_is_huge():
    grown, huge = 1.25**AGO, 1.6**AGO
    assert verdicts(STAYED, {"input": grown}) == EXPLODING
    assert verdicts(FELL, {"input": grown}) == NEITHER
    assert verdicts(FELL, {"input": huge}) == EXPLODING


@pytest.mark.parametrize(
    ("late", "losses", "verdict"),
    [
        (0.81, np.linspace(2.0, 1.7, STEPS), Verdict.INCONCLUSIVE),
        (0.81, FELL, Verdict.CONTRADICTED),
        (0.95, np.linspace(2.0, 1.7, STEPS), Verdict.CONTRADICTED),
    ],
    ids=["hardly back", "hardly back, but it learns", "back"],
)
def test_a_gradient_that_has_hardly_come_back_leaves_it_open(late, losses, verdict):
    run = Recorded(losses, {"input": 0.5**AGO})
    table = run.table("positions")
    table["gradient_norm"] = np.where(
        table["step"] < STEPS // 2, table["gradient_norm"], late ** AGO[table["bin"]]
    )
    vanishing, _ = time_answers(run, 1e-3, 2e2, 20)
    assert vanishing.verdict is verdict
    assert vanishing.held_early
    if verdict is Verdict.INCONCLUSIVE:
        assert "hardly come back" in vanishing.note


def test_without_a_loss_it_is_left_open():
    vanishing, exploding = ask(np.full(STEPS, np.nan), {"input": 0.5**AGO})
    assert vanishing.verdict is Verdict.INCONCLUSIVE
    assert "tracer.log" in vanishing.next_step
    assert exploding.verdict is Verdict.CONTRADICTED


def test_the_cause_is_told_apart_by_the_states():
    said = [
        ask(STAYED, {"input": 0.5**AGO, "output": LAST}, rms=rms)[0].cause for rms in (0.3, 0.97)
    ]
    assert said[0].startswith("Each step back in time leaves about 0.5 of the gradient")
    assert "too small" in said[0]
    assert "lie at the bounds of tanh (root mean square 0.97)" in said[1]
    gated = ask(STAYED, {"input": 0.5**AGO}, kind="LSTM")[0].cause
    assert "nothing before them" in gated


def test_where_the_loss_reads_every_position_nothing_is_concluded():
    answers = ask(STAYED, {"input": FLAT, "output": FLAT})
    assert all(isinstance(one, NotAsked) and not one.applies for one in answers)
    assert "reads every position" in answers[0].reason


def test_padding_at_either_end_is_no_fault():
    behind = np.where(AGO < 12, 0.0, 1.0)  # read at the last word of short sentences
    assert verdicts(STAYED, {"input": behind}) == NEITHER
    before = np.where(AGO > 19, 1e-9, 1.0)
    zeros = np.where(AGO > 19, 0.0, 0.3)
    assert verdicts(STAYED, {"input": before}, rms=zeros) == NEITHER
    assert verdicts(STAYED, {"input": before}) == VANISHING


def test_both_directions_may_be_read_at_either_end():
    first = {"input": 0.8 ** AGO[::-1], "output": LAST[::-1]}
    assert verdicts(STAYED, first) == NEITHER
    shorter = {"input": 0.4 ** AGO[::-1], "output": LAST[::-1]}
    assert verdicts(STAYED, shorter) == VANISHING
    ends = 0.7**AGO + 0.7 ** AGO[::-1]
    assert verdicts(STAYED, {"input": ends, "output": LAST + LAST[::-1]}) == NEITHER


def test_what_has_no_course_in_time_is_not_asked():
    no_layer = time_answers(Recorded(STAYED, {}, kind="LSTMCell"), 1e-3, 2e2, 20)
    assert [one.applies for one in no_layer] == [False, False]
    not_recorded = time_answers(Recorded(STAYED, {}), 1e-3, 2e2, 20)
    assert [one.applies for one in not_recorded] == [True, True]
    assert "no sequence has 8" in ask(STAYED, {"input": FLAT[:6]})[0].reason


class Reader(nn.Module):
    """A recurrent network that is read at its last position."""

    def __init__(self, factor: float, nonlinearity: str) -> None:
        super().__init__()
        self.rnn = nn.RNN(3, 8, batch_first=True, nonlinearity=nonlinearity)
        self.head = nn.Linear(8, 3)
        with torch.no_grad():
            nn.init.orthogonal_(self.rnn.weight_hh_l0)
            self.rnn.bias_hh_l0.zero_()
            self.rnn.bias_ih_l0.zero_()
            self.rnn.weight_hh_l0.mul_(factor)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


def findings(folder, model: nn.Module, steps: int = 40):
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        for _ in range(steps):
            target = torch.randint(3, (16,))
            x = 0.1 * torch.randn(16, 64, 3)
            x[torch.arange(16), 0, target] += 1  # the first input is what counts
            loss = F.cross_entropy(model(x), target)
            tracer.log(loss=loss)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    return {one.topic: one for one in all_findings(gradflow.open_experiment(folder))}


@pytest.mark.parametrize(
    ("factor", "nonlinearity", "wanted"),
    [
        (0.3, "tanh", "vanishing-in-time"),
        (1.0, "tanh", ""),
        (3.0, "relu", "exploding-in-time"),
    ],
)
def test_a_plain_network_over_64_steps(tmp_path, factor, nonlinearity, wanted):
    torch.manual_seed(1)
    found = findings(tmp_path / "run", Reader(factor, nonlinearity))
    ill = [
        key for key in found if key.endswith("in-time") and found[key].verdict.value == "supported"
    ]
    assert ill == ([wanted] if wanted else [])
    if wanted == "vanishing-in-time":
        assert "gradients vanish through time" in found[wanted].meaning
        assert "the first 5" in found[wanted].meaning
        assert "of 64 positions" in found[wanted].meaning
