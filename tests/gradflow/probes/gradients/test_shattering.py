import copy
import math

import pytest
import torch
from torch import nn

from gradflow.data import Batch
from gradflow.models import build
from gradflow.probes.gradients.shattering import (
    INPUT,
    PROBE,
    autocorrelation,
    layers_to_observe,
    line_between,
    output_gradients,
    shattering,
)
from gradflow.probes.probe import NotMeasurableError, Subject
from gradflow.runs.format.schema import TABLES


def subject_of(model, images, targets=(2, 0, 1, 1)):
    batch = Batch(images, torch.tensor(targets[: len(images)]), torch.arange(len(images)))
    return Subject(model, 1, False, False, None, batch, lambda: [batch], lambda: [batch], seed=0)


def network(name, **options):
    torch.manual_seed(0)
    model = build(name, classes=3, seed=0, **options).double()
    model.train()(torch.randn(8, 3, 8, 8, dtype=torch.float64))
    return model.eval()


def autocorrelation_one_by_one(gradients, lags):
    mean = sum(gradients) / len(gradients)
    rest = [gradient - mean for gradient in gradients]
    covariance = []
    for lag in range(lags):
        pairs = list(zip(rest, rest[lag:], strict=False))
        covariance.append(sum(float((a * b).sum()) for a, b in pairs) / len(pairs))
    return [value / covariance[0] for value in covariance]


@pytest.mark.parametrize("name", ["plain20", "resnet20"])
def test_every_number_is_that_of_a_loop_over_points(name):
    model, points, lags = network(name), 7, 4
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    columns = shattering(
        subject_of(copy.deepcopy(model), images), lines=2, points=points, lags=lags
    )["shattering"]
    expected = {layer: [0.0] * lags for layer in (INPUT, "relu", "layer2.0")}
    for first, logit in ((0, 2), (2, 1)):
        gradients = {layer: [] for layer in expected}
        for t in range(points):
            share = t / (points - 1)
            x = (1 - share) * images[first] + share * images[first + 1]
            x = x[None].requires_grad_(True)
            stem = torch.relu(model.bn1(model.conv1(x)))
            middle = model.layer2[0](model.layer1(stem))
            rest = model.layer3(model.layer2[2](model.layer2[1](middle)))
            output = model.fc(model.avgpool(rest).flatten(1))[0, logit]
            found = torch.autograd.grad(output, [x, stem, middle])
            for layer, gradient in zip(gradients, found, strict=True):
                gradients[layer].append(gradient)
        for layer, values in gradients.items():
            curve = autocorrelation_one_by_one(values, lags)
            expected[layer] = [a + b / 2 for a, b in zip(expected[layer], curve, strict=True)]
    for layer, values in expected.items():
        rows = [row for row, found in enumerate(columns["layer"]) if found == layer]
        assert [columns["lag"][row] for row in rows] == list(range(lags))
        assert [columns["autocorrelation"][row] for row in rows] == pytest.approx(values, abs=1e-8)
    assert set(columns["points"]) == {points}


def test_layers_are_the_input_the_stem_and_the_blocks():
    columns = shattering(
        subject_of(network("resnet20").float(), torch.randn(2, 3, 8, 8)), points=4, lags=2
    )["shattering"]
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(3)]
    assert columns["layer"][::2] == [INPUT, "relu", *blocks]
    assert next(iter(layers_to_observe(build("plain18", classes=3, seed=0)))) == "maxpool"


def test_in_other_networks_the_layers_are_the_modules_with_weights():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(12, 4), nn.ELU(True))
    model.append(nn.Linear(4, 3))
    columns = shattering(subject_of(model, torch.randn(2, 3, 2, 2)), points=8, lags=3)["shattering"]
    assert columns["layer"][::3] == [INPUT, "2", "4"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_linear_model_has_no_autocorrelation(dtype):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 50), nn.Linear(50, 3)
    ).to(dtype)
    images = torch.randn(4, 3, 8, 8, dtype=dtype)
    columns = shattering(subject_of(model, images), points=16, lags=5)["shattering"]
    assert len(columns["layer"]) == 25
    assert columns["autocorrelation"] == [None] * 25


