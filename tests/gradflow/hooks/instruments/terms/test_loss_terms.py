"""When terms are measured, which of them, and what is said if they cannot be."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradflow import Tracer
from gradflow.errors import TracingError
from gradflow.hooks.instruments.terms.loss_terms import LossTerms
from gradflow.hooks.options import RecordingOptions
from gradflow.runs.reading.run import open_run


class TwoHeads(nn.Module):
    """Two heads on a trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.left, self.right = nn.Linear(3, 4), nn.Linear(4, 1), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.trunk(x)
        return self.left(x).square().mean(), self.right(x).square().mean()


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return TwoHeads()


def batch() -> Tensor:
    return torch.linspace(-1, 1, 6).reshape(2, 3)


def train(tracer: Tracer, model: nn.Module, steps: int, given=lambda step: True) -> None:
    for _ in range(steps):
        left, right = model(batch())
        if given(tracer.steps):
            tracer.terms({"left": left, "right": right})
        (left + right).backward()
        tracer.step()
        model.zero_grad()


def trace(folder, model: nn.Module, take_step, steps: int = 1, *, strict: bool = False) -> None:
    """Trace steps of `take_step(tracer, left, right)`, which runs their backward passes."""
    with Tracer(model, folder, terms=1, strict=strict) as tracer:
        for _ in range(steps):
            take_step(tracer, *model(batch()))
            tracer.step()
        tracer.end_epoch()


def measured(folder) -> list[int]:
    return open_run(folder).table("terms")["step"].drop_duplicates().tolist()


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, [0, 20]),
        ({"terms": 2}, [0, 2, 4]),
        ({"terms": 2, "schedule": 3}, [0, 6]),
        ({"terms": lambda step: step in (1, 3)}, [1, 3]),
    ],
)
def test_the_first_recorded_step_and_then_every_nth(tmp_path, model, options, steps):
    with Tracer(model, tmp_path / "run", **options) as tracer:
        train(tracer, model, steps[-1] + 2)
        tracer.end_epoch()
    assert measured(tmp_path / "run") == steps


def test_terms_that_begin_later_are_measured_from_the_next_step_on(tmp_path, model):
    with Tracer(model, tmp_path / "run", terms=4) as tracer:
        train(tracer, model, 10, given=lambda step: step >= 3)
        tracer.end_epoch()
    assert measured(tmp_path / "run") == [4, 8]


def test_terms_of_every_other_step_are_not_missed(tmp_path, model):
    with Tracer(model, tmp_path / "run", terms=3) as tracer:
        train(tracer, model, 9, given=lambda step: step % 2 == 0)
        tracer.end_epoch()
    assert measured(tmp_path / "run") == [0, 4, 8]


def test_without_a_call_no_step_but_the_first_is_prepared(tmp_path, model, monkeypatch):
    kept: list[object] = []
    monkeypatch.setattr(LossTerms, "_measure", lambda *_: pytest.fail("nothing was given"))
    with Tracer(model, tmp_path / "run") as tracer:
        keep = tracer._cycle.terms.keep
        tracer._cycle.terms.keep = lambda one: (kept.append(one), keep(one))[1]
        train(tracer, model, 20, given=lambda step: False)
    assert kept == [None]  # what was kept in the first step is let go as it ends


def test_a_term_that_does_not_reach_a_place_is_missing_there(tmp_path, model):
    with Tracer(model, tmp_path / "run") as tracer:
        left, right = model(batch())
        constant = torch.ones(())
        tracer.terms({"left": left, "right": right, "constant": constant, "number": 2})
        (left + right + constant + 2).backward()
        tracer.step()
        tracer.end_epoch()
    run = open_run(tmp_path / "run")
    table = run.table("terms").set_index(["place", "term"])["gradient_norm"]
    assert table["left.weight", "left"] > 0
    for missing in ("right", "constant", "number"):
        assert torch.isnan(torch.tensor(table["left.weight", missing]))
    pairs = run.table("term_pairs")
    assert set(pairs[["term", "other"]].itertuples(index=False, name=None)) == {("left", "right")}
    assert set(pairs["place"]) == {"all parameters", "trunk", "trunk.weight", "trunk.bias"}
    values = run.table("terms").query("kind == 'model'").set_index("term")["value"]
    assert values["number"] == 2
    assert values["constant"] == 1
    assert values["left"] == pytest.approx(left.item())


