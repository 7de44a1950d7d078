import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradflow.data import Batch
from gradflow.models import build
from gradflow.probes.loss.training_loss import (
    batch_statistics,
    curvature_along_gradient,
    gradient_of_loss,
    mean_loss,
)
from gradflow.recalibration.estimation import batch_norms


def batch_of(count, seed=0, shape=(3, 8, 8)):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, *shape, dtype=torch.float64, generator=generator)
    return Batch(images, torch.arange(count) % 3, torch.arange(count))


def network():
    return build("resnet20", classes=3, seed=0).double().eval()


def test_the_loss_is_the_mean_over_all_images_with_the_statistics_of_each_batch():
    batches, model = [batch_of(6), batch_of(3, 1)], network()
    with batch_statistics(model):
        found = mean_loss(model, batches)
    reference = network().train()
    with torch.no_grad():
        sums = [
            F.cross_entropy(reference(one.images), one.targets, reduction="sum") for one in batches
        ]
    assert found == pytest.approx(float(sum(sums)) / 9, rel=1e-12)
    assert not any(module.training for module in model.modules())


def test_only_batch_norms_are_in_training_mode():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    with batch_statistics(model):
        assert next(iter(batch_norms(model).values())).training
        assert not model[1].training


def test_the_gradient_equals_that_of_one_backward_pass():
    batches, model, reference = [batch_of(6), batch_of(3, 1)], network(), network().train()
    with batch_statistics(model):
        found = gradient_of_loss(model, batches)
    for one in batches:
        F.cross_entropy(reference(one.images), one.targets, reduction="sum").div(9).backward()
    for name, parameter in reference.named_parameters():
        assert torch.allclose(found[name], parameter.grad, rtol=1e-9, atol=1e-14)


def test_curvature_equals_that_of_the_whole_hessian():
    model, batch = nn.Linear(4, 3).double(), batch_of(5, shape=(4,))
    flat = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    def loss(weights):
        logits = batch.images @ weights[:12].view(3, 4).T + weights[12:]
        return F.cross_entropy(logits, batch.targets)

    hessian = torch.autograd.functional.hessian(loss, flat)
    gradient = torch.autograd.functional.jacobian(loss, flat)
    norm, curvature = curvature_along_gradient(model, batch)
    assert norm == pytest.approx(float(gradient.norm()), rel=1e-10)
    wanted = gradient @ hessian @ gradient / (gradient @ gradient)
    assert curvature == pytest.approx(float(wanted), rel=1e-10)


def test_curvature_of_a_network_with_relus_in_place_is_that_of_the_loss_along_the_gradient():
    model, batch = network(), batch_of(6)
    with batch_statistics(model):
        norm, curvature = curvature_along_gradient(model, batch)
        gradient = gradient_of_loss(model, [batch])
        slopes = []
        step = 1e-6
        for sign in (1, -2):  # once forward, then from there twice back
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.add_(gradient[name], alpha=sign * step / norm)
            here = gradient_of_loss(model, [batch])
            slopes.append(sum(float((here[name] * gradient[name]).sum()) for name in here) / norm)
    assert curvature == pytest.approx((slopes[0] - slopes[1]) / (2 * step), rel=1e-3)
