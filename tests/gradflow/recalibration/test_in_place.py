import copy
import math

import pytest
import torch
from torch import nn

import gradflow
from gradflow.errors import ConfigurationError, GradflowError


def batches_of(count=4, size=8, channels=3, side=6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(size, channels, side, side, generator=generator, dtype=dtype) * (k + 1) + k
        for k in range(count)
    ]


def small_model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)
    ).double()


def statistics(model):
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def by_hand(model, batches):
    """Means and unbiased variances of what enters each batch norm, averaged over the batches.

    What leaves one is normalized with the statistics of its own batch, by the formula.
    """
    first, norm, activation, second, _ = model
    entering = [[], []]
    with torch.no_grad():
        for batch in batches:
            x = first(batch)
            entering[0].append(x)
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
            scale = norm.weight / (variance + norm.eps).sqrt()
            normal = (x - mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
            entering[1].append(second(activation(normal)))
    return [
        (
            torch.stack([x.mean((0, 2, 3)) for x in found]).mean(0),
            torch.stack([x.var((0, 2, 3), correction=1) for x in found]).mean(0),
        )
        for found in entering
    ]


def test_statistics_are_those_of_a_pass_over_the_data():
    model, batches = small_model(), batches_of()
    gradflow.recalibrate(model, batches)
    for module, (mean, variance) in zip((model[1], model[4]), by_hand(model, batches), strict=True):
        assert torch.allclose(module.running_mean, mean, rtol=1e-12, atol=1e-14)
        assert torch.allclose(module.running_var, variance, rtol=1e-12)


def test_weights_modes_and_momenta_stay_as_they_were():
    model = small_model().train()
    model[4].momentum = 0.3
    weights = copy.deepcopy(dict(model.named_parameters()))
    gradflow.recalibrate(model, batches_of())
    assert all(torch.equal(weights[name], one) for name, one in model.named_parameters())
    assert all(module.training for module in model.modules())
    assert (model[1].momentum, model[4].momentum) == (0.1, 0.3)
    assert all(one.grad is None for one in model.parameters())


def test_returned_rows_say_how_far_each_layer_was_off():
    model = nn.Sequential(nn.BatchNorm1d(2, eps=0.5)).double()
    model[0].running_mean.copy_(torch.tensor([4.0, 0.0]))
    model[0].running_var.copy_(torch.tensor([9.5, 1.5]))
    # Means 1 and 2, unbiased variances 2 and 8.
    moved = gradflow.recalibrate(
        model, [torch.tensor([[0.0, 0.0], [2.0, 4.0]], dtype=torch.float64)]
    )
    assert moved["layer"].tolist() == ["0"]
    assert moved["channels"].tolist() == [2]
    mean_shift = math.sqrt((3**2 / 2.5 + 2**2 / 8.5) / 2)
    assert moved["mean_shift"].tolist() == pytest.approx([mean_shift], rel=1e-12)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: (x, torch.zeros(len(x))),
        lambda x: [x],
        lambda x: {"input": x, "labels": torch.zeros(len(x))},
        lambda x: {"input": x, "file": "a.png"},
    ],
    ids=["tuple", "list", "mapping with labels", "mapping with more"],
)
def test_batches_come_as_data_loaders_give_them(wrap):
    expected, model = small_model(), small_model()
    gradflow.recalibrate(expected, batches_of())

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, input):
            return self.inner(input)

    gradflow.recalibrate(Named(), map(wrap, batches_of()))
    assert torch.equal(model[4].running_var, expected[4].running_var)


def test_a_batch_of_another_kind_is_refused_unless_forward_takes_it():
    model = small_model()
    before = statistics(model)
    with pytest.raises(ConfigurationError, match=r"a batch is of type str.*forward=lambda"):
        gradflow.recalibrate(model, ["image.png"])
    assert all(torch.equal(before[name], one) for name, one in model.named_buffers())
    gradflow.recalibrate(model, ["x"], forward=lambda model, _: model(batches_of()[0]))
    assert not torch.equal(before["1.running_mean"], model[1].running_mean)


