"""Sharpness against Hessians in closed form, and against a difference quotient of the loss."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradflow.data import Batch
from gradflow.probes.loss.sharpness import PROBE
from gradflow.probes.probe import Subject, When
from gradflow.runs.reading.run import open_run
from gradflow.runs.writing.run import RunWriter

FLAT = torch.Size((4, 1, 1))
IMAGES = torch.Size((3, 6, 6))


def batch_of(count, shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, *shape, dtype=torch.float64, generator=generator)
    return Batch(images, torch.arange(count) % 3, torch.arange(count))


def subject_of(model, shape):
    batches = [batch_of(9, shape), batch_of(5, shape, seed=1)]
    validation = [batch_of(4, shape, seed=2)]
    return Subject(
        model.eval(), 1, False, False, None, batches[1], lambda: batches, lambda: validation, 0
    )


def measured(model, shape):
    columns = PROBE.measure(subject_of(model, shape))["sharpness"]
    return {name: column[0] for name, column in columns.items()}


def softmax_regression():
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double()


def small_network():
    """Convolutions, batch norms and ReLUs in place, one of which reads an addition in place."""

    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1)
            self.bn1, self.bn2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
            self.relu, self.fc = nn.ReLU(inplace=True), nn.Linear(4, 3)

        def forward(self, x):
            x = self.relu(self.bn1(self.conv1(x)))
            out = self.bn2(self.conv2(x))
            out += x
            return self.fc(self.relu(out).mean((2, 3)))

    torch.manual_seed(4)
    return Small().double()


def test_sharpness_of_softmax_regression_uses_the_hessian_of_the_textbook():
    # Of one image, with its features z and a 1 for the bias: g = (p - y) z, H = (diag p - p p^T)
    # times z z^T (Bishop 2006, Pattern recognition and machine learning, equations 4.109, 4.110).
    model, batch = softmax_regression(), batch_of(9, FLAT)
    features = torch.cat([batch.images.flatten(1), torch.ones(9, 1, dtype=torch.float64)], 1)
    weights = torch.cat([model[1].weight, model[1].bias[:, None]], 1).detach()
    p = (features @ weights.T).softmax(1)
    g = torch.einsum("nk,nd->kd", p - F.one_hot(batch.targets, 3), features) / 9
    outer = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    h = torch.einsum("nkl,nd,ne->kdle", outer, features, features) / 9
    found = measured(model, FLAT)
    assert found["images"] == 9
    assert found["gradient_norm"] == pytest.approx(float(g.norm()), rel=1e-12)
    curvature = torch.einsum("kd,kdle,le", g, h, g) / (g * g).sum()
    assert found["curvature"] == pytest.approx(float(curvature), rel=1e-12)


def test_sharpness_is_the_second_derivative_along_the_gradient():
    # Of L(w + s g / |g|): the slope at 0 is |g|, the second derivative <g, H g> / <g, g>.
    found = measured(small_network(), IMAGES)
    reference, batch = small_network().train(), batch_of(9, IMAGES)

    def loss():
        return F.cross_entropy(reference(batch.images), batch.targets)

    gradient = torch.autograd.grad(loss(), list(reference.parameters()))
    norm = torch.cat([part.flatten() for part in gradient]).norm()
    start = [weight.detach().clone() for weight in reference.parameters()]

    def at(place):
        with torch.no_grad():
            for weight, first, part in zip(reference.parameters(), start, gradient, strict=True):
                weight.copy_(first + place * part / norm)
            return float(loss())

    step = 1e-5
    below, here, above = at(-step), at(0.0), at(step)
    assert found["gradient_norm"] == pytest.approx((above - below) / (2 * step), rel=1e-6)
    bend = (above - 2 * here + below) / step**2
    assert found["curvature"] == pytest.approx(bend, rel=1e-4)


def test_its_batch_norms_take_the_statistics_of_the_batch():
    model = small_network()
    wanted = measured(model, IMAGES)
    model.bn1.running_mean.add_(5)
    model.bn2.running_var.mul_(100)
    assert measured(model, IMAGES) == wanted


def test_the_curvature_is_nan_if_the_gradient_vanishes():
    # Probabilities of a half for one image of each class: the two gradients cancel exactly.
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double()
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    batch = Batch(torch.ones(2, *FLAT, dtype=torch.float64), torch.arange(2), torch.arange(2))
    subject = Subject(model, 1, False, False, None, batch, lambda: [batch], list, 0)
    columns = PROBE.measure(subject)["sharpness"]
    assert columns["gradient_norm"] == [0]
    assert math.isnan(columns["curvature"][0])


def test_it_runs_at_the_first_and_the_last_epoch():
    assert PROBE.when is When.FIRST_AND_LAST


def test_the_table_is_read_back_as_it_was_stored(tmp_path):
    columns = PROBE.measure(subject_of(small_network(), IMAGES))["sharpness"]
    writer = RunWriter(tmp_path / "run", {})
    writer.append("sharpness", {"epoch": [1], **columns}, 0, 0)
    writer.close("complete")
    (row,) = open_run(tmp_path / "run").table("sharpness").to_dict("records")
    assert row == {"epoch": 1, **{name: column[0] for name, column in columns.items()}}