def test_a_pair_is_a_weight_and_the_term_without_it(tmp_path, model):
    learned = torch.tensor(3.0, requires_grad=True)
    with Tracer(model, tmp_path / "run") as tracer:
        left, right = model(batch())
        tracer.terms({"left": (0.5, left), "right": (learned, right), "rest": left})
        (0.5 * left + learned * right + left).backward()
        tracer.step()
        tracer.end_epoch()
    table = open_run(tmp_path / "run").table("terms")
    assert table["sum_error"].max() < 1e-6
    whole = table.query("kind == 'model'").set_index("term")
    assert whole["weight"].dropna().to_dict() == {"left": 0.5, "right": 3}
    assert whole["value"]["right"] == pytest.approx(3 * right.item())
    assert whole["gradient_norm"]["left"] == pytest.approx(0.5 * whole["gradient_norm"]["rest"])


def test_the_passes_of_a_step_add_up(tmp_path, model):
    batches = batch(), batch() + 1
    with Tracer(model, tmp_path / "run") as tracer:
        for inputs in batches:
            left, right = model(inputs)
            tracer.terms({"left": left / 2, "right": right / 2})
            ((left + right) / 2).backward()
        whole = {name: one.grad.clone() for name, one in model.named_parameters()}
        tracer.step()
        tracer.end_epoch()
    model.zero_grad()
    (sum(model(inputs)[0] for inputs in batches) / 2).backward()
    table = open_run(tmp_path / "run").table("terms").set_index(["place", "term"])
    for name in ("trunk.weight", "trunk.bias"):
        expected = float(model.get_parameter(name).grad.norm())
        assert table["gradient_norm"][name, "left"] == pytest.approx(expected, rel=1e-5)
        assert table["sum_norm"][name, "left"] == pytest.approx(float(whole[name].norm()), rel=1e-5)
    assert table["sum_error"].max() < 1e-6
    losses = [model(inputs)[0].item() / 2 for inputs in batches]
    assert table["value"]["all parameters", "left"] == pytest.approx(sum(losses) / 2)


def test_terms_that_are_sent_back_one_by_one_add_up_too(tmp_path, model):
    with Tracer(model, tmp_path / "run") as tracer:
        left, right = model(batch())
        tracer.terms({"left": left, "right": right})
        left.backward(retain_graph=True)
        right.backward()
        tracer.step()
        tracer.end_epoch()
    assert open_run(tmp_path / "run").table("terms")["sum_error"].max() < 1e-6


def test_terms_that_do_not_add_up_are_named_once(tmp_path, model):
    def forget_a_weight(tracer, left, right):
        tracer.terms({"left": left, "right": 0.9 * right})
        (left + right).backward()

    with pytest.warns(UserWarning, match="do not add up to the loss: in step 0") as warned:
        trace(tmp_path / "run", model, forget_a_weight, steps=3)
    assert len(warned) == 1
    run = open_run(tmp_path / "run")
    assert run.description["terms"]["largest_sum_error"]["error"] > 0.01
    errors = run.table("terms").query("place == 'right'")["sum_error"]
    assert errors.iloc[0] == pytest.approx(0.1 / 0.9, rel=1e-4)


def give_too_late(tracer, left, right):
    (left + right).backward()
    tracer.terms({"left": left, "right": right})


def test_terms_given_after_the_backward_pass_are_named_and_the_training_goes_on(tmp_path, model):
    with pytest.warns(UserWarning, match=r"call Tracer.terms before the backward pass"):
        trace(tmp_path / "run", model, give_too_late)
    run = open_run(tmp_path / "run")
    assert len(run.table("terms")) == 0
    assert len(run.gradients) == 3


def test_a_strict_tracer_raises_what_went_wrong(tmp_path, model):
    with pytest.raises(RuntimeError, match="a second time"):
        trace(tmp_path / "run", model, give_too_late, strict=True)


class Reentrant(TwoHeads):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = checkpoint(self.trunk, x.requires_grad_(), use_reentrant=True)
        return self.left(x).square().mean(), self.right(x).square().mean()


