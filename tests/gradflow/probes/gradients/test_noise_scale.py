import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradflow.data import Batch
from gradflow.models import build
from gradflow.probes.gradients.noise_scale import (
    PROBE,
    estimate_signal_and_noise,
    noise_scale,
    squared_norms,
)
from gradflow.probes.probe import NotMeasurableError, Subject
from gradflow.runs.format.schema import TABLES


def subject_of(model, images, targets, epoch=1):
    def training():
        for part in torch.arange(len(targets)).split(7):
            yield Batch(images[part], targets[part], part)

    return Subject(model.eval(), epoch, False, False, None, None, training, training, seed=5)


@pytest.fixture
def subject():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True), nn.Flatten(), nn.Linear(16, 3)
    ).double()
    images = torch.randn(20, 3, 4, 4, dtype=torch.float64)
    model.train()(images + 1)
    return subject_of(model, images, torch.arange(20) % 3)


def gradient(model, images, targets):
    model.zero_grad()
    F.cross_entropy(model(images), targets).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def whole(subject):
    batches = list(subject.training_batches())
    images = torch.cat([batch.images for batch in batches])
    return images, torch.cat([batch.targets for batch in batches])


def test_the_estimates_are_unbiased_for_all_training_images(subject):
    images, targets = whole(subject)
    single = torch.stack(
        [gradient(subject.model, images[i : i + 1], targets[i : i + 1]) for i in range(20)]
    )
    exact = {
        "squared_gradient": float(single.mean(0).square().sum()),
        "noise": float(single.var(0, correction=0).sum()),
    }
    columns = noise_scale(subject, draws=600, small_batch=2, large_batch=6)["noise_scale"]
    for name, value in exact.items():
        draws = torch.tensor(columns[name])
        error = float(draws.std()) / math.sqrt(len(draws))
        assert error < 0.1 * exact["noise"]
        assert float(draws.mean()) == pytest.approx(value, abs=3.5 * error)


def test_squared_norms_equal_those_of_the_batch_gradients():
    torch.manual_seed(0)
    model = build("resnet20", classes=3, seed=0).double()
    images = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    model.train()(images)
    subject = subject_of(model, images[:1], torch.tensor([2]))
    # With a single training image every batch is that image, however large.
    columns = noise_scale(subject, draws=2, small_batch=2, large_batch=4)["noise_scale"]
    norm = float(gradient(copy.deepcopy(model), images[:1], torch.tensor([2])).square().sum())
    for name in ("small_squared_norm", "large_squared_norm", "squared_gradient"):
        assert columns[name] == pytest.approx([norm, norm])
    assert columns["noise"] == pytest.approx([0, 0], abs=1e-9 * norm)


@pytest.mark.parametrize("small_batch", [1, 2, 3])
def test_norms_of_partial_batches_come_from_the_products_of_single_gradients(subject, small_batch):
    images, targets = (part[:6] for part in whole(subject))
    single = torch.stack(
        [gradient(subject.model, images[i : i + 1], targets[i : i + 1]) for i in range(6)]
    )
    small_squared_norm, large_squared_norm = squared_norms(single @ single.T, small_batch)
    parts = [
        float(gradient(subject.model, x, y).square().sum())
        for x, y in zip(images.split(small_batch), targets.split(small_batch), strict=True)
    ]
    assert small_squared_norm == pytest.approx(sum(parts) / len(parts))
    assert large_squared_norm == pytest.approx(
        float(gradient(subject.model, images, targets).square().sum())
    )


def test_estimates_solve_for_the_two_unknowns():
    # |G|^2 = 3 and tr(S) = 40 give squared norms of 3 + 40/4 and 3 + 40/16.
    assert estimate_signal_and_noise(13.0, 5.5, 4, 16) == pytest.approx((3.0, 40.0))


def test_draws_repeat_for_one_epoch_and_differ_between_epochs(subject):
    images, targets = whole(subject)
    first = noise_scale(subject)
    assert noise_scale(subject) == first
    assert noise_scale(subject_of(subject.model, images, targets, epoch=2)) != first
    assert len(set(first["noise_scale"]["large_squared_norm"])) == 3


def test_the_columns_are_those_of_the_schema(subject):
    (name,) = PROBE.tables
    wanted = {column.name for column in TABLES[name].columns} - {"epoch"}
    assert set(PROBE.measure(subject)[name]) == wanted


def test_without_training_images_there_is_nothing_to_draw(subject):
    empty = subject_of(subject.model, torch.empty(0, 3, 4, 4), torch.empty(0, dtype=torch.int64))
    with pytest.raises(NotMeasurableError, match="no training images"):
        noise_scale(empty)


@pytest.mark.parametrize(("small_batch", "large_batch"), [(4, 4), (4, 10), (8, 4)])
def test_the_small_batch_must_divide_the_large_one(subject, small_batch, large_batch):
    with pytest.raises(ValueError, match=f"batch of {large_batch} images"):
        noise_scale(subject, small_batch=small_batch, large_batch=large_batch)
