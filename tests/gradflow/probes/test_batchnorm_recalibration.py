import copy

import pytest
import torch
from torch import nn

from gradflow.models import build
from gradflow.probes.batchnorm_recalibration import batch_norms, recalibrated


def state(model):
    return copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]


def test_statistics_become_the_average_over_the_batches():
    model = nn.Sequential(nn.BatchNorm2d(3)).double()
    batches = [torch.randn(5, 3, 4, 4, dtype=torch.float64) * k + k for k in (1, 2, 3)]
    with recalibrated(model, batches):
        means = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
        variances = torch.stack([batch.var((0, 2, 3), correction=1) for batch in batches]).mean(0)
        assert torch.allclose(model[0].running_mean, means, rtol=1e-12)
        assert torch.allclose(model[0].running_var, variances, rtol=1e-12)
        assert not model.training


def test_with_one_batch_evaluation_equals_training_mode_on_it():
    # Up to the 1/n and 1/(n - 1) of the variance, which a large batch makes small.
    model = build("plain20", classes=4, seed=0).double()
    batch = torch.randn(16, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        expected = model.train()(batch)
        with recalibrated(model, [batch]):
            actual = model(batch)
    assert torch.allclose(actual, expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_as_it_was_afterwards(fails):
    model = build("resnet20", classes=4, seed=0)
    model.train()
    model.bn1.eval()
    model(torch.randn(4, 3, 16, 16))
    before, modes = state(model)
    try:
        with recalibrated(model, [torch.randn(4, 3, 16, 16) + 9]):
            assert not torch.equal(model.bn1.running_mean, before["bn1.running_mean"])
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        assert fails
    after, modes_after = state(model)
    assert modes == modes_after
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(module.momentum == 0.1 for module in batch_norms(model))


def test_a_model_without_batch_norm_has_nothing_to_recalibrate():
    assert batch_norms(build("plain20", classes=4, norm="group", seed=0)) == []
