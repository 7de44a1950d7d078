import copy
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

import gradflow
from gradflow.errors import ConfigurationError
from gradflow.recalibration.evaluation import _paired_difference


def stale_model():
    """Two classes told apart by the sign of x - 5, which only fresh statistics centre."""
    model = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 2)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[-1.0], [1.0]]))
        model[1].bias.zero_()
    return model


def data(samples=40, size=10):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(samples, 1, generator=generator, dtype=torch.float64) + 5
    y = (x[:, 0] > x.mean()).long()
    return list(zip(x.split(size), y.split(size), strict=True)), x, y


def test_metric_of_both_is_that_of_the_model_with_either_statistics():
    model, (batches, x, y) = stale_model(), data()
    both = gradflow.evaluate_both(model, batches, batches)
    # Stale: everything is above 0, so all is of class 1.
    assert both.running == pytest.approx(float((y == 1).double().mean()))
    centre = torch.stack([inputs.mean() for inputs, _ in batches]).mean()
    right = ((x[:, 0] > centre).long() == y).double().mean()
    assert both.re_estimated == pytest.approx(float(right))
    assert both.difference == pytest.approx(both.re_estimated - both.running)
    assert both.low > 0
    assert both.samples == 40
    assert both.layers["layer"].tolist() == ["0"]
    assert "accuracy is 0." in str(both)
    assert "they change it by +0." in str(both)


def test_model_its_modes_and_a_tracer_on_it_see_nothing(tmp_path):
    model, (batches, x, y) = stale_model().train(), data()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        gradflow.evaluate_both(model, batches, batches)
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
        assert model.training
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        tracer.end_epoch()
    assert gradflow.open_run(tmp_path / "run").activations["batch_size"].tolist() == [40, 40]


def test_any_metric_of_single_samples_will_do():
    model, (batches, x, y) = stale_model(), data()
    loss = partial(F.cross_entropy, reduction="none")
    both = gradflow.evaluate_both(model, batches, batches, loss)
    model.eval()
    with torch.no_grad():
        assert both.running == pytest.approx(float(F.cross_entropy(model(x), y)))
    assert both.metric == "cross_entropy"
    assert both.high < 0


def test_validation_may_be_a_generator_and_shuffled():
    model, (batches, _, _) = stale_model(), data()
    both = gradflow.evaluate_both(model, batches, iter(batches[::-1]))
    assert both == gradflow.evaluate_both(model, batches, batches)


def test_a_frozen_norm_is_frozen_in_the_copy():
    model, (batches, _, _) = stale_model().train(), data()
    model[0].eval()
    with pytest.raises(ConfigurationError, match="frozen"):
        gradflow.evaluate_both(model, batches, batches)


@pytest.mark.parametrize(
    ("validation", "metric", "says"),
    [
        ([], None, "no validation sample"),
        ([torch.zeros(2, 1)], None, "a validation batch is of type Tensor: it must have targets"),
        ([{"x": 1}], None, "a mapping with x: it must have targets"),
        (None, lambda outputs, targets: 0.5, "the metric returned float for a batch"),
        (None, F.cross_entropy, r"the metric returned a tensor of shape \[\] for a batch"),
    ],
)
def test_what_is_missing_is_said(validation, metric, says):
    batches, _, _ = data()
    options = {} if metric is None else {"metric": metric}
    with pytest.raises(ConfigurationError, match=says):
        gradflow.evaluate_both(
            stale_model(), batches, batches if validation is None else validation, **options
        )


def test_interval_of_a_difference_of_values_is_that_of_a_paired_t_test():
    before, after = np.random.default_rng(0).normal(size=(2, 30))
    found = _paired_difference(torch.tensor(before), torch.tensor(after))
    interval = stats.ttest_rel(after, before).confidence_interval(0.95)
    assert found == pytest.approx(((after - before).mean(), interval.low, interval.high))


def test_interval_of_a_difference_of_proportions_adds_half_to_each_count():
    """The ratings of Agresti 2013, Categorical Data Analysis, table 11.1: -0.06 to -0.02."""
    before = torch.tensor([True] * 794 + [True] * 150 + [False] * 86 + [False] * 570)
    after = torch.tensor([True] * 794 + [False] * 150 + [True] * 86 + [False] * 570)
    difference, low, high = _paired_difference(before, after)
    assert difference == pytest.approx(-0.04)
    assert (low, high) == pytest.approx((-0.06, -0.02), abs=0.005)
    changes, weights = np.array([0, -1, 1, 0]), np.array([794, 150, 86, 570]) + 0.5
    centre = np.average(changes, weights=weights)
    error = np.sqrt(np.average((changes - centre) ** 2, weights=weights) / weights.sum())
    assert (low, high) == pytest.approx((centre - 1.959964 * error, centre + 1.959964 * error))


def test_without_any_change_it_cannot_be_told():
    model, (batches, _, _) = stale_model(), data()
    gradflow.recalibrate(model, batches)
    both = gradflow.evaluate_both(model, batches, batches)
    assert both.difference == 0
    assert both.low < 0 < both.high
    assert "can't be told" in str(both)
