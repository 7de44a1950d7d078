import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradflow.data import Batch
from gradflow.models import build
from gradflow.probes.execution import run_probes
from gradflow.probes.loss import sharpness, slices
from gradflow.probes.loss.slices import (
    BETWEEN_EPOCHS,
    GRADIENT,
    RANDOM,
    filter_normalized_direction,
)
from gradflow.probes.probe import NotMeasurableError, Subject
from gradflow.recalibration.estimation import batch_norms
from gradflow.runs.format.schema import TABLES
from gradflow.runs.reading.run import open_run
from gradflow.runs.writing.run import RunWriter


def batch_of(count):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, 8, 8, generator=generator)
    return Batch(images, torch.arange(count) % 3, torch.arange(count))


def subject_of(model, previous, epoch=2):
    first, second = batch_of(12), batch_of(5)
    kept = None if previous is None else copy.deepcopy(previous.state_dict())
    return Subject(
        copy.deepcopy(model).eval(), epoch, False, True, kept, first, lambda: [first, second],
        lambda: [second], 7,
    )  # fmt: skip


def loss_by_hand(model):
    model, batch = copy.deepcopy(model).train(), batch_of(12)
    with torch.no_grad():
        return float(F.cross_entropy(model(batch.images), batch.targets))


@pytest.fixture(scope="module")
def networks():
    return [build("resnet20", classes=3, seed=seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def lines(networks):
    table = slices.PROBE.measure(subject_of(networks[1], networks[0]))["loss_slice"]
    wanted = {quantity.name for quantity in TABLES["loss_slice"].columns} - {"epoch"}
    assert set(table) == wanted
    assert set(table["images"]) == {12}
    found = {BETWEEN_EPOCHS: {}, GRADIENT: {}, RANDOM: {}}
    for direction, position, loss in zip(
        table["direction"], table["position"], table["loss"], strict=True
    ):
        assert position not in found[direction]
        found[direction][position] = loss
    return found


def test_between_epochs_0_and_1_are_the_two_networks(networks, lines):
    assert lines[BETWEEN_EPOCHS][0.0] == pytest.approx(loss_by_hand(networks[0]), rel=1e-6)
    assert lines[BETWEEN_EPOCHS][1.0] == pytest.approx(loss_by_hand(networks[1]), rel=1e-6)


def test_between_epochs_weights_are_mixed(networks, lines):
    mixed = copy.deepcopy(networks[0])
    with torch.no_grad():
        for mine, other in zip(mixed.parameters(), networks[1].parameters(), strict=True):
            mine.mul_(1.25).sub_(0.25 * other)
    assert lines[BETWEEN_EPOCHS][-0.25] == pytest.approx(loss_by_hand(mixed), rel=1e-4)


def test_the_gradient_line_goes_downhill_at_the_slope_of_the_gradient(networks, lines):
    line = lines[GRADIENT]
    assert line[0.0] == pytest.approx(loss_by_hand(networks[1]), rel=1e-6)
    model, batch = copy.deepcopy(networks[1]).train(), batch_of(12)
    F.cross_entropy(model(batch.images), batch.targets).backward()
    norm = float(nn.utils.get_total_norm([weight.grad for weight in model.parameters()]))
    assert sorted(line) == pytest.approx([at * line[0.0] / norm for at in (-0.5, 0, 0.5, 1)])
    length = max(line)
    with torch.no_grad():
        for weight in model.parameters():
            weight.sub_(length * weight.grad / norm)
    assert line[length] == pytest.approx(loss_by_hand(model), rel=1e-3)


def test_other_epochs_draw_other_directions_and_the_same_epoch_the_same(networks, lines):
    def again(epoch):
        table = slices.PROBE.measure(subject_of(networks[1], networks[0], epoch))["loss_slice"]
        places = zip(table["direction"], table["position"], table["loss"], strict=True)
        return {at: loss for direction, at, loss in places if direction == RANDOM}

    assert again(2) == lines[RANDOM]
    assert again(3) != lines[RANDOM]
    assert again(3)[0.0] == lines[RANDOM][0.0]


def test_every_filter_of_a_random_direction_has_the_norm_of_its_own():
    model = build("resnet20", classes=3, seed=0)
    with torch.no_grad():
        model.conv1.weight[3] = 0
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    direction = filter_normalized_direction(weights, seed=5)
    for name, weight in weights.items():
        assert direction[name].shape == weight.shape
        if weight.dim() == 1:
            assert not direction[name].any()
            continue
        for filter_, own in zip(direction[name], weight, strict=True):
            assert float(filter_.norm()) == pytest.approx(float(own.norm()), rel=1e-5)
    name = "layer1.0.conv1.weight"
    cosine = F.cosine_similarity(direction[name].flatten(), weights[name].flatten(), 0)
    assert abs(float(cosine)) < 0.1


def test_without_the_weights_of_an_epoch_before_there_is_no_slice(networks):
    with pytest.raises(NotMeasurableError, match="epoch before"):
        slices.PROBE.measure(subject_of(networks[1], None))


def test_sharpness_is_that_of_the_slice(networks):
    table = sharpness.PROBE.measure(subject_of(networks[1], networks[0]))["sharpness"]
    wanted = {quantity.name for quantity in TABLES["sharpness"].columns} - {"epoch"}
    assert set(table) == wanted
    assert table["images"] == [12]
    model, batch = copy.deepcopy(networks[1]).train(), batch_of(12)
    F.cross_entropy(model(batch.images), batch.targets).backward()
    norm = nn.utils.get_total_norm([weight.grad for weight in model.parameters()])
    assert table["gradient_norm"][0] == pytest.approx(float(norm), rel=1e-4)


def test_running_statistics_are_not_used(networks, lines):
    shifted = copy.deepcopy(networks[1])
    for module in batch_norms(shifted).values():
        module.running_mean.add_(5)
        module.running_var.mul_(100)
    table = slices.PROBE.measure(subject_of(shifted, networks[0]))["loss_slice"]
    found = {direction: {} for direction in lines}
    for direction, position, loss in zip(
        table["direction"], table["position"], table["loss"], strict=True
    ):
        found[direction][position] = loss
    assert found == lines


def test_run_as_a_probe_it_does_not_change_the_network_and_its_table_is_read_back(
    networks, lines, tmp_path
):
    subject = subject_of(networks[1], networks[0])
    before = copy.deepcopy(subject.model.state_dict())
    previous = copy.deepcopy(subject.previous_state)
    writer = RunWriter(tmp_path / "run", {})

    def write(name, columns):
        count = len(next(iter(columns.values())))
        writer.append(name, {"epoch": [2] * count, **columns}, 0, 0)

    run_probes([slices.PROBE, sharpness.PROBE], subject, write)
    writer.close("complete")
    for state, kept in ((subject.model.state_dict(), before), (subject.previous_state, previous)):
        assert all(torch.equal(state[name], kept[name]) for name in kept)
    frame = open_run(tmp_path / "run").table("loss_slice")
    found = {direction: {} for direction in lines}
    for row in frame.itertuples():
        found[row.direction][row.position] = row.loss
    assert found == lines
    assert set(frame["images"]) == {12}
    assert list(open_run(tmp_path / "run").table("probe_costs")["probe"]) == ["loss_slice"]
