"""Networks whose gradients have a closed form: the recorded values must equal it."""

import math

import pytest
import torch
from torch import nn

import gradflow
from gradflow.models import build


def trace(model, folder, x, loss=torch.sum):
    with gradflow.Tracer(model, folder) as tracer:
        loss(model(x)).backward()
        tracer.step()
    return gradflow.open_run(folder)


def linear(weight):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False).double()
    layer.weight.data = weight.double()
    return layer


def test_one_sample_weight_gradient_norm_is_the_product_of_the_two_norms(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    run = trace(model, tmp_path / "run", torch.randn(1, 5, dtype=torch.float64))
    entering = run.activations.set_index("layer").norm["1"]
    delta = run.gradients.set_index("layer").norm["2"]
    weight = run.parameters.set_index("parameter").gradient_norm["2.weight"]
    assert weight == pytest.approx(delta * entering, rel=1e-10)


def test_deep_linear_net_of_orthogonal_weights_has_one_gradient_norm(tmp_path):
    torch.manual_seed(0)
    layers = [linear(torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]) for _ in range(12)]
    run = trace(nn.Sequential(*layers), tmp_path / "run", torch.ones(1, 6, dtype=torch.float64))
    assert list(run.gradients.norm) == pytest.approx([math.sqrt(6)] * 12, rel=1e-10)
    norms = list(run.parameters.gradient_norm)
    assert norms == pytest.approx([norms[0]] * 12, rel=1e-10)


@pytest.mark.parametrize("weight", [0.5, 1.5])
def test_scalar_relu_chain_is_a_power_of_its_weight(tmp_path, weight):
    blocks = [m for _ in range(6) for m in (linear(torch.tensor([[weight]])), nn.ReLU())]
    x = torch.tensor([[2.0]], dtype=torch.float64)
    run = trace(nn.Sequential(*blocks), tmp_path / "run", x)
    activations, gradients = (
        table.set_index("layer").norm for table in (run.activations, run.gradients)
    )
    for level in range(1, 7):
        relu = str(2 * level - 1)
        assert activations[relu] == pytest.approx(2 * weight**level, rel=1e-10)
        assert gradients[relu] == pytest.approx(weight ** (6 - level), rel=1e-10)


def test_scalar_relu_chain_of_negative_weight_is_dead_and_says_so(tmp_path):
    blocks = [m for _ in range(4) for m in (linear(torch.tensor([[-0.5]])), nn.ReLU())]
    x = torch.ones(1, 1, dtype=torch.float64)
    run = trace(nn.Sequential(*blocks), tmp_path / "run", x)
    relus = run.activations[run.activations.layer.isin(["1", "3", "5", "7"])]
    assert list(relus.dead_channels) == [1] * 4
    assert run.gradients.set_index("layer").norm["0"] == 0.0


def test_bias_free_plain_relu_net_has_one_weight_gradient_product(tmp_path):
    # <W_l, dL/dW_l> is the same in every layer: L is homogeneous of degree 1 in each W_l.
    torch.manual_seed(1)
    model = nn.Sequential(
        *[m for _ in range(5) for m in (nn.Linear(8, 8, bias=False), nn.ReLU())]
    ).double()
    x = torch.randn(3, 8, dtype=torch.float64)
    run = trace(model, tmp_path / "run", x)
    products = [float((p * p.grad).sum().detach()) for p in model.parameters()]
    assert products == pytest.approx([products[0]] * 5, rel=1e-10)
    recorded = run.parameters.set_index("parameter")
    for name, p in model.named_parameters():
        assert recorded.gradient_norm[name] == pytest.approx(float(p.grad.norm()), rel=1e-10)


def test_batch_norm_makes_the_gradient_before_it_sum_to_zero(tmp_path):
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3)).double()
    x = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    run = trace(model, tmp_path / "run", x, loss=lambda y: y.square().sum())
    gradients = run.gradients.set_index("layer")
    assert abs(gradients["mean"]["0"]) < 1e-10 * gradients.rms["0"]
    assert gradients.channel_squared_mean["0"] < 1e-20 * gradients.rms["0"] ** 2


def test_zero_gamma_branches_pass_one_gradient_along_the_skips(tmp_path):
    # Healthy, not vanishing: equal at the stem and at all block outputs but the last.
    torch.manual_seed(0)
    model = build("resnet20", classes=5, seed=0).double()
    blocks = [m for stage in ("layer1",) for m in getattr(model, stage)]
    for block in blocks:
        nn.init.zeros_(block.bn2.weight)
    run = trace(model, tmp_path / "run", torch.randn(4, 3, 32, 32, dtype=torch.float64))
    gradients = run.gradients.set_index("layer").norm
    assert gradients["layer1.0"] == pytest.approx(gradients["layer1.1"], rel=1e-10)
    assert gradients["relu"] == pytest.approx(gradients["layer1.0"], rel=1e-10)
    recorded = run.parameters.set_index("parameter").gradient_norm
    assert recorded["layer1.0.conv1.weight"] == 0.0
    junctions = run.junctions.set_index("layer")
    assert junctions.skip_share["layer1.0"] == pytest.approx(1.0, rel=1e-10)


def test_default_initialization_without_norm_vanishes_in_activations_not_in_weights(tmp_path):
    # Both ways 1/6 of the squared norm is left after each layer (Hanin 2018), so that the weight
    # gradients, products of the two, look flat while the activation gradients vanish.
    model = build("plain32", classes=10, norm="none", init="default", seed=0).double()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.bias = None
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 3, 32, 32, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 10, (8,), generator=generator)
    run = trace(model, tmp_path / "run", x, loss=lambda z: nn.functional.cross_entropy(z, y))
    convolutions = list(run.layers[run.layers.role == "convolution"].layer)
    gradients = run.gradients.set_index("layer").norm[convolutions]
    assert gradients.iloc[0] / gradients.iloc[-1] < 1e-11
    first_stage = gradients[[name for name in convolutions if name.startswith("layer1")]]
    factor = (first_stage.iloc[0] / first_stage.iloc[-1]) ** (2 / (len(first_stage) - 1))
    assert factor == pytest.approx(1 / 6, abs=0.04)
    weights = run.parameters.set_index("parameter").gradient_norm
    ratio = weights["layer1.0.conv1.weight"] / weights["layer3.4.conv2.weight"]
    assert 1e-2 < ratio < 1e2


def test_sigmoid_chain_loses_at_least_three_quarters_a_layer(tmp_path):
    weight = 1.0
    blocks = [m for _ in range(5) for m in (linear(torch.tensor([[weight]])), nn.Sigmoid())]
    run = trace(nn.Sequential(*blocks), tmp_path / "run", torch.zeros(1, 1, dtype=torch.float64))
    norms = run.gradients.set_index("layer").norm
    factors = [norms[str(2 * k + 1)] / norms[str(2 * k + 3)] for k in range(4)]
    assert all(0 < factor <= weight / 4 for factor in factors)
