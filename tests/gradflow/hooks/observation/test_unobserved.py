"""What was not observed is named, with the reason that applies."""

import copy

import pytest
import torch
from torch import nn

import gradflow
from gradflow.errors import TracingError


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def one_step(model, folder, train, warning=None, **options):
    """Why modules were not observed in one step, by reason, as `run.json` keeps it."""
    with gradflow.Tracer(model, folder, **options) as tracer:
        train(model)
        if warning:
            with pytest.warns(UserWarning, match=warning):
                tracer.step()
        else:
            tracer.step()
    return gradflow.open_run(folder).description["not_observed"]


def backward(model):
    model(torch.ones(2, 3)).sum().backward()


def without_gradients(model):
    with torch.no_grad():
        model(torch.ones(2, 3))


def a_copy(model):
    backward(copy.deepcopy(model))


def by_parameters_alone(model):
    """As exported code does: it shares the parameters, and runs no module."""
    hidden = torch.relu(nn.functional.linear(torch.ones(2, 3), model[0].weight, model[0].bias))
    nn.functional.linear(hidden, model[2].weight, model[2].bias).sum().backward()


@pytest.mark.parametrize(
    ("prepare", "train", "reason", "advice"),
    [
        (nn.Module.eval, backward, "ran in evaluation mode", r"call model\.train\(\).*modes="),
        (nn.Module.train, without_gradients, "ran without gradients", "gradients enabled"),
        (nn.Module.train, a_copy, "did not run", "not a copy"),
        (
            nn.Module.train,
            by_parameters_alone,
            "did not run, yet the model's parameters have gradients",
            "exported",
        ),
    ],
)
def test_a_step_without_any_layer_says_why(tmp_path, prepare, train, reason, advice):
    model = prepare(network())
    warning = rf"no layer was observed in step 0: 0, 1, 2 {reason} \(.*{advice}"
    found = one_step(model, tmp_path / "run", train, warning)
    assert found == {reason: ["0", "1", "2"]}


class Returning(nn.Module):
    """Returns what `make` makes of its input."""

    def __init__(self, make):
        super().__init__()
        self.weight, self.make = nn.Parameter(torch.ones(3)), make

    def forward(self, x):
        return self.make(x * self.weight)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda x: x.argmax(1), "returned a tensor of torch.int64"),
        (lambda x: x > 0, "returned a tensor of torch.bool"),
        (lambda x: x.to_sparse(), "returned a tensor of layout torch.sparse_coo"),
        (lambda x: x[:0], "returned a tensor without elements"),
        (lambda x: None, "returned NoneType without a floating-point tensor"),
        (lambda x: {"count": 3}, "returned dict without a floating-point tensor"),
    ],
)
def test_an_output_that_cannot_be_observed_is_named_by_what_it_is(tmp_path, make, reason):
    model = nn.ModuleDict({"body": nn.Linear(3, 3), "last": Returning(make)})

    def train(model):
        hidden = model["body"](torch.ones(2, 3))
        model["last"](hidden)
        hidden.sum().backward()

    assert one_step(model, tmp_path / "run", train) == {reason: ["last"]}


def test_a_layer_that_is_never_reached_is_named(tmp_path):
    model = network()
    model.append(nn.ModuleList([nn.Linear(2, 2)]))
    assert one_step(model, tmp_path / "run", lambda m: backward(m[:3])) == {"did not run": ["3.0"]}


def test_a_transform_is_named(tmp_path):
    model = network()

    def train(model):
        torch.func.vmap(model)(torch.ones(5, 3))

    warning = r"no layer was observed in step 0: 0, 1, 2 ran under a torch\.func transform"
    found = one_step(model, tmp_path / "run", train, warning)
    assert found == {"ran under a torch.func transform": ["0", "1", "2"]}


class OwnCall(nn.Module):
    """Calls its own function and none of torch's hooks, as layers of Keras do."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def __call__(self, x):
        return x * self.weight


def test_a_class_that_replaces_call_is_named(tmp_path):
    model = nn.ModuleDict({"first": OwnCall(), "second": OwnCall()})
    reason = "ran past torch's Module.__call__, which the class OwnCall replaces"

    def train(model):
        model["second"](model["first"](torch.ones(2, 3))).sum().backward()

    warning = rf"first, second {reason} \(torch runs no hooks"
    assert one_step(model, tmp_path / "run", train, warning) == {reason: ["first", "second"]}


def test_a_class_that_replaces_call_and_runs_hooks_is_observed(tmp_path):
    class Counting(nn.Linear):
        def __call__(self, x):
            return super().__call__(x)

    found = one_step(nn.Sequential(Counting(3, 2)), tmp_path / "run", backward)
    assert found == {}


def test_many_names_are_counted(tmp_path):
    model = nn.Sequential(*[nn.Linear(3, 3) for _ in range(40)]).eval()
    one_step(model, tmp_path / "run", backward, r"0, 1, 2 and 37 more ran in evaluation mode")


def test_the_reason_is_an_error_if_strict(tmp_path):
    model = network().eval()
    with gradflow.Tracer(model, tmp_path / "run", strict=True) as tracer:
        backward(model)
        with pytest.raises(
            TracingError, match=r"evaluation mode.*\(see docs/reference/tracer\.md\)"
        ):
            tracer.step()
