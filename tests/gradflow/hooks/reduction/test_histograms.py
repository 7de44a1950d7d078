"""Counts of magnitudes against numpy, with numba and torch, and from the tracer to the run."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import gradflow
from gradflow.hooks.reduction import cpu, histograms
from gradflow.hooks.reduction.fused import moments

VALUES = st.one_of(
    st.floats(width=32), st.sampled_from([0.0, -0.0, 2.0**-126, 2.0**-127, 1e-45, 1.0, -1.0, 0.5])
)


def by_numpy(values: np.ndarray) -> list[int]:
    """Each element put into its bin by hand."""
    counts = [0] * histograms.BINS
    for value in np.abs(values.astype(np.float64)):
        if math.isnan(value):
            counts[histograms.NAN_BIN] += 1
        elif math.isinf(value):
            counts[histograms.INFINITE_BIN] += 1
        elif value == 0:
            counts[histograms.ZERO_BIN] += 1
        elif value < 2.0**-126:
            counts[histograms.UNDERFLOW_BIN] += 1
        else:
            exponent = min(math.frexp(value)[1] - 1, 127)
            counts[histograms.FIRST_EXPONENT_BIN + exponent + 126] += 1
    return counts


@settings(max_examples=80, deadline=None)
@given(
    values=st.lists(VALUES, min_size=1, max_size=40),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]),
)
def test_bins_are_those_of_numpy_by_both_means(values, dtype):
    x = torch.tensor(values, dtype=torch.float64).to(dtype)
    expected = by_numpy(x.double().numpy())
    assert histograms.count(x).tolist() == expected
    if cpu.loops_module() is not None:
        assert moments(x, None, histogram=True).magnitudes.tolist() == expected


@pytest.mark.parametrize("value", [1e300, 5e-324, 1e-300, 2.0**128])
def test_float64_beyond_float32_is_counted_at_the_ends(value):
    x = torch.tensor([value, 1.0], dtype=torch.float64)
    assert moments(x, None, histogram=True).magnitudes.tolist() == by_numpy(x.numpy())
    assert histograms.count(x).tolist() == by_numpy(x.numpy())


def test_the_run_holds_the_counts_of_outputs_and_gradients(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    parts = [torch.randn(5, 3), torch.randn(2, 3)]
    with gradflow.Tracer(model, tmp_path / "run", histograms=True) as tracer:
        for part in parts:
            model(part).sum().backward()
        tracer.step()
    run = gradflow.open_run(tmp_path / "run")
    rows = run.activation_histograms.set_index("layer")
    outputs = model[1](model[0](torch.cat(parts))).detach()
    assert rows.zeros["1"] == int((outputs == 0).sum())
    exponents = np.frexp(outputs[outputs > 0].numpy())[1] - 1
    lowest = int(rows.lowest_exponent["1"])
    assert lowest == exponents.min()
    assert list(rows.counts["1"]) == list(np.bincount(exponents - lowest))
    # The gradient of a sum is 1 everywhere: one bin, of exponent 0.
    last = run.gradient_histograms.set_index("layer").loc["2"]
    assert (last.lowest_exponent, list(last.counts)) == (0, [7 * 2])


def test_histograms_are_recorded_only_on_request(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4))
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        model(torch.randn(5, 3)).sum().backward()
        tracer.step()
    assert gradflow.open_run(tmp_path / "run").activation_histograms.empty


def test_a_tensor_of_zeros_has_no_lowest_exponent(tmp_path):
    model = nn.Sequential(nn.ReLU())
    with gradflow.Tracer(model, tmp_path / "run", histograms=True) as tracer:
        model(-torch.ones(2, 3, requires_grad=True)).sum().backward()
        tracer.step()
    row = gradflow.open_run(tmp_path / "run").activation_histograms.iloc[0]
    assert row.zeros == 6
    assert math.isnan(row.lowest_exponent)
    assert list(row.counts) == []
