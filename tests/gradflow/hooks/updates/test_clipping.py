"""The gradient as backward left it and as the optimizer received it, beside norms by hand."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.utils.checkpoint import checkpoint

import gradflow


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def batches(count):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(count)]


def norms(model):
    found = {name: one.grad for name, one in model.named_parameters()}
    return {
        name: float(gradient.norm()) for name, gradient in found.items() if gradient is not None
    }


def total(values):
    return math.sqrt(sum(value**2 for value in values.values()))


class ByHand:
    """The norms of each step as they were when backward had ended, and when its step began."""

    def __init__(self):
        self.left, self.received = [], []

    def compare(self, folder):
        run = gradflow.open_run(folder)
        rows, steps = run.parameters.set_index(["step", "parameter"]), run.steps.set_index("step")
        assert list(steps.index) == list(range(len(self.left)))
        for step, (left, received) in enumerate(zip(self.left, self.received, strict=True)):
            mine = rows.loc[step]
            assert mine.backward_gradient_norm.dropna().to_dict() == pytest.approx(left, rel=1e-9)
            assert mine.gradient_norm.dropna().to_dict() == pytest.approx(received, rel=1e-9)
            for name in left.keys() & received.keys():
                assert mine.clipping_factor[name] == pytest.approx(
                    received[name] / left[name], rel=1e-9
                )
            row = steps.loc[step]
            assert row.backward_gradient_norm == pytest.approx(total(left), rel=1e-9)
            assert row.gradient_norm == pytest.approx(total(received), rel=1e-9)
            assert row.clipping_factor == pytest.approx(total(received) / total(left), rel=1e-9)


def adaptive(model):
    """Each gradient is at most a hundredth of its weight, as in NFNets (there by row)."""
    for one in model.parameters():
        most = 0.01 * one.detach().norm()
        one.grad.mul_((most / one.grad.norm()).clamp(max=1.0))


CLIPPING = {
    "none": lambda model: None,
    "norm": lambda model: clip_grad_norm_(model.parameters(), 0.01),
    "norm_of_one_at_a_time": lambda model: clip_grad_norm_(model.parameters(), 0.01, foreach=False),
    "value": lambda model: clip_grad_value_(model.parameters(), 0.001),
    "adaptive": adaptive,
    # None of these changes the version that torch keeps of a tensor, or keeps the tensor.
    "data": lambda model: [one.grad.data.mul_(0.5) for one in model.parameters()],
    "numpy": lambda model: [one.grad.numpy().__imul__(0.5) for one in model.parameters()],
    "replaced": lambda model: [setattr(one, "grad", one.grad / 4) for one in model.parameters()],
}


@pytest.mark.parametrize("name", CLIPPING)
@pytest.mark.parametrize("parts", [1, 3])
def test_both_norms_and_their_ratio_beside_those_by_hand(tmp_path, name, parts):
    model, hand = network(), ByHand()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        for x in batches(4):
            optimizer.zero_grad()
            for _ in range(parts):  # accumulation: the last pass counts
                (model(x).square().mean() / parts).backward()
            hand.left.append(norms(model))
            CLIPPING[name](model)
            hand.received.append(norms(model))
            optimizer.step()
        tracer.end_epoch()
    hand.compare(tmp_path / "run")


def test_clipping_before_backward_shows_a_factor_of_one(tmp_path):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        for x in batches(3):
            loss = model(x).square().mean()
            optimizer.zero_grad()
            clip_grad_norm_(model.parameters(), 1e-3)  # there is nothing to clip yet
            loss.backward()
            optimizer.step()
        tracer.end_epoch()
    run = gradflow.open_run(tmp_path / "run")
    assert run.steps.clipping_factor.tolist() == pytest.approx([1] * 3, rel=1e-12)
    assert (run.steps.gradient_norm > 1e-3).all()
    assert run.parameters.clipping_factor.tolist() == pytest.approx([1] * 12, rel=1e-12)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_gradients_zeroed_before_the_step_are_seen_to_be_lost(tmp_path, set_to_none):
    model, left = network(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        for x in batches(2):
            model(x).square().mean().backward()
            left.append(total(norms(model)))
            optimizer.zero_grad(set_to_none)
            optimizer.step()
        tracer.end_epoch()
    steps = gradflow.open_run(tmp_path / "run").steps
    assert steps.backward_gradient_norm.tolist() == pytest.approx(left, rel=1e-9)
    if set_to_none:
        assert steps[["gradient_norm", "clipping_factor"]].isna().all(axis=None)
    else:
        assert steps.gradient_norm.tolist() == steps.clipping_factor.tolist() == [0, 0]


def test_zero_over_zero_is_missing(tmp_path):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer):
        (model(batches(1)[0]) * 0).sum().backward()
        optimizer.step()
    run = gradflow.open_run(tmp_path / "run")
    assert run.steps.backward_gradient_norm.tolist() == run.steps.gradient_norm.tolist() == [0]
    assert run.steps.clipping_factor.isna().all()
    assert run.parameters.clipping_factor.isna().all()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("clipped", [False, True])
def test_the_scale_of_the_loss_is_in_neither_norm(tmp_path, fused, clipped):
    def train(folder, enabled):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=enabled)
        with gradflow.Tracer(model, folder, optimizer=optimizer, scaler=scaler):
            for x in batches(3):
                scaler.scale(model(x.float()).square().mean()).backward()
                if clipped:
                    scaler.unscale_(optimizer)
                    clip_grad_norm_(model.parameters(), 0.01)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
        return gradflow.open_run(folder)

    mine, plain = train(tmp_path / "scaled", True), train(tmp_path / "plain", False)
    for column in ("backward_gradient_norm", "gradient_norm", "clipping_factor"):
        expected = plain.steps[column].tolist()
        assert mine.steps[column].tolist() == pytest.approx(expected, rel=1e-6)
        expected = plain.parameters[column].tolist()
        assert mine.parameters[column].tolist() == pytest.approx(expected, rel=1e-6)
    if not clipped:
        assert mine.steps.clipping_factor.tolist() == pytest.approx([1] * 3, rel=1e-6)


def test_a_step_that_the_scaler_skips_has_what_backward_left(tmp_path):
    model = network().float()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, scaler=scaler):
        for factor in (1.0, math.inf):
            scaler.scale(model(batches(1)[0].float()).square().mean() * factor).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    steps = gradflow.open_run(tmp_path / "run").steps
    assert steps.skipped.tolist() == [False, True]
    assert math.isfinite(steps.backward_gradient_norm[0])
    assert not math.isfinite(steps.backward_gradient_norm[1])


def test_two_passes_of_which_the_optimizer_receives_the_second(tmp_path):
    """As sharpness-aware minimization: the first pass only says where to go for the second."""
    model, hand = network(), ByHand()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        for x in batches(3):
            model(x).square().mean().backward()
            with torch.no_grad():
                away = [0.05 * one.grad / one.grad.norm() for one in model.parameters()]
                for one, step in zip(model.parameters(), away, strict=True):
                    one.add_(step)
            optimizer.zero_grad()
            model(x).square().mean().backward()
            hand.left.append(norms(model))
            with torch.no_grad():
                for one, step in zip(model.parameters(), away, strict=True):
                    one.sub_(step)
            hand.received.append(norms(model))
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    hand.compare(tmp_path / "run")


def test_an_inner_pass_and_a_paused_one_leave_the_norm_of_the_steps_own(tmp_path):
    model, hand = network(), ByHand()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        for x in batches(3):
            with tracer.paused():
                (1000 * model(x).sum()).backward()
            optimizer.zero_grad()
            x.requires_grad_(True)
            out = model(x)
            (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
            (out.square().mean() + slope.square().mean()).backward()
            hand.left.append(norms(model))
            clip_grad_norm_(model.parameters(), 0.01)
            hand.received.append(norms(model))
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    hand.compare(tmp_path / "run")


@pytest.mark.parametrize("last", ["penalty", "loss"])
@pytest.mark.parametrize("share", ["all", "one", "unobserved layer"])
def test_a_pass_that_reaches_no_observed_layer_counts(tmp_path, last, share):
    """Weight decay as a loss of its own, of all weights or of one; or layers left out."""
    model, hand = network(), ByHand()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    chosen = list(model.parameters())[: 1 if share == "one" else None]
    observe = "0" if share == "unobserved layer" else None
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, observe=observe) as tracer:
        for x in batches(3):
            loss = model(x).square().mean()
            if share == "unobserved layer":
                penalty = model[2](torch.ones_like(model[0](x))).square().sum()
            else:
                penalty = 10 * sum(one.square().sum() for one in chosen)
            for one in (loss, penalty) if last == "penalty" else (penalty, loss):
                one.backward()
            hand.left.append(norms(model))
            clip_grad_norm_(model.parameters(), 0.5)
            hand.received.append(norms(model))
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    hand.compare(tmp_path / "run")


def test_observing_only_frozen_layers_leaves_both_norms(tmp_path):
    model, hand = network(), ByHand()
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, observe="0") as tracer:
        for x in batches(2):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            hand.left.append(norms(model))
            hand.received.append(norms(model))
            optimizer.step()
        tracer.end_epoch()
    hand.compare(tmp_path / "run")


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointed_segments_whose_gradients_come_in_passes_of_their_own(tmp_path, use_reentrant):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.last = network(), nn.Linear(3, 4).double(), network()

        def forward(self, x):
            for segment in (self.first, self.second, self.last):
                x = checkpoint(segment, x, use_reentrant=use_reentrant)
            return x

    model, hand = Checkpointed(), ByHand()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        for x in batches(3):
            optimizer.zero_grad()
            model(x.requires_grad_(True)).square().mean().backward()
            hand.left.append(norms(model))
            clip_grad_norm_(model.parameters(), 0.01)
            hand.received.append(norms(model))
            optimizer.step()
        tracer.end_epoch()
    hand.compare(tmp_path / "run")


def test_gradients_put_in_place_by_hand_are_received_and_none_was_left(tmp_path):
    model, received = network(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, passes="all") as tracer:
        for x in batches(3):
            found = torch.autograd.grad(model(x).square().mean(), list(model.parameters()))
            # Those of the step before are still there when the pass ends: it has not left them.
            for one, gradient in zip(model.parameters(), found, strict=True):
                one.grad = gradient
            received.append(norms(model))
            optimizer.step()
        tracer.end_epoch()
    run = gradflow.open_run(tmp_path / "run")
    assert run.steps.gradient_norm.tolist() == pytest.approx([total(one) for one in received])
    assert run.steps[["backward_gradient_norm", "clipping_factor"]].isna().all(axis=None)
    assert run.parameters.backward_gradient_norm.isna().all()
    assert (run.parameters.update_norm > 0).all()


@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.LBFGS])
def test_a_closure_is_asked_for_the_gradients_before_they_are_measured(tmp_path, optimizer_class):
    """Lightning hands every optimizer a closure; it clips at the closure's end."""
    model, hand = network(), ByHand()
    optimizer = optimizer_class(model.parameters(), lr=0.1)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        for x in batches(3):
            calls = []

            def closure(x=x, calls=calls):
                optimizer.zero_grad()
                loss = model(x).square().mean()
                loss.backward()
                left = norms(model)
                clip_grad_norm_(model.parameters(), 0.01)
                calls.append((left, norms(model)))
                return loss

            optimizer.step(closure)
            hand.left.append(calls[0][0])
            hand.received.append(calls[0][1])
        tracer.end_epoch()
    hand.compare(tmp_path / "run")


