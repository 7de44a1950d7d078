import json
from pathlib import Path

import pytest

from gradflow.configuration import Configuration
from gradflow.errors import ConfigurationError


def test_defaults_are_the_reference_setting():
    options = Configuration()
    assert (options.epochs, options.batch_size, options.lr) == (10, 24, 0.0005)
    assert (options.weight_decay, options.seeds) == (0.0005, (2025,))
    assert options.models == ("plain34", "resnet34")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "--epochs must be at least 1, not 0"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"lr": 0.0}, "--lr must be a positive number"),
        ({"lr": float("nan")}, "--lr must be a positive number"),
        ({"weight_decay": -1.0}, "--weight-decay must be 0 or a positive number"),
        ({"models": ()}, "--models must be at least one network"),
        ({"seeds": ()}, "--seeds must be at least one seed"),
        ({"seeds": (1, 1)}, "--seeds names the same one twice"),
        ({"models": ("plain34", "plain34")}, "--models names the same one twice"),
        ({"image_size": 4}, "--image-size must be at least 8 pixels"),
        ({"validation_fraction": 1.0}, "--validation-fraction must be between 0 and 1"),
        ({"shortcut_scale": -0.5}, "--shortcut-scale must be 0 or a positive number, not -0.5"),
        ({"shortcut_scale": float("nan")}, "--shortcut-scale must be 0 or a positive number"),
        ({"shortcut_scale": float("inf")}, "--shortcut-scale must be 0 or a positive number"),
        ({"trace_every": 0}, "--trace-every must be at least 1"),
    ],
)
def test_what_cannot_be_trained_is_refused(change, message):
    with pytest.raises(ConfigurationError, match=message):
        Configuration(**change)


def test_json_holds_every_option():
    options = Configuration(out=Path("runs/x"), seeds=(1, 2))
    content = json.loads(json.dumps(options.as_json()))
    assert set(content) == set(vars(options))
    assert content["out"] == str(Path("runs/x"))
    assert content["seeds"] == [1, 2]
