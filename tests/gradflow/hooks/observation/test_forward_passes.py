"""Forward passes that belong to a step: by mode, gradients and thread."""

import threading

import pandas as pd
import pytest
import torch
from torch import nn

import gradflow
from gradflow.errors import TracingError


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        return x + torch.relu(self.norm(self.linear(x)))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), Block(), nn.Dropout(0.5), nn.Linear(4, 2))


def inputs(step=0, size=6):
    return torch.randn(size, 3, generator=torch.Generator().manual_seed(step))


def by_hand(model, x, layer):
    """The norm of the loss's gradient with respect to a layer's output, by a hook of our own."""
    found = []

    def watch(_, __, output):
        output.register_hook(lambda gradient: found.append(float(gradient.norm())))

    handle = model.get_submodule(layer).register_forward_hook(watch)
    torch.autograd.backward(model(x).square().sum(), inputs=list(model.parameters()))
    handle.remove()
    model.zero_grad()
    return found[0]


def run_of(folder):
    return gradflow.open_run(folder)


def test_a_model_fine_tuned_in_evaluation_mode_is_recorded_with_all_modes(tmp_path):
    model = network().eval()
    expected = {layer: by_hand(model, inputs(), layer) for layer in ("0", "1.norm", "3")}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, modes="all") as tracer:
        model(inputs()).square().sum().backward()
        optimizer.step()
        tracer.end_epoch()
    run = run_of(tmp_path / "run")
    norms = run.gradients.set_index("layer").norm
    for layer, norm in expected.items():
        assert norms[layer] == pytest.approx(norm, rel=1e-6)
    assert list(run.junctions.layer) == ["1"]
    assert set(run.modes["mode"]) == {"evaluation"}


def test_frozen_batch_normalization_within_a_training_model_is_named_in_its_mode(tmp_path):
    model = network().train()
    model[1].norm.eval()
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        for step in range(6):
            if step == 4:
                model[1].norm.train()
            model(inputs(step)).square().sum().backward()
            tracer.step()
    modes = run_of(tmp_path / "run").modes
    changes = modes.query("layer == '1.norm'")
    assert list(zip(changes.step, changes["mode"], strict=True)) == [
        (0, "evaluation"),
        (4, "training"),
    ]
    others = modes.query("layer != '1.norm'")
    assert set(others.step) == {0}
    assert set(others["mode"]) == {"training"}


def test_a_mode_that_changes_between_recorded_steps_is_named_once(tmp_path):
    model = network()
    with gradflow.Tracer(model, tmp_path / "run", schedule=3, modes="all") as tracer:
        for step in range(9):
            model.train(step < 4)
            model(inputs(step)).square().sum().backward()
            tracer.step()
    modes = run_of(tmp_path / "run").modes.query("layer == '0'")
    assert list(zip(modes.step, modes["mode"], strict=True)) == [(0, "training"), (6, "evaluation")]


def test_adversarial_inputs_found_in_evaluation_mode_are_not_part_of_the_step(tmp_path):
    """`autograd.grad` with respect to the input, in evaluation mode, then the training pass."""
    plain, model = network(), network()

    def attacked(net, x):
        net.eval()
        x = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(net(x).square().sum(), x)
        net.train()
        return (x + 0.1 * gradient.sign()).detach()

    def train(net, folder, modes, attack):
        torch.manual_seed(1)
        with gradflow.Tracer(net, folder, modes=modes) as tracer:
            net(attack(net)).square().sum().backward()
            tracer.step()
        return run_of(folder)

    given = attacked(network(), inputs())
    expected = train(plain, tmp_path / "plain", "training", lambda _: given)
    for modes in ("training", "all"):
        run = train(model, tmp_path / modes, modes, lambda net: attacked(net, inputs()))
        model.zero_grad()
        model.load_state_dict(network().state_dict())
        for table in ("activations", "gradients", "junctions"):
            pd.testing.assert_frame_equal(getattr(run, table), getattr(expected, table))


def test_training_on_adversarial_inputs_in_evaluation_mode_counts_each_differentiated_pass(
    tmp_path,
):
    """Both passes fill `.grad`: two batches of the step, one in each mode."""
    model = network()
    with gradflow.Tracer(model, tmp_path / "run", modes="all") as tracer:
        model(inputs(0)).square().sum().backward()
        model.eval()
        model(inputs(1)).square().sum().backward()
        tracer.step()
    run = run_of(tmp_path / "run")
    assert set(run.activations.batch_size) == {12}
    assert set(run.gradients.batch_size) == {12}


