"""Networks whose gradients have a closed form: the recorded values must equal it, in every mode."""

import math
import warnings
from dataclasses import dataclass, field

import pandas as pd
import pytest
import torch
from torch import nn

import gradflow
from gradflow.hooks.reduction import cpu
from gradflow.models import build


@dataclass(frozen=True)
class Mode:
    """How a step is recorded: which of several equal steps, by which means, with which options."""

    step: int = 3  # known to be as the steps before: tensors wait in groups, plans hold
    loops: bool = True
    options: dict = field(default_factory=dict)

    @property
    def is_in_graph(self) -> bool:
        return "compiled" in self.options


MODES = {
    "first step": Mode(step=0),
    "as usual": Mode(),
    "by torch alone": Mode(loops=False),
    "histograms": Mode(options={"histograms": True}),
    "all outputs": Mode(options={"outputs": "all"}),
    "updates in turns": Mode(options={"updates_every": 3}),
    "in graph": Mode(options={"compiled": "in-graph"}),
}


@dataclass
class Step:
    """The rows of one step of a run."""

    run: gradflow.Run
    number: int

    def __getattr__(self, name):
        found = getattr(self.run, name)
        if isinstance(found, pd.DataFrame) and "step" in found:
            return found[found.step == self.number].reset_index(drop=True)
        return found


@pytest.fixture(params=MODES)
def mode(request):
    return MODES[request.param]


@pytest.fixture
def trace(mode, tmp_path, monkeypatch):
    """Train some equal steps, and return the recorded rows of one."""
    if not mode.loops:
        monkeypatch.setattr(cpu, "loops_module", lambda: None)

    def run(model, x, loss=torch.sum):
        with warnings.catch_warnings():
            # In the graph, a ReLU that is called twice has no rows. The operations are those that a
            # compiler traces; `test_in_graph.py` compiles them.
            if mode.is_in_graph:
                warnings.filterwarnings("ignore", "gradflow: from the second recorded step on")
            with gradflow.Tracer(model, tmp_path / "run", **mode.options) as tracer:
                for _ in range(mode.step + 1):
                    model.zero_grad()
                    loss(model(x)).backward()
                    tracer.step()
        return Step(gradflow.open_run(tmp_path / "run"), mode.step)

    return run


def linear(weight):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False).double()
    layer.weight.data = weight.double()
    return layer


def test_one_sample_weight_gradient_norm_is_the_product_of_the_two_norms(trace):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    run = trace(model, torch.randn(1, 5, dtype=torch.float64))
    entering = run.activations.set_index("layer").norm["1"]
    delta = run.gradients.set_index("layer").norm["2"]
    weight = run.parameters.set_index("parameter").gradient_norm["2.weight"]
    assert weight == pytest.approx(delta * entering, rel=1e-10)


def test_deep_linear_net_of_orthogonal_weights_has_one_gradient_norm(trace):
    torch.manual_seed(0)
    layers = [linear(torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]) for _ in range(12)]
    run = trace(nn.Sequential(*layers), torch.ones(1, 6, dtype=torch.float64))
    assert list(run.gradients.norm) == pytest.approx([math.sqrt(6)] * 12, rel=1e-10)
    norms = list(run.parameters.gradient_norm)
    assert norms == pytest.approx([norms[0]] * 12, rel=1e-10)


@pytest.mark.parametrize("weight", [0.5, 1.5])
def test_scalar_relu_chain_is_a_power_of_its_weight(trace, weight):
    blocks = [m for _ in range(6) for m in (linear(torch.tensor([[weight]])), nn.ReLU())]
    x = torch.tensor([[2.0]], dtype=torch.float64)
    run = trace(nn.Sequential(*blocks), x)
    activations, gradients = (
        table.set_index("layer").norm for table in (run.activations, run.gradients)
    )
    for level in range(1, 7):
        relu = str(2 * level - 1)
        assert activations[relu] == pytest.approx(2 * weight**level, rel=1e-10)
        assert gradients[relu] == pytest.approx(weight ** (6 - level), rel=1e-10)


def test_scalar_relu_chain_of_negative_weight_is_dead_and_says_so(trace):
    blocks = [m for _ in range(4) for m in (linear(torch.tensor([[-0.5]])), nn.ReLU())]
    x = torch.ones(1, 1, dtype=torch.float64)
    run = trace(nn.Sequential(*blocks), x)
    relus = run.activations[run.activations.layer.isin(["1", "3", "5", "7"])]
    assert list(relus.dead_channels) == [1] * 4
    assert run.gradients.set_index("layer").norm["0"] == 0.0


def test_bias_free_plain_relu_net_has_one_weight_gradient_product(trace):
    # <W_l, dL/dW_l> is the same in every layer: L is homogeneous of degree 1 in each W_l.
    torch.manual_seed(1)
    model = nn.Sequential(
        *[m for _ in range(5) for m in (nn.Linear(8, 8, bias=False), nn.ReLU())]
    ).double()
    x = torch.randn(3, 8, dtype=torch.float64)
    run = trace(model, x)
    products = [float((p * p.grad).sum().detach()) for p in model.parameters()]
    assert products == pytest.approx([products[0]] * 5, rel=1e-10)
    recorded = run.parameters.set_index("parameter")
    for name, p in model.named_parameters():
        assert recorded.gradient_norm[name] == pytest.approx(float(p.grad.norm()), rel=1e-10)


