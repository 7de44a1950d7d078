import pytest
import torch
import torchvision
from torch import nn

import gradflow
from gradflow.errors import TracingError
from gradflow.hooks.selection.modules import select_modules


def network():
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten()),
        nn.LazyLinear(2),
    )


@pytest.mark.parametrize(
    ("observe", "chosen"),
    [
        (None, ["0.0", "0.1", "0.2", "2.0", "2.1", "3"]),
        ("0.*", ["0.0", "0.1", "0.2"]),
        ("1", ["1"]),
        (nn.MaxPool2d, ["1"]),
        ([nn.Conv2d, "3"], ["0.0", "2.0", "3"]),
        (lambda name, module: name.endswith(".1") and not hasattr(module, "eps"), ["2.1"]),
        (["2.?", nn.BatchNorm2d], ["0.1", "2.0", "2.1"]),
    ],
)
def test_modules_are_chosen_by_pattern_type_and_predicate(tmp_path, observe, chosen):
    model = network()
    assert [name for name, _, _ in select_modules(model, observe)] == chosen
    with gradflow.Tracer(model, tmp_path / "run", observe=observe) as tracer:
        model(torch.randn(2, 3, 12, 12)).sum().backward()
        tracer.step()
    run = gradflow.open_run(tmp_path / "run")
    assert list(run.layers.layer) == chosen
    assert set(run.gradients.layer) == set(chosen)
    assert list(gradflow.layers(model, observe).layer) == chosen


def test_layers_shows_what_a_tracer_would_record(tmp_path):
    model = torchvision.models.resnet18(num_classes=3)
    shown = gradflow.layers(model)
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        model(torch.randn(2, 3, 32, 32)).sum().backward()
        tracer.step()
    recorded = gradflow.open_run(tmp_path / "run").layers
    first_calls = recorded[~recorded.layer.str.contains("#")].set_index("layer")
    assert list(shown.columns) == ["layer", "type", "role", "parameters"]
    assert set(shown.layer) == set(first_calls.index)
    for column in ("type", "parameters"):
        assert list(shown[column]) == list(first_calls[column][shown.layer])
    # Only a run shows which convolutions lie on a skip.
    recorded_roles = first_calls.role[shown.layer]
    changed = shown[shown.role.values != recorded_roles.values]
    assert list(changed.layer.str.contains("downsample")) == [True] * 6


@pytest.mark.parametrize("observe", ["nothing*", [nn.LSTM], lambda *_: False])
def test_a_selection_of_nothing_is_refused(tmp_path, observe):
    with pytest.raises(TracingError, match=r"chooses no module.*gradflow\.layers"):
        gradflow.Tracer(network(), tmp_path / "run", observe=observe)


def test_a_selector_of_another_type_is_refused():
    with pytest.raises(TracingError, match="not 3"):
        gradflow.layers(network(), [3])