def test_a_closure_that_is_not_called_leaves_the_gradients_as_they_are(tmp_path):
    class Careless(torch.optim.SGD):
        def step(self, closure=None):
            return super().step()

    model, hand = network(), ByHand()
    optimizer = Careless(model.parameters(), lr=0.1)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer):
        for x in batches(2):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            hand.left.append(norms(model))
            hand.received.append(norms(model))
            optimizer.step(closure=lambda: 0.0)
    hand.compare(tmp_path / "run")


def test_one_of_two_optimizers_is_clipped(tmp_path):
    model, hand = network(), ByHand()
    optimizers = [torch.optim.SGD(model[place].parameters(), lr=0.1) for place in (0, 2)]
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizers) as tracer:
        for x in batches(3):
            model.zero_grad()
            model(x).square().mean().backward()
            hand.left.append(norms(model))
            optimizers[0].step()
            clip_grad_norm_(model[2].parameters(), 0.01)
            hand.received.append(norms(model))
            optimizers[1].step()
        tracer.end_epoch()
    hand.compare(tmp_path / "run")


def test_steps_ended_by_the_user_and_steps_without_an_update(tmp_path):
    model, hand = network(), ByHand()
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        for place, x in enumerate(batches(4)):
            model.zero_grad()
            model(x).square().mean().backward()
            hand.left.append(norms(model))
            clip_grad_norm_(model.parameters(), 0.01)
            hand.received.append(norms(model))
            if place == 2:
                tracer.skip_step()
            else:
                tracer.step()
        tracer.end_epoch()
    hand.compare(tmp_path / "run")
    steps = gradflow.open_run(tmp_path / "run").steps
    assert steps.skipped.tolist() == [False, False, True, False]