@pytest.mark.parametrize("part", ["model", "modules"])
def test_validation_with_gradients_enabled_is_not_taken_for_training(tmp_path, part):
    expected, model = network(), network()
    runs = {}
    for name, net in (("plain", expected), ("run", model)):
        torch.manual_seed(1)
        with gradflow.Tracer(net, tmp_path / name, modes="all") as tracer:
            for step in range(2):
                net.train()
                net(inputs(step)).square().sum().backward()
                if name == "run":
                    net.eval()
                    net(inputs(7)) if part == "model" else net[0](inputs(7))
                tracer.step()
        runs[name] = run_of(tmp_path / name)
    for table in ("activations", "gradients", "junctions", "modes"):
        pd.testing.assert_frame_equal(getattr(runs["run"], table), getattr(runs["plain"], table))


def test_a_pass_in_evaluation_mode_that_fails_leaves_nothing(tmp_path):
    model = network()
    with gradflow.Tracer(model, tmp_path / "run", modes="all") as tracer:
        model.eval()
        with pytest.raises(RuntimeError, match="shapes"):
            model[3](model[1](model[0](torch.ones(2, 3))).repeat(1, 2))
        model(inputs()).square().sum().backward()
        tracer.step()
    assert set(run_of(tmp_path / "run").activations.batch_size) == {6}


def test_other_modes_are_refused(tmp_path):
    with pytest.raises(TracingError, match='modes= is "training" or "all", not \'eval\''):
        gradflow.Tracer(network(), tmp_path / "run", modes="eval")


def in_thread(function):
    failures = []

    def guarded():
        try:
            function()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    assert failures == []


def test_a_training_in_another_thread_than_the_tracers_is_recorded(tmp_path):
    model = network().eval()
    expected = by_hand(model, inputs(), "0")
    model.train()
    model[1].norm.eval()
    model[2].eval()

    with gradflow.Tracer(model, tmp_path / "run") as tracer:

        def train():
            model(inputs()).square().sum().backward()
            tracer.step()

        in_thread(train)
        in_thread(train)
    run = run_of(tmp_path / "run")
    first = run.gradients.query("layer == '0' and step == 0")
    assert first.norm.item() == pytest.approx(expected, rel=1e-6)
    assert sorted(run.junctions.step) == [0, 1]
    assert "not_recorded" not in run.description


def test_a_second_thread_within_a_step_is_left_out_and_said_once(tmp_path):
    model = network()

    def train(tracer):
        model(inputs()).square().sum().backward()
        in_thread(lambda: model(inputs(size=9)).square().sum().backward())
        tracer.step()

    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        with pytest.warns(UserWarning, match="in two threads within a step"):
            train(tracer)
        train(tracer)  # another warning would be an error
    run = run_of(tmp_path / "run")
    assert set(run.activations.batch_size) == {6}
    (said,) = run.description["not_recorded"]
    assert "one thread" in said


def test_evaluation_in_another_thread_needs_no_word(tmp_path):
    model = network()

    def evaluate():
        with torch.no_grad():
            model(inputs(size=9))

    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        model(inputs()).square().sum().backward()
        in_thread(evaluate)
        tracer.step()
    run = run_of(tmp_path / "run")
    assert set(run.activations.batch_size) == {6}
    assert "not_recorded" not in run.description


@pytest.mark.parametrize("mode", ["training", "evaluation"])
@pytest.mark.parametrize("before", [0, 1])
def test_a_backward_pass_after_its_step_has_ended_adds_nothing(tmp_path, mode, before):
    """`before` is how many backward passes run before the step ends; one more runs after it."""
    model = network().train(mode == "training")
    model[1].norm.eval()
    model[2].eval()
    seen = []
    model[0].register_forward_hook(lambda *args: seen.append(args[-1]))
    optimizer = torch.optim.SGD([model[3].bias], lr=0.0)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, modes="all") as tracer:
        loss = model(inputs()).square().sum()
        for _ in range(before):
            loss.backward(retain_graph=True)
        optimizer.step()
        loss.backward(retain_graph=True)
        model(inputs(1)).square().sum().backward()
        optimizer.step()
        tracer.end_epoch()
    (by_hand,) = torch.autograd.grad(loss, seen[0])
    run = run_of(tmp_path / "run")
    # The block's input is the output of layer 0: its gradient is that of skip and branch together.
    norms = run.junctions.set_index("step").gradient_norm
    for table in (run.gradients.query("layer == '0'").set_index("step").norm, norms):
        assert sorted(table.index) == ([0, 1] if before else [1])
        if before:
            assert table[0] == pytest.approx(float(by_hand.norm()), rel=1e-5)
