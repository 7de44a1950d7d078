import pytest
import torch
from torch import nn

from gradflow.models import build
from gradflow.probes.attribution.pictures import grad_cam, integrated_gradients, layer_for_grad_cam
from gradflow.probes.network.blocks import find_blocks


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def test_integrated_gradients_of_a_linear_model_are_weight_times_difference():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 5, 2)).double()
    images, baseline = normal(3, 3, 4, 5), normal(3, 3, 4, 5, seed=1)
    targets = torch.tensor([1, 0, 1])
    weights = model[1].weight.detach()[targets].view(3, 3, 4, 5)
    wanted = (weights * (images - baseline)).sum(1)
    found = integrated_gradients(model, images, baseline, targets, 3)
    assert torch.allclose(found, wanted, rtol=1e-6)  # captum keeps its step sizes in float32


@pytest.mark.parametrize("name", ["plain20", "resnet20"])
def test_integrated_gradients_are_the_sum_over_the_path_and_complete(name):
    # The ReLUs of these networks work in place, and one module serves two of them.
    model = build(name, classes=3, seed=0).double().eval()
    images, targets = normal(2, 3, 8, 8), torch.tensor([2, 0])
    baseline = torch.full_like(images, -2)
    steps = 100
    found = integrated_gradients(model, images, baseline, targets, steps)
    total = torch.zeros_like(images)
    for step in range(steps):
        point = (baseline + (step + 0.5) / steps * (images - baseline)).requires_grad_()
        chosen = model(point).gather(1, targets[:, None]).sum()
        total += torch.autograd.grad(chosen, point)[0] / steps
    assert torch.allclose(found, (total * (images - baseline)).sum(1), rtol=1e-4, atol=1e-8)
    with torch.no_grad():
        change = (model(images) - model(baseline)).gather(1, targets[:, None])[:, 0]
    error = (found.sum((1, 2)) - change).abs() / found.abs().sum((1, 2))
    assert float(error.max()) < 0.02


def test_grad_cam_is_the_rectified_sum_of_maps_weighed_by_mean_gradients():
    model = build("resnet20", classes=3, seed=0).double().eval()
    images, targets = normal(2, 3, 16, 16), torch.tensor([2, 0])
    layer = model.layer3[-1]
    maps = model.layer3(model.layer2(model.layer1(model.relu(model.bn1(model.conv1(images))))))
    maps.retain_grad()
    model.fc(model.avgpool(maps).flatten(1)).gather(1, targets[:, None]).sum().backward()
    weighed = (maps.grad.mean((2, 3), keepdim=True) * maps).sum(1).relu().detach()
    found = grad_cam(model, images, targets, layer)
    wanted = nn.functional.interpolate(weighed[:, None], (16, 16), mode="bilinear")[:, 0]
    assert torch.allclose(found, wanted, rtol=1e-10)
    assert found.max() > 0


@pytest.mark.parametrize(("side", "wanted"), [(32, "layer3.2"), (8, "layer2.2"), (4, "layer1.2")])
def test_grad_cam_uses_the_last_block_with_at_least_four_pixels(side, wanted):
    model = build("resnet20", classes=3, seed=0).eval()
    assert layer_for_grad_cam(model, torch.randn(3, side, side)).name == wanted
    assert not any(block.module._forward_hooks for block in find_blocks(model))


def test_for_a_too_small_image_grad_cam_uses_the_first_block():
    model = build("plain20", classes=3, seed=0).eval()
    assert layer_for_grad_cam(model, torch.randn(3, 2, 2)).name == "layer1.0"
