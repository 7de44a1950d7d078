import copy
import math

import pytest
import torch
from torch import nn

from gradflow.models import build
from gradflow.recalibration.estimation import batch_norms, recalibrated
from gradflow.runs.format.schema import TABLES


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
def test_buffers_and_modes_are_restored_afterwards(fails):
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
    assert all(module.momentum == 0.1 for module in batch_norms(model).values())


def test_a_model_without_batch_norm_has_nothing_to_recalibrate():
    assert batch_norms(build("plain20", classes=4, norm="group", seed=0)) == {}


def test_staleness_is_the_distance_of_running_from_re_estimated_statistics():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(2, eps=0.5)).double()
    model[1].running_mean.copy_(torch.tensor([4.0, 0.0]))
    model[1].running_var.copy_(torch.tensor([9.5, 1.5]))
    # Means 1 and 2, unbiased variances 2 and 8: with eps 2.5 and 8.5.
    batch = torch.tensor([[0.0, 0.0], [2.0, 4.0]], dtype=torch.float64)
    with recalibrated(model, [batch]) as staleness:
        pass
    assert staleness["layer"] == ["1"]
    assert staleness["channels"] == [2]
    mean_shift = ((3**2 / 2.5 + 2**2 / 8.5) / 2) ** 0.5
    variance_shift = ((math.log(10 / 2.5) ** 2 + math.log(2 / 8.5) ** 2) / 2) ** 0.5
    assert staleness["mean_shift"] == pytest.approx([mean_shift], rel=1e-12)
    assert staleness["variance_shift"] == pytest.approx([variance_shift], rel=1e-12)


def test_each_layer_is_compared_with_the_layers_before_it_re_estimated_too():
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3), nn.BatchNorm1d(3)).double()
    batch = torch.randn(50, 3, dtype=torch.float64) * 5 + 7
    with recalibrated(model, [batch]) as staleness:
        pass
    with torch.no_grad():
        standard = (batch - batch.mean(0)) / (batch.var(0, correction=0) + 1e-5).sqrt()
        second = model[1](standard)
        shift = second.mean(0) / (second.var(0) + 1e-5).sqrt()
    assert staleness["layer"] == ["0", "2"]
    assert staleness["mean_shift"][1] == pytest.approx(float(shift.square().mean().sqrt()))


def test_exact_statistics_are_not_stale():
    torch.manual_seed(0)
    model = build("resnet20", classes=4, seed=0).double()
    batches = [torch.randn(4, 3, 8, 8, dtype=torch.float64) for _ in range(2)]
    with recalibrated(model, batches) as first, recalibrated(model, batches) as second:
        assert min(first["mean_shift"]) > 0
        assert min(first["variance_shift"]) > 0
        assert second["mean_shift"] == second["variance_shift"] == [0.0] * len(second["layer"])
    names = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert second["layer"] == names


def test_staleness_fills_the_table_of_the_schema():
    with recalibrated(build("plain20", classes=4, norm="none", seed=0), []) as staleness:
        wanted = {column.name for column in TABLES["batchnorm_staleness"].columns} - {"epoch"}
        assert staleness == {name: [] for name in wanted}
