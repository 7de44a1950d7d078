"""Scaled skips against networks built with a scale, and against the unchanged network."""

import copy
import math

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import ResNet
from torchvision.models.resnet import Bottleneck

from gradflow.data import Batch
from gradflow.models import build
from gradflow.probes.probe import NotMeasurableError, Subject
from gradflow.probes.skips import scaling
from gradflow.recalibration.estimation import batch_norms
from gradflow.runs.writing.run import RunWriter

GENERATOR = torch.Generator().manual_seed(3)
TRAINING = torch.randn(4, 6, 3, 16, 16, generator=GENERATOR)
COLORS = 2 * torch.randn(30, 3, 1, 1, generator=GENERATOR)
VALIDATION = torch.randn(30, 3, 16, 16, generator=GENERATOR) + COLORS
PROBED = Batch(TRAINING[0], torch.arange(6) % 3, torch.arange(6))


def training():
    return (Batch(images, torch.zeros(6, dtype=torch.int64), None) for images in TRAINING)


def subject_of(model, targets):
    def validation():
        return (
            Batch(images, truth, torch.arange(len(truth)))
            for images, truth in zip(VALIDATION.split(16), targets.split(16), strict=True)
        )

    return Subject(model, 1, True, False, None, PROBED, training, validation, 1)


@pytest.fixture(scope="module")
def network():
    """Running statistics that lag behind, as in training; logits that differ between images."""
    model = build("resnet20", classes=3, seed=0)
    nn.init.normal_(model.fc.weight, generator=torch.Generator().manual_seed(1))
    for images in TRAINING.repeat(4, 1, 1, 1, 1):
        model(1.5 * images)
    with torch.no_grad():  # so that each class is predicted for some images
        model.fc.bias -= model.eval()(VALIDATION).mean(0)
    return model


@pytest.fixture(scope="module")
def targets(network):
    """The network's own predictions, except for five images."""
    with torch.no_grad():
        found = network(VALIDATION).argmax(1)
    assert found.bincount(minlength=3).min() >= 3
    found[:5] = (found[:5] + 1) % 3
    return found


@pytest.fixture(scope="module")
def table(network, targets):
    measured = scaling.measure(
        subject_of(copy.deepcopy(network), targets),
        scales=(0.0, 0.5, 1.0),
        recalibration_batches=3,
    )
    return pd.DataFrame(measured["skip_scaling"])


def row(table, scope, scale):
    return table[(table.scope == scope) & (table.scale == scale)].iloc[0]


def scaled_by_hand(network, scope, scale):
    """A copy in which the blocks of the scope scale their own skip."""
    twin = copy.deepcopy(network)
    for name, module in twin.named_modules():
        if hasattr(module, "downsample") and f"all.{name}.".find(f"{scope}.") in (0, 4):
            module.skip_scale = scale
    return twin


@pytest.mark.parametrize(
    ("scope", "scale"),
    [("all", 0.0), ("all", 0.5), ("all", 1.0), ("layer2", 0.0), ("layer1.1", 0.0)],
)
def test_a_scaled_network_equals_one_built_with_that_scale(network, targets, table, scope, scale):
    twin = scaled_by_hand(network, scope, scale)
    measured = row(table, scope, scale)
    with torch.no_grad():
        correct = int((twin(VALIDATION).argmax(1) == targets).sum())
        assert measured.correct == correct or (scope == "layer1.1" and pd.isna(measured.correct))
        # One pass in training mode with a plain average is the definition of re-estimation.
        for module in batch_norms(twin).values():
            module.reset_running_stats()
            module.momentum = None
        twin.train()
        for images in TRAINING[:3]:
            twin(images)
        logits = twin.eval()(VALIDATION)
    assert measured.correct_recalibrated == int((logits.argmax(1) == targets).sum())
    assert measured.loss == pytest.approx(float(F.cross_entropy(logits, targets)), rel=1e-5)
    first, last = gradients_by_hand(twin)
    assert measured.first_gradient_norm == pytest.approx(float(first.norm()), rel=1e-4)
    assert measured.last_gradient_norm == pytest.approx(float(last.norm()), rel=1e-4)