def test_a_norm_used_several_times_averages_over_its_uses():
    norm = nn.BatchNorm1d(2).double()

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = self.second = norm

        def forward(self, x):
            return self.second(self.first(x) * 3 + 5)

    x = torch.randn(6, 2, dtype=torch.float64)
    moved = gradflow.recalibrate(Twice(), [x])
    with torch.no_grad():
        normal = (x - x.mean(0)) / (x.var(0, correction=0) + norm.eps).sqrt()
        mean = (x.mean(0) + (normal * 3 + 5).mean(0)) / 2
        variance = (x.var(0) + (normal * 3 + 5).var(0)) / 2
    assert torch.allclose(norm.running_mean, mean, rtol=1e-12)
    assert torch.allclose(norm.running_var, variance, rtol=1e-12)
    assert moved["layer"].tolist() == ["first"]


def test_a_frozen_norm_stays_as_it_is():
    model = small_model().train()
    model[1].eval()
    before = statistics(model)
    moved = gradflow.recalibrate(model, batches_of())
    assert torch.equal(model[1].running_mean, before["1.running_mean"])
    assert not torch.equal(model[4].running_mean, before["4.running_mean"])
    assert moved["layer"].tolist() == ["4"]
    assert not model[1].training
    model[4].eval()
    with pytest.raises(ConfigurationError, match=r"all 2 batch norms .* frozen.*model\.eval\(\)"):
        gradflow.recalibrate(model, batches_of())
    gradflow.recalibrate(model.eval(), batches_of())  # then none of them is special


def test_a_lazy_norm_gets_its_size_and_statistics_from_the_batches():
    lazy = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d()).double()
    batches = batches_of()
    gradflow.recalibrate(lazy, batches)
    with torch.no_grad():
        means = torch.stack([lazy[0](batch).mean((0, 2, 3)) for batch in batches]).mean(0)
    assert torch.allclose(lazy[1].running_mean, means, rtol=1e-12)


def test_a_synchronized_norm_in_one_process_is_a_norm():
    model, expected = small_model(), small_model()
    synchronized = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    gradflow.recalibrate(expected, batches_of())
    gradflow.recalibrate(synchronized, batches_of())
    assert torch.equal(synchronized[4].running_var, expected[4].running_var)


def test_a_norm_that_no_batch_reaches_keeps_its_statistics():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.BatchNorm1d(2), nn.BatchNorm1d(2)

        def forward(self, x):
            return self.used(x)

    model = Branches()
    model.unused(torch.randn(5, 2) + 3)
    kept = model.unused.running_mean.clone()
    moved = gradflow.recalibrate(model, [torch.randn(5, 2)])
    assert torch.equal(model.unused.running_mean, kept)
    assert moved["layer"].tolist() == ["used"]


def test_dropout_is_off_and_no_random_number_is_drawn():
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(2)).double().train()
    x = torch.randn(8, 2, dtype=torch.float64)
    state = torch.get_rng_state()
    gradflow.recalibrate(model, [x])
    assert torch.equal(state, torch.get_rng_state())
    assert torch.allclose(model[1].running_mean, x.mean(0), rtol=1e-12)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (nn.Linear(2, 2), "Linear has no running statistics to re-estimate: it has no batch norm"),
        (nn.LayerNorm(2), "it has no batch norm"),
        (nn.BatchNorm1d(2, track_running_stats=False), "its 1 batch norms keep none"),
    ],
)
def test_without_running_statistics_a_sentence_says_so(model, says):
    with pytest.raises(ConfigurationError, match=says):
        gradflow.recalibrate(model, [torch.randn(4, 2)])


@pytest.mark.parametrize("fault", ["no batch", "nan", "error of the loader"])
def test_after_an_error_all_is_as_it_was(fault):
    model = small_model().train()
    before = statistics(model)

    def batches():
        if fault == "no batch":
            return
        yield batches_of()[0]
        if fault == "nan":
            yield batches_of()[0] * math.nan
            return
        raise ZeroDivisionError

    expected = {
        "no batch": (ConfigurationError, "no batch"),
        "nan": (GradflowError, "layer 1 are not finite"),
        "error of the loader": (ZeroDivisionError, None),
    }[fault]
    with pytest.raises(expected[0], match=expected[1]):
        gradflow.recalibrate(model, batches())
    assert all(torch.equal(before[name], one) for name, one in model.named_buffers())
    assert all(module.training for module in model.modules())


def test_a_compiled_or_checkpointed_model_is_seen_through():
    model, expected = small_model(), small_model()
    gradflow.recalibrate(expected, batches_of())
    gradflow.recalibrate(torch.compile(model, backend="eager"), batches_of())
    assert torch.equal(model[4].running_mean, expected[4].running_mean)
