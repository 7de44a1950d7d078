"""Norms and cosines of whole parameters, from those of their shards."""

import math

import pytest
import torch

from gradflow.hooks.processes.norms import SplitNorms


def measured(weight, gradient, previous):
    norms = torch.linalg.vector_norm
    cosine = torch.dot(gradient, previous) / (norms(gradient) * norms(previous))
    return {
        "weight_norm": float(norms(weight)),
        "gradient_norm": norms(gradient),
        "gradient_cosine": cosine,
        "previous_gradient_norm": norms(previous),
    }


def tensors():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(10, generator=generator).double() for _ in range(3)]


def joined(rows, counts):
    split = [SplitNorms(row, {"w": here}) for row, here in zip(rows, counts, strict=True)]
    sums = sum(one.summands(torch.device("cpu")) for one in split).tolist()
    assert len(sums) == len(split[0])
    split[0].put(sums, len(split))
    return rows[0]["w"]


def test_norms_and_cosine_of_shards_are_those_of_the_whole():
    whole = measured(*tensors())
    rows = [{"w": measured(*(x[part] for x in tensors()))} for part in (slice(3), slice(3, 10))]
    found = joined(rows, [True, True])
    for key in ("weight_norm", "gradient_norm", "gradient_cosine"):
        assert found[key] == pytest.approx(float(whole[key])), key


def test_a_shard_that_another_process_has_too_is_counted_once():
    parts = (slice(3), slice(3, 10), slice(3), slice(3, 10))
    rows = [{"w": measured(*(x[part] for x in tensors()))} for part in parts]
    found = joined(rows, [True, True, False, False])
    assert found["weight_norm"] == pytest.approx(float(tensors()[0].norm()))
    assert found["gradient_cosine"] == pytest.approx(float(measured(*tensors())["gradient_cosine"]))


def test_a_cosine_that_one_process_lacks_is_missing_and_its_norms_are_not():
    rows = [{"w": measured(*(x[part] for x in tensors()))} for part in (slice(3), slice(3, 10))]
    del rows[1]["w"]["gradient_cosine"], rows[1]["w"]["previous_gradient_norm"]
    found = joined(rows, [True, True])
    assert "gradient_cosine" not in found
    assert found["gradient_norm"] == pytest.approx(float(tensors()[1].norm()))


@pytest.mark.parametrize("empty", [0, 1])
def test_an_empty_or_zero_shard_has_no_direction_of_its_own(empty):
    nothing = {
        "weight_norm": 0.0,
        "gradient_norm": 0.0,
        "gradient_cosine": math.nan,
        "previous_gradient_norm": 0.0,
    }
    rows = [{"w": measured(*tensors())}, {"w": nothing}]
    found = joined(rows[::-1] if empty == 0 else rows, [True, True])
    whole = measured(*tensors())
    assert found["gradient_cosine"] == pytest.approx(float(whole["gradient_cosine"]))


def test_parameters_that_every_process_has_whole_are_left_as_they_are():
    rows = {"w": measured(*tensors()), "b": {"weight_norm": 5.0}}
    split = SplitNorms(rows, {"w": True})
    split.put(split.summands(torch.device("cpu")).tolist(), 1)
    assert rows["b"] == {"weight_norm": 5.0}