def test_batch_norm_makes_the_gradient_before_it_sum_to_zero(trace):
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3)).double()
    x = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    run = trace(model, x, loss=lambda y: y.square().sum())
    gradients = run.gradients.set_index("layer")
    assert abs(gradients["mean"]["0"]) < 1e-10 * gradients.rms["0"]
    assert gradients.channel_squared_mean["0"] < 1e-20 * gradients.rms["0"] ** 2


def test_zero_gamma_branches_pass_one_gradient_along_the_skips(trace, mode):
    # Healthy, not vanishing: equal at the stem and at all block outputs but the last.
    torch.manual_seed(0)
    model = build("resnet20", classes=5, seed=0).double()
    blocks = [m for stage in ("layer1",) for m in getattr(model, stage)]
    for block in blocks:
        nn.init.zeros_(block.bn2.weight)
    run = trace(model, torch.randn(4, 3, 32, 32, dtype=torch.float64))
    gradients = run.gradients.set_index("layer").norm
    assert gradients["layer1.0"] == pytest.approx(gradients["layer1.1"], rel=1e-10)
    assert gradients["relu"] == pytest.approx(gradients["layer1.0"], rel=1e-10)
    recorded = run.parameters.set_index("parameter").gradient_norm
    assert recorded["layer1.0.conv1.weight"] == 0.0
    if not mode.is_in_graph:  # there residual additions are not recorded
        junctions = run.junctions.set_index("layer")
        assert junctions.skip_share["layer1.0"] == pytest.approx(1.0, rel=1e-10)


def test_default_initialization_without_norm_vanishes_in_activations_not_in_weights(trace):
    # Both ways 1/6 of the squared norm is left after each layer (Hanin 2018), so that the weight
    # gradients, products of the two, look flat while the activation gradients vanish.
    model = build("plain32", classes=10, norm="none", init="default", seed=0).double()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.bias = None
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 3, 32, 32, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 10, (8,), generator=generator)
    run = trace(model, x, loss=lambda z: nn.functional.cross_entropy(z, y))
    convolutions = list(run.layers[run.layers.role == "convolution"].layer)
    gradients = run.gradients.set_index("layer").norm[convolutions]
    assert gradients.iloc[0] / gradients.iloc[-1] < 1e-11
    first_stage = gradients[[name for name in convolutions if name.startswith("layer1")]]
    factor = (first_stage.iloc[0] / first_stage.iloc[-1]) ** (2 / (len(first_stage) - 1))
    assert factor == pytest.approx(1 / 6, abs=0.04)
    weights = run.parameters.set_index("parameter").gradient_norm
    ratio = weights["layer1.0.conv1.weight"] / weights["layer3.4.conv2.weight"]
    assert 1e-2 < ratio < 1e2


def test_sigmoid_chain_loses_at_least_three_quarters_a_layer(trace):
    weight = 1.0
    blocks = [m for _ in range(5) for m in (linear(torch.tensor([[weight]])), nn.Sigmoid())]
    run = trace(nn.Sequential(*blocks), torch.zeros(1, 1, dtype=torch.float64))
    norms = run.gradients.set_index("layer").norm
    factors = [norms[str(2 * k + 1)] / norms[str(2 * k + 3)] for k in range(4)]
    assert all(0 < factor <= weight / 4 for factor in factors)


class Scaled(nn.Module):
    """A residual block: x + a x."""

    def __init__(self, gain):
        super().__init__()
        self.branch = linear(torch.tensor([[gain]]))

    def forward(self, x):
        return x + self.branch(x)


def test_scalar_residual_chain_is_a_power_and_shares_by_its_gain(trace, mode):
    gain, depth = 0.25, 5
    x = torch.tensor([[2.0]], dtype=torch.float64, requires_grad=True)
    first = nn.Identity()
    run = trace(nn.Sequential(first, *(Scaled(gain) for _ in range(depth))), x)
    gradients = run.gradients.set_index("layer").norm
    for block in range(1, depth + 1):
        expected = (1 + gain) ** (depth - block)
        assert gradients[str(block)] == pytest.approx(expected, rel=1e-10)
    if not mode.is_in_graph:
        junctions = run.junctions.set_index("layer").loc[["2", "3", "4", "5"]]
        ratio = junctions.branch_gradient_norm / junctions.skip_gradient_norm
        assert list(ratio) == pytest.approx([gain] * 4, rel=1e-10)


def test_relu_of_normal_numbers_has_the_moments_of_the_half_normal(trace):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 500, generator=generator, dtype=torch.float64, requires_grad=True)
    recorded = trace(nn.Sequential(nn.ReLU()), x).activations.iloc[0]
    by_chance = 4 / math.sqrt(x.numel())
    assert recorded["mean"] == pytest.approx(1 / math.sqrt(2 * math.pi), abs=by_chance)
    assert recorded["std"] ** 2 == pytest.approx((1 - 1 / math.pi) / 2, abs=by_chance)
    assert recorded["zero_fraction"] == pytest.approx(0.5, abs=by_chance)


def test_the_global_norm_is_the_root_of_the_sum_of_squares(trace):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    run = trace(model, torch.randn(7, 6, dtype=torch.float64), lambda y: y.square().sum())
    whole = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
    assert run.steps.gradient_norm[0] == pytest.approx(float(whole), rel=1e-10)
    squares = run.parameters.gradient_norm.pow(2).sum()
    assert math.sqrt(squares) == pytest.approx(float(whole), rel=1e-10)
