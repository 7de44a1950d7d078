"""What the model takes and returns is recorded, any nesting of it, and training stays the same."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradflow import Tracer
from gradflow.hooks.instruments.samples import MOST_ELEMENTS, sample_of, statistics_of
from gradflow.hooks.reduction import cpu
from gradflow.runs.reading.run import open_run


class Nested(nn.Module):
    """Takes an image, token ids, and a mapping; returns a mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(20, 4), nn.Linear(8, 3)

    def forward(self, x, ids, *, extra=None):
        both = torch.cat([x, self.embedding(ids) + extra["shift"][0]], 1)
        return {"probabilities": self.head(both).softmax(1), "rest": (x.sum(),)}


def train(model, tracer_folder, steps=3, **options):
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    given = []
    with Tracer(model, tracer_folder, optimizer=optimizer, schedule=1, **options) as tracer:
        for _ in range(steps):
            x, ids = torch.rand(6, 4), torch.randint(20, (6,))
            optimizer.zero_grad()
            output = model(x, ids, extra={"shift": [torch.zeros(4)]})
            F.nll_loss(output["probabilities"].log(), ids % 3).backward()
            optimizer.step()
            given.append((x, ids, output["probabilities"].detach()))
        tracer.end_epoch()
    return given


def rows_of(folder, place):
    table = open_run(folder).table("model_tensors")
    return table[table["place"] == place]


def test_each_tensor_has_a_row_a_step_with_its_own_statistics(tmp_path):
    given = train(Nested(), tmp_path)
    table = open_run(tmp_path).table("model_tensors")
    first = table[table["step"] == 0]
    assert list(zip(first["direction"], first["place"], strict=True)) == [
        ("input", "x"),
        ("input", "ids"),
        ("input", "extra[shift][0]"),
        ("output", "[probabilities]"),
        ("output", "[rest][0]"),
    ]
    assert first["type"].tolist() == ["float32", "int64", "float32", "float32", "float32"]
    assert first["shape"].tolist() == ["6x4", "6", "4", "6x3", "1"]
    for place, number in (("x", 0), ("ids", 1), ("[probabilities]", 2)):
        rows = rows_of(tmp_path, place)
        for step in range(3):
            x = given[step][number].double().numpy()
            row = rows[rows["step"] == step].iloc[0]
            assert row[["mean", "std", "min", "max"]].tolist() == pytest.approx(
                [x.mean(), x.std(), x.min(), x.max()], rel=1e-5
            )
            assert row["batch_variance"] == pytest.approx(x.var(0).mean(), rel=1e-4)
            assert row["zero_fraction"] == pytest.approx((x == 0).mean())
            assert row["repeated"] == np.mean([(one == x[0]).all() for one in x[1:]])
            assert row["whole"] == (place == "ids")
            assert row["nonfinite"] == 0
    assert rows_of(tmp_path, "[probabilities]")["distance_from_probabilities"].max() < 1e-6
    assert rows_of(tmp_path, "x")["distance_from_probabilities"].isna().all()


def test_training_is_the_same_bit_for_bit(tmp_path):
    torch.manual_seed(0)
    model = Nested()
    again = copy.deepcopy(model)
    with_it = train(model, tmp_path / "a")
    with_few = train(again, tmp_path / "b", observe="head")
    assert all(torch.equal(a[2], b[2]) for a, b in zip(with_it, with_few, strict=True))


def test_without_a_recorded_step_the_model_has_no_hooks(tmp_path):
    model = Nested()
    with Tracer(model, tmp_path, schedule=lambda step: step == 1):
        assert not model._forward_pre_hooks
        assert not model._forward_hooks


def test_a_pass_of_evaluation_within_a_step_is_not_the_step_s(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2))
    with Tracer(model, tmp_path, modes="all") as tracer:
        model.eval()
        model(torch.zeros(3, 2))
        model.train()
        model(torch.ones(4, 2)).sum().backward()
        tracer.step()
    assert rows_of(tmp_path, "input")["shape"].tolist() == ["4x2"]


def test_a_model_that_trains_in_evaluation_mode_is_recorded(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2)).eval()
    with Tracer(model, tmp_path, modes="all") as tracer:
        model(torch.ones(4, 2)).sum().backward()
        tracer.step()
    assert rows_of(tmp_path, "input")["mean"].tolist() == [1.0]


def test_a_pass_that_fails_leaves_nothing(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2))
    with Tracer(model, tmp_path) as tracer:
        with pytest.raises(RuntimeError):
            model(torch.ones(4, 3))
        model(torch.ones(5, 2)).sum().backward()
        tracer.step()
    assert rows_of(tmp_path, "input")["shape"].tolist() == ["5x2"]