def gradients_by_hand(twin):
    x = F.relu(twin.bn1(twin.conv1(PROBED.images))).detach().requires_grad_()
    y = twin.layer3(twin.layer2(twin.layer1(x)))
    loss = F.cross_entropy(twin.fc(y.mean((2, 3))), PROBED.targets)
    return torch.autograd.grad(loss, (x, y))


def test_scale_one_is_the_network_itself_in_every_scope(table):
    # The targets are the network's own predictions except for five images.
    identity = table[table.scale == 1]
    assert len(identity) == 1 + 3 + 9
    assert set(identity.correct) == {25}
    assert len(identity.drop(columns="scope").drop_duplicates()) == 1
    assert set(table[table.correct.isna()].scale) == {0}


def test_scales_differ_forward_and_backward(table):
    zero = row(table, "all", 0.0)
    one = row(table, "all", 1.0)
    assert zero.correct < one.correct
    assert zero.first_gradient_norm != pytest.approx(one.first_gradient_norm, rel=0.01)
    assert table.loss.nunique() > 10


def test_without_skips_it_is_the_plain_network_of_the_same_weights(network, targets, table):
    plain = build("plain20", classes=3, seed=9)
    plain.load_state_dict(network.state_dict())
    with torch.no_grad():
        correct = int((plain.eval()(VALIDATION).argmax(1) == targets).sum())
    assert row(table, "all", 0.0).correct == correct


def test_the_default_scales(network, targets, tmp_path):
    subject = subject_of(copy.deepcopy(network), targets)
    columns = scaling.measure(subject)["skip_scaling"]
    table = pd.DataFrame(columns)
    assert set(table[table.scope == "all"].scale) == {0, 0.25, 0.5, 0.75, 1}
    assert set(table[table.scope == "layer2"].scale) == {0, 1}
    assert set(table[table.scope == "layer2.1"].scale) == {0, 1}
    assert list(table.correct.isna()) == list(
        table.scope.str.contains(".", regex=False) & (table.scale == 0)
    )
    assert set(table.images) == {30}
    store(tmp_path / "run", "skip_scaling", columns)


def store(folder, name, columns):
    """Store a table in a run; fails on unknown or missing columns, and on wrong types."""
    epoch = [1] * len(columns["scope"])
    RunWriter(folder, {}).append(name, {"epoch": epoch, **columns}, 0, 0)


def test_the_network_does_not_change(network, targets):
    model = copy.deepcopy(network)
    scaling.measure(subject_of(model, targets), scales=(0.5,), recalibration_batches=1)
    before, after = network.state_dict(), model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(model(VALIDATION), network(VALIDATION))


def test_without_batch_norm_there_is_nothing_to_re_estimate(targets):
    model = build("resnet20", classes=3, norm="group", seed=0).eval()
    columns = scaling.measure(subject_of(model, targets), block_scales=())
    table = pd.DataFrame(columns["skip_scaling"])
    assert len(table) == 5 + 3 * 2
    assert list(table.correct) == list(table.correct_recalibrated)


def test_torchvisions_blocks_are_scaled_too():
    torch.manual_seed(0)
    model = ResNet(Bottleneck, [1, 1, 1, 1], num_classes=3, width_per_group=8).eval()
    columns = scaling.measure(
        subject_of(model, torch.zeros(30, dtype=torch.int64)), recalibration_batches=2
    )["skip_scaling"]
    stages = [f"layer{number}" for number in (1, 2, 3, 4)]
    assert list(dict.fromkeys(columns["scope"])) == ["all", *stages, *(f"{s}.0" for s in stages)]
    assert all(map(math.isfinite, columns["loss"][: 5 + 8]))


def test_a_plain_network_has_no_skip_to_scale():
    model = build("plain20", classes=3, seed=0).eval()
    with pytest.raises(NotMeasurableError, match="no skip to scale"):
        scaling.measure(subject_of(model, torch.zeros(30, dtype=torch.int64)))