def test_a_checkpoint_that_hides_its_layers_is_named_and_the_training_is_as_without(tmp_path):
    torch.manual_seed(0)
    model = Reentrant()
    sum(model(batch())).backward()
    expected = [one.grad.clone() for one in model.parameters()]
    model.zero_grad()

    def take_step(tracer, left, right):
        tracer.terms({"left": left, "right": right})
        (left + right).backward()

    with pytest.warns(UserWarning, match="not measured in step 0: a checkpointed segment"):
        trace(tmp_path / "run", model, take_step)
    assert all(map(torch.equal, [one.grad for one in model.parameters()], expected))
    assert len(open_run(tmp_path / "run").table("terms")) == 0


def test_a_paused_tracer_takes_no_terms(tmp_path, model):
    with Tracer(model, tmp_path / "run") as tracer:
        with tracer.paused():
            left, right = model(batch())
            tracer.terms({"left": left, "right": right})
        train(tracer, model, 1)
        tracer.end_epoch()
    assert open_run(tmp_path / "run").table("terms")["sum_error"].max() < 1e-6


def test_a_compiled_model_is_measured(tmp_path, model):
    compiled = torch.compile(model, backend="eager")
    with Tracer(compiled, tmp_path / "run", terms=1, schedule=2) as tracer:
        train(tracer, compiled, 3)
        tracer.end_epoch()
    table = open_run(tmp_path / "run").table("terms")
    assert set(table["place"]) >= {"trunk", "trunk.weight"}
    assert table["sum_error"].max() < 1e-6


@pytest.mark.parametrize(
    ("processes", "compiled", "said"),
    [
        (2, "uncompiled", "not recorded if several processes train the model"),
        (1, "in-graph", 'not recorded with compiled="in-graph"'),
    ],
)
def test_what_is_left_out_is_said_once_terms_are_given(model, processes, compiled, said):
    options = RecordingOptions(
        schedule=1,
        histograms=False,
        observe=None,
        groups=None,
        scaler=None,
        passes="backward",
        modes="training",
        outputs="first",
        compiled=compiled,
        parameters_every=1,
        stop_on_nonfinite=False,
    )
    heard: list[str] = []
    terms = LossTerms(model, options, lambda kind, message: heard.append(message), processes)
    terms.begin_step(None)
    assert heard == []
    left, right = model(batch())
    terms.give({"left": left, "right": right})
    assert said in heard[0]


@pytest.mark.parametrize(
    "terms",
    [
        torch.ones(()),
        {},
        {"rows": torch.ones(3)},
        {1: torch.ones(())},
        {"text": "2"},
        {"pair": (1.0, "2")},
        None,
    ],
)
def test_what_are_no_terms_is_refused_in_every_step(tmp_path, model, terms):
    with Tracer(model, tmp_path / "run", schedule=2) as tracer:
        for _ in range(2):
            with pytest.raises(TracingError, match=r"by name|single real number"):
                tracer.terms(terms)
            train(tracer, model, 1)


@pytest.mark.parametrize("terms", [0, -1, 1.5])
def test_an_interval_is_a_positive_integer(tmp_path, model, terms):
    with pytest.raises(TracingError, match="terms"):
        Tracer(model, tmp_path / "run", terms=terms)


def test_a_run_that_continues_goes_on_counting(tmp_path, model):
    with Tracer(model, tmp_path / "run", terms=4) as tracer:
        train(tracer, model, 2)
        tracer.end_epoch()
        state = tracer.state_dict()
    with Tracer(model, tmp_path / "run", terms=4, resume=state) as tracer:
        train(tracer, model, 4)
        tracer.end_epoch()
    run = open_run(tmp_path / "run")
    assert measured(tmp_path / "run") == [0, 4]
    assert run.description["terms"]["steps"] == 2


def test_around_spikes_they_are_due_by_the_steps_that_are_written(tmp_path, model):
    with Tracer(model, tmp_path / "run", terms=2, schedule=5, around_spikes=1) as tracer:
        train(tracer, model, 32)
        tracer.end_epoch()
    run = open_run(tmp_path / "run")
    assert run.steps["step"].tolist() == list(range(0, 32, 5))
    assert sorted(set(run.table("terms")["step"])) == [0, 10, 20, 30]
    assert run.description["terms"]["steps"] == 4  # no passes for steps that nobody reads
