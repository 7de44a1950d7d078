"""Each kind of output is observed rightly, or left out and named; no kind ends the training."""

from collections import namedtuple
from typing import ClassVar

import pytest
import torch
from torch import nn

import gradflow
from gradflow.hooks.layers import why_not_observed
from gradflow.hooks.reduction.fused import moments
from gradflow.hooks.reduction.statistics.from_moments import to_statistics

Pair = namedtuple("Pair", ["nothing", "scores"])


class Overriding(torch.Tensor):
    """A tensor whose functions do more than those of torch."""

    calls: ClassVar[list[str]] = []

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        cls.calls.append(getattr(function, "__name__", str(function)))
        return super().__torch_function__(function, types, args, kwargs or {})


class Unreadable(torch.Tensor):
    """A tensor with data of its own class, which most functions of torch do not take."""

    @staticmethod
    def __new__(cls, data):
        made = torch.Tensor._make_wrapper_subclass(cls, data.shape, dtype=data.dtype)
        made.data_inside = data
        return made

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        if "detach" in str(function):
            return cls(args[0].data_inside)
        raise NotImplementedError(f"{function} of Unreadable")


class Holder:
    def __init__(self, x):
        self.x = x


class Ends(nn.Module):
    """A linear layer whose output is handed on in another form."""

    def __init__(self, form):
        super().__init__()
        self.linear, self.form = nn.Linear(4, 3), form

    def forward(self, x):
        return self.form(self.linear(x))


def one_by_one(statistics):
    return {name: float(values[0]) for name, values in statistics.items()}


def train(folder, form, loss):
    """The rows of a step, and the linear layer's output with its gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(Ends(form))
    kept = []

    def keep(module, args, output):
        output.retain_grad()
        kept.append(output)

    handle = model[0].linear.register_forward_hook(keep)
    with gradflow.Tracer(model, folder, histograms=True) as tracer:
        loss(model(torch.randn(5, 4))).backward()
        tracer.step()
        tracer.end_epoch()
    handle.remove()
    return gradflow.open_run(folder), kept[0]


@pytest.mark.parametrize(
    ("form", "loss"),
    [
        (lambda y: y.as_subclass(Overriding), lambda o: o.as_subclass(torch.Tensor).pow(2).sum()),
        (lambda y: Pair(None, y), lambda o: o.scores.pow(2).sum()),
        (lambda y: (y.detach().to(torch.int8), {"y": [y]}), lambda o: o[1]["y"][0].pow(2).sum()),
        (lambda y: (torch.eye(2).to_sparse(), y), lambda o: o[1].pow(2).sum()),
    ],
    ids=["subclass", "namedtuple", "integers first", "sparse first"],
)
def test_forms_that_hold_the_tensor_have_its_statistics_and_gradient(tmp_path, form, loss):
    run, output = train(tmp_path / "run", form, loss)
    for table, x in (("activations", output.detach()), ("gradients", output.grad)):
        rows = run.table(table).set_index("layer")
        for layer in ("0", "0.linear"):
            assert rows.loc[layer, "norm"] == pytest.approx(float(x.norm()), rel=1e-6), layer
    assert run.description["not_observed"] == {}


def test_the_functions_that_a_class_overrides_are_not_called_for_its_statistics():
    x = torch.randn(4, 3)
    expected = to_statistics([moments(x, 1)])
    overriding = x.as_subclass(Overriding)
    Overriding.calls.clear()
    found = to_statistics([moments(overriding, 1, histogram=True)])
    assert set(Overriding.calls) <= {"is_floating_point", "numel", "dim", "size", "__get__"}
    assert one_by_one(found) == pytest.approx(one_by_one(expected))


@pytest.mark.parametrize(
    ("form", "loss", "what"),
    [
        (Holder, lambda o: o.x.sum(), "an object of class Holder"),
        (lambda y: y.to_sparse(), lambda o: o.to_dense().sum(), "layout torch.sparse_coo"),
        (
            lambda y: Pair(Unreadable(y.detach()), Holder(y)),
            lambda o: o.scores.x.sum(),
            "Unreadable of torch.float32",
        ),
        (lambda y: {"y": Holder(y)}, lambda o: o["y"].x.sum(), "dict without a floating-point"),
    ],
    ids=["object", "sparse", "class of its own data", "object in a mapping"],
)
def test_forms_that_cannot_be_read_are_named_and_the_rest_is_recorded(tmp_path, form, loss, what):
    run, output = train(tmp_path / "run", form, loss)
    assert set(run.gradients["layer"]) == {"0.linear"}
    norm = run.activations.set_index("layer").loc["0.linear", "norm"]
    assert norm == pytest.approx(float(output.detach().norm()), rel=1e-6)
    ((reason, names),) = run.description["not_observed"].items()
    assert names == ["0"]
    assert what in reason


def test_if_no_layer_can_be_observed_the_warning_says_what_was_returned(tmp_path):
    model = nn.Sequential(Ends(Holder))
    with gradflow.Tracer(model, tmp_path / "run", observe="0") as tracer:
        model(torch.randn(2, 4)).x.sum().backward()
        with pytest.warns(UserWarning, match="0 returned an object of class Holder, whose"):
            tracer.step()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_numbers_of_eight_bits_are_read(dtype):
    x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = one_by_one(to_statistics([moments(x.double(), 1)]))
    assert one_by_one(to_statistics([moments(x, 1, histogram=True)])) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("output", "what"),
    [
        (None, "NoneType without a floating-point tensor"),
        (torch.arange(3), "a tensor of torch.int64"),
        (torch.zeros(0), "a tensor without elements"),
        ((None, [torch.arange(2)]), "tuple without a floating-point tensor"),
        ("text", "an object of class str, whose attributes are not looked into"),
    ],
)
def test_what_an_output_is_in_words(output, what):
    assert why_not_observed(output) == what


def test_scores_of_sequences_of_other_lengths_are_accumulated(tmp_path):
    class Score(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 1)

        def forward(self, x):
            return self.linear(x).squeeze(-1)

    torch.manual_seed(0)
    model = nn.Sequential(Score(), nn.Tanh())
    given = [torch.randn(2, length, 8) for length in (5, 7, 5)]
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        for x in given:
            model(x).sum().backward()
        tracer.step()
    run = gradflow.open_run(tmp_path / "run")
    scores = torch.cat([model[0](x).detach().double().flatten() for x in given])
    slopes = 1 - scores.tanh().square()
    (row,) = run.activations.query("layer == '0'").itertuples()
    assert row.batch_size == 6
    assert (row.mean, row.std) == pytest.approx(
        (float(scores.mean()), float(scores.std(correction=0))), rel=1e-6
    )
    (row,) = run.gradients.query("layer == '0'").itertuples()
    assert row.norm == pytest.approx(float(slopes.norm()), rel=1e-6)
    # Each length would be its number of channels.
    assert run.activations.set_index("layer").dead_channels.isna().to_dict() == {
        "0.linear": False,
        "0": True,
        "1": True,
    }