@pytest.mark.parametrize(
    ("shape", "whole"),
    [
        ((256, 3, 64, 64), {0, 1, 3}),
        ((4, 3, 500, 500), {0, 1, 3}),
        ((64, 500, 30), {0, 2}),
        ((3, 200_000), {0}),
        ((200_000, 3), {1}),
        ((200_000,), set()),
        ((7, 5), {0, 1}),
    ],
)
def test_of_a_large_tensor_a_part_is_read_that_keeps_classes_and_samples(shape, whole):
    x = torch.arange(float(np.prod(shape))).reshape(shape)
    sample = sample_of(x)
    assert sample.values.numel() <= 2 * MOST_ELEMENTS
    assert sample.whole_axes == whole
    assert torch.isin(sample.values, x).all()
    assert sample.values.shape[0] >= min(8, shape[0])


def test_samples_and_places_lie_evenly_over_the_whole():
    x = torch.zeros(512, 1000)
    x[256:] = 1
    (found,) = statistics_of([sample_of(x)], of_outputs=False)
    assert found["mean"] == pytest.approx(0.5, abs=0.02)
    assert found["repeated"] == pytest.approx(0.5, abs=0.02)


def test_probabilities_are_told_from_logits_over_either_axis():
    logits = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))

    def distance(x):
        return statistics_of([sample_of(x)], of_outputs=True)[0]["distance_from_probabilities"]

    assert distance(logits.softmax(1)) < 1e-6
    assert distance(logits.softmax(2)) < 1e-6
    assert np.isnan(distance(logits))
    assert np.isnan(distance(logits.log_softmax(1)))
    assert distance(logits.sigmoid()) > 0.1
    assert distance(logits.half().softmax(1)) < 1e-2


def test_what_is_not_finite_is_counted():
    x = torch.tensor([[1.0, torch.nan], [torch.inf, 2.0]])
    (found,) = statistics_of([sample_of(x)], of_outputs=False)
    assert found["nonfinite"] == 2
    assert found["whole"] == 0


def by_definition(x, of_outputs):
    """The statistics of x [N, ...] in float64, as `runs.format.model_tables` defines them."""
    rows = np.asarray(x, np.float64).reshape(len(x), -1)
    several = len(rows) > 1
    likely = of_outputs and rows.min() >= 0
    axes = [axis for axis in {1, x.ndim - 1} if x.shape[axis] > 1]
    distances = [abs(x.sum(axis) - 1).max() for axis in axes if likely]
    return {
        "mean": rows.mean(),
        "std": rows.std(),
        "min": rows.min(),
        "max": rows.max(),
        "zero_fraction": (rows == 0).mean(),
        "nonfinite": 0.0,
        "whole": float((rows == rows.round()).all()),
        "repeated": (rows[1:] == rows[0]).all(1).mean() if several else np.nan,
        "batch_variance": rows.var(0).mean() if several else np.nan,
        "distance_from_probabilities": min(distances, default=np.nan),
    }


def of_several_kinds(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    like_the_first = x.clone()
    like_the_first[1::2] = x[0]
    whole_at_first = x.clone()
    whole_at_first.view(-1)[:16] = 1
    last_differs = torch.ones(shape)
    last_differs[..., -1] = torch.arange(len(x)).view(-1, *[1] * (x.dim() - 2))
    return [
        x.relu(),
        x.softmax(1),
        like_the_first,
        whole_at_first,
        last_differs,
        1000 + x,
        x / 1e30,
    ]


@pytest.mark.parametrize("has_loops", [True, False])
@pytest.mark.parametrize("shape", [(16, 170), (1, 2100), (6, 3, 8, 16), (64, 1)])
def test_the_statistics_are_those_of_their_definition(shape, has_loops, monkeypatch):
    if not has_loops:
        monkeypatch.setattr(cpu, "loops_module", lambda: None)
    for of_outputs in (True, False):
        given = of_several_kinds(shape)
        found = statistics_of([sample_of(x) for x in given], of_outputs=of_outputs)
        for x, statistics in zip(given, found, strict=True):
            expected = by_definition(x.numpy(), of_outputs)
            assert statistics == pytest.approx(expected, rel=3e-6, abs=1e-6, nan_ok=True)


def test_one_that_is_not_finite_leaves_the_others_as_they_are():
    x, y = torch.arange(4096.0).reshape(4, 1024), torch.ones(4, 1024)
    y[3, 1] = torch.inf
    alone, beside = (
        statistics_of(list(map(sample_of, xs)), of_outputs=True) for xs in ([x], [x, y])
    )
    assert alone[0] == pytest.approx(beside[0], nan_ok=True)
    assert beside[1]["nonfinite"] == 1


def test_large_whole_numbers_stay_exact():
    (found,) = statistics_of([sample_of(torch.tensor([2**24 + 1, 2**24 + 3]))], of_outputs=False)
    assert found["min"] == 2**24 + 1


def test_autocast_is_named(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2))
    with Tracer(model, tmp_path) as tracer:
        with torch.autocast("cpu", torch.bfloat16):
            model(torch.ones(4, 2)).sum().backward()
        tracer.step()
        model(torch.ones(4, 2)).sum().backward()
        tracer.step()
    rows = rows_of(tmp_path, "[]")
    assert rows["autocast"].iloc[0] == "bfloat16"
    assert rows["type"].tolist() == ["bfloat16", "float32"]
    assert rows["autocast"].isna().tolist() == [False, True]