def test_after_the_last_block_there_is_no_autocorrelation():
    columns = shattering(
        subject_of(network("plain20").float(), torch.randn(2, 3, 8, 8)), points=8, lags=2
    )["shattering"]
    values = dict(zip(columns["layer"], columns["autocorrelation"], strict=True))
    assert values["layer3.2"] is None
    assert all(value is not None for layer, value in values.items() if layer != "layer3.2")


def test_the_columns_are_those_of_the_schema():
    (name,) = PROBE.tables
    wanted = {column.name for column in TABLES[name].columns} - {"epoch"}
    subject = subject_of(network("plain20").float(), torch.randn(2, 3, 8, 8))
    assert set(PROBE.measure(subject)[name]) == wanted


def test_white_noise_has_no_autocorrelation():
    noise = torch.randn(64, 5000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    curve = autocorrelation(noise, 32)
    assert curve[0] == 1
    # -1/64 because the mean is subtracted; 0.01 is several standard errors of 1/sqrt(32 * 5000).
    assert torch.allclose(curve[1:], torch.full((31,), -1 / 64, dtype=torch.float64), atol=0.01)


def test_a_cosine_wave_over_whole_periods_is_its_own_autocorrelation():
    place = torch.arange(60, dtype=torch.float64) * 2 * math.pi / 20
    # Sine and cosine together: the inner product depends on the lag alone.
    curve = autocorrelation(torch.stack([place.cos(), place.sin()], dim=1), 30)
    assert torch.allclose(curve, place[:30].cos(), atol=1e-12)


def test_gradients_do_not_depend_on_the_points_per_pass():
    model, images = network("resnet20"), torch.randn(5, 3, 8, 8, dtype=torch.float64)
    whole, parts = output_gradients(model, images, 1, 5), output_gradients(model, images, 1, 2)
    assert list(whole) == list(parts)
    for name, gradient in whole.items():
        assert torch.allclose(parts[name], gradient, rtol=1e-12, atol=1e-14)


def test_a_line_holds_both_images_and_the_one_halfway():
    first, second = torch.zeros(3, 2, 2), torch.ones(3, 2, 2)
    line = line_between(first, second, 3)
    assert torch.equal(line, torch.stack([first, first + 0.5, second]))


def perceptron(seed, depth):
    """Images [N, 3, 8, 8] through `depth` ReLUs of width 200, without biases; He initialization."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 200, bias=False))
    for _ in range(depth):
        model.append(nn.ReLU()).append(nn.Linear(200, 200, bias=False))
        nn.init.kaiming_normal_(model[-1].weight, nonlinearity="relu")
    return model.append(nn.Linear(200, 3)).double()


@pytest.mark.parametrize(("depth", "expected"), [(1, 0.500), (2, 0.302), (5, 0.105)])
def test_between_orthogonal_images_a_plain_networks_gradients_correlate_as_in_theory(
    depth, expected
):
    # The product of k0(rho_l) from rho_0 = 0: Balduzzi et al. 2017 with Cho & Saul's kernels.
    images = torch.zeros(2, 3, 8, 8, dtype=torch.float64)
    images[0, 0], images[1, 1] = 1, 1
    cosines = []
    for seed in range(30):
        gradient = output_gradients(perceptron(seed, depth), images, 0, 2)[INPUT].flatten(1)
        cosines.append(float(nn.functional.cosine_similarity(gradient[0], gradient[1], dim=0)))
    assert sum(cosines) / 30 == pytest.approx(expected, abs=0.04)


def test_the_gradients_of_deeper_plain_networks_forget_faster():
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=generator)

    def memory(depth, seed):
        columns = shattering(subject_of(perceptron(seed, depth), images), lines=1)["shattering"]
        return sum(columns["autocorrelation"][1:6]) / 5  # of the input, which comes first

    assert all(memory(1, seed) > memory(24, seed) + 0.05 for seed in range(3))


def test_a_single_image_makes_no_line():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    with pytest.raises(NotMeasurableError, match="the batch has 1"):
        shattering(subject_of(model, torch.randn(1, 3, 2, 2)))


def test_more_lags_than_points_are_refused():
    with pytest.raises(ValueError, match="lags 0 to 3"):
        shattering(subject_of(nn.Flatten(), torch.randn(2, 3, 2, 2)), points=4, lags=5)
