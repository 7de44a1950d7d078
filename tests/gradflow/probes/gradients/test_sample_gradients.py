import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradflow.probes.gradients.sample_gradients import gradient_products
from gradflow.probes.probe import NotMeasurableError


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        x = self.linear(x.mean(1).flatten(1)[:, :4])
        return F.linear(x, self.linear.weight)


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used = nn.Linear(12, 3)
        self.spare = nn.Linear(12, 3)

    def forward(self, x):
        return self.used(x.flatten(1))


def products_one_by_one(model, images, targets):
    gradients = []
    for image, target in zip(images, targets, strict=True):
        loss = F.cross_entropy(model(image[None]), target[None])
        found = torch.autograd.grad(loss, list(model.parameters()))
        gradients.append(torch.cat([gradient.flatten() for gradient in found]))
    return torch.stack(gradients) @ torch.stack(gradients).T


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("side", [3, 12])  # 1 position and 100: both sides of the faster way
def test_products_are_the_same_by_positions_and_by_gradients(side, bias):
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 5, 3, bias=bias)
    model = nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    images = torch.randn(4, 3, side, side, dtype=torch.float64)
    targets = torch.tensor([0, 4, 1, 1])
    expected = products_one_by_one(model, images, targets)
    assert torch.allclose(gradient_products(model, images, targets)["0"], expected, rtol=1e-10)


def test_a_linear_layer_applied_at_many_positions_adds_them_up():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(2), nn.Linear(9, 4), nn.Flatten()).double()
    images, targets = torch.randn(3, 3, 3, 3, dtype=torch.float64), torch.tensor([0, 11, 5])
    expected = products_one_by_one(model, images, targets)
    assert torch.allclose(gradient_products(model, images, targets)["1"], expected, rtol=1e-10)


def test_a_single_layer_model_is_named_by_its_class():
    products = gradient_products(nn.Linear(12, 3), torch.randn(2, 12), torch.tensor([0, 1]))
    assert list(products) == ["Linear"]


def test_a_layer_that_is_never_called_has_no_gradient():
    products = gradient_products(Unused(), torch.randn(2, 3, 2, 2), torch.tensor([0, 1]))
    assert not products["spare"].any()
    assert products["used"].any()


def test_a_first_layer_in_place_does_not_change_the_images():
    images = torch.randn(2, 3, 2, 2)
    before = images.clone()
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(12, 3))
    gradient_products(model, images, torch.tensor([0, 1]))
    assert torch.equal(images, before)


def test_parameters_that_are_used_outside_their_layer_are_refused():
    with pytest.raises(NotMeasurableError, match="parameters of linear are also used elsewhere"):
        gradient_products(Shared().eval(), torch.randn(3, 3, 2, 2), torch.tensor([0, 1, 3]))
