"""`Tracer.log`: the loss of each step, where it is given."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import gradflow
from gradflow.errors import TracingError


@pytest.fixture
def train(tmp_path):
    """Trains for six steps; `say` gets the tracer, the loss, and where in the step it is called."""

    def trained(say, passes=1, **options):
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        losses = []
        with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, **options) as tracer:
            for _ in range(6):
                for _ in range(passes):
                    loss = model(torch.randn(5, 3)).square().mean()
                    losses.append(loss.item())
                    say(tracer, loss, "pass")
                    loss.backward()
                optimizer.step()
                say(tracer, loss, "after")
                optimizer.zero_grad()
            tracer.end_epoch()
        return gradflow.open_run(tmp_path / "run").steps, losses, model

    return trained


def in_the_pass(tracer, loss, place):
    if place == "pass":
        tracer.log(loss=loss)


def test_loss_stands_beside_the_gradients_of_its_step(train):
    steps, losses, _ = train(in_the_pass)
    assert steps["loss"].to_numpy() == pytest.approx(losses, rel=1e-7)


def test_numbers_do_as_well(train):
    steps, losses, _ = train(lambda tracer, loss, place: in_the_pass(tracer, loss.item(), place))
    assert steps["loss"].to_numpy() == pytest.approx(losses, rel=1e-12)


def test_several_passes_of_a_step_are_averaged(train):
    steps, losses, _ = train(in_the_pass, passes=3)
    assert steps["loss"].to_numpy() == pytest.approx(np.reshape(losses, (6, 3)).mean(1), rel=1e-6)


def test_steps_that_are_not_recorded_keep_nothing(train):
    steps, losses, _ = train(in_the_pass, schedule=2)
    assert steps["loss"].to_numpy() == pytest.approx(losses[::2], rel=1e-7)


def test_without_it_the_loss_is_missing(train):
    steps, _, _ = train(lambda *_: None)
    assert steps["loss"].isna().all()


def test_after_the_step_it_is_left_out_and_said_once(train):
    def late(tracer, loss, place):
        if place == "after":
            tracer.log(loss=loss)

    with pytest.warns(
        UserWarning, match=r"between the forward pass and optimizer\.step\(\)"
    ) as seen:
        steps, _, _ = train(late)
    assert len(seen) == 1
    assert steps["loss"].isna().all()


def test_a_loss_of_several_numbers_is_refused(train):
    with pytest.raises(TracingError, match=r"the loss has the shape \[2\].*loss\.mean\(\)"):
        train(lambda tracer, loss, place: tracer.log(loss=torch.zeros(2)))


def test_training_is_the_same_and_later_changes_of_the_loss_do_not_count(train):
    def spoiling(tracer, loss, place):
        in_the_pass(tracer, loss, place)
        loss.detach().mul_(0)

    with warnings.catch_warnings():
        steps, losses, model = train(spoiling)
    assert steps["loss"].to_numpy() == pytest.approx(losses, rel=1e-7)
    torch.manual_seed(0)
    same = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(same.parameters(), lr=0.1)
    for _ in range(6):
        same(torch.randn(5, 3)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(model.weight, same.weight)


def test_paused_passes_have_no_loss(train):
    def paused(tracer, loss, place):
        with tracer.paused():
            in_the_pass(tracer, loss, place)

    steps, _, _ = train(paused)
    assert steps["loss"].isna().all()


@pytest.mark.parametrize(
    "loss", [None, [1.0], "much", np.zeros(2), torch.tensor(1 + 1j), {"loss": 1.0}], ids=str
)
def test_what_is_no_real_number_is_refused_where_it_is_given_and_not_once_it_is_written(
    train, loss
):
    with pytest.raises(TracingError, match="the loss"):
        train(lambda tracer, _, place: tracer.log(loss=loss))


@pytest.mark.parametrize("kind", [np.float32, lambda x: np.array([x]), lambda x: torch.tensor([x])])
def test_numbers_of_other_libraries_do_too(train, kind):
    steps, losses, _ = train(
        lambda tracer, loss, place: in_the_pass(tracer, kind(loss.item()), place)
    )
    assert steps["loss"].to_numpy() == pytest.approx(losses, rel=1e-6)


def test_a_loss_given_within_a_transform_of_functions_outlasts_it(tmp_path):
    model, losses = nn.Linear(3, 1), []
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        for _ in range(3):

            def loss(weights):
                found = torch.func.functional_call(model, weights, torch.randn(5, 3)).sum()
                tracer.log(loss=found)
                return found

            model(torch.randn(5, 3)).sum().backward()
            weights = {name: one.detach() for name, one in model.named_parameters()}
            _, found = torch.func.grad_and_value(loss)(weights)
            losses.append(found.item())
            tracer.step()
    assert [*gradflow.open_run(tmp_path / "run").steps["loss"]] == pytest.approx(losses)


def test_an_epoch_that_ends_between_the_loss_and_its_backward_pass_loses_neither(train):
    def say(tracer, loss, place):
        in_the_pass(tracer, loss, place)
        if place == "pass" and tracer.steps == 3:
            tracer.end_epoch()

    steps, losses, _ = train(say)
    assert [*steps.epoch] == [1, 1, 1, 2, 2, 2]
    assert steps["loss"].to_numpy() == pytest.approx(losses, rel=1e-6)


@pytest.mark.parametrize("place", ["pass", "after"])
def test_in_the_graph_too_a_loss_stands_in_its_own_step_or_in_none(train, place):
    def say(tracer, loss, here):
        if here == place:
            tracer.log(loss=loss)

    if place == "pass":
        steps, losses, _ = train(say, compiled="in-graph")
        assert steps["loss"].to_numpy() == pytest.approx(losses, rel=1e-6)
        return
    with pytest.warns(UserWarning, match="before its forward pass, or after"):
        steps, _, _ = train(say, compiled="in-graph")
    assert steps["loss"].isna().all()


def test_a_loss_given_in_evaluation_mode_says_so(tmp_path):
    model = nn.Linear(2, 2).eval()
    with gradflow.Tracer(model, tmp_path) as tracer:
        loss = model(torch.ones(1, 2)).sum()
        with pytest.warns(UserWarning, match="step 0 while the model is in evaluation mode"):
            tracer.log(loss=loss)