def test_sparse_complex_and_half_precision_gradients(tmp_path):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(5, 3, sparse=True)
            self.spectrum = nn.Parameter(torch.randn(3, dtype=torch.complex64))
            self.narrow = nn.Linear(3, 2, dtype=torch.bfloat16)

        def forward(self, indices):
            x = self.table(indices)
            x = (torch.fft.fft(x) * self.spectrum).real
            return self.narrow(x.bfloat16())

    torch.manual_seed(0)
    model = Mixed()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer):
        model(torch.tensor([1, 1, 4])).float().square().sum().backward()
        expected = {
            "table.weight": float(model.table.weight.grad.to_dense().double().norm()),
            "spectrum": float(torch.view_as_real(model.spectrum.grad).double().norm()),
            "narrow.weight": float(model.narrow.weight.grad.double().norm()),
            "narrow.bias": float(model.narrow.bias.grad.double().norm()),
        }
        optimizer.step()
    run = gradflow.open_run(tmp_path / "run")
    found = run.parameters.set_index("parameter").backward_gradient_norm.to_dict()
    assert found == pytest.approx(expected, rel=1e-6)
    assert run.steps.backward_gradient_norm[0] == pytest.approx(total(expected), rel=1e-6)


def test_steps_that_are_not_recorded_read_no_gradient(tmp_path, monkeypatch):
    from gradflow.hooks.updates.measures import backward_gradients  # noqa: PLC0415 - to be replaced in part

    counts, original = [], backward_gradients.norms_of
    monkeypatch.setattr(
        backward_gradients, "norms_of", lambda *given: counts.append(1) or original(*given)
    )
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, schedule=4):
        for x in batches(8):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    assert len(counts) == 2
