import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradflow.errors import ConfigurationError
from gradflow.training.configuration import Configuration


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
        ({"seeds": (1, 1)}, "--seeds names a value twice"),
        ({"models": ("plain34", "plain34")}, "--models names a value twice"),
        ({"image_size": 4}, "--image-size must be from 8 to 16,384 pixels, not 4"),
        ({"validation_fraction": 1.0}, "--validation-fraction must be between 0 and 1"),
        ({"skip_scale": -0.5}, "--skip-scale must be 0 or a positive number, not -0.5"),
        ({"skip_scale": float("nan")}, "--skip-scale must be 0 or a positive number"),
        ({"skip_scale": float("inf")}, "--skip-scale must be 0 or a positive number"),
        ({"trace_every": 0}, "--trace-every must be at least 1"),
        ({"image_size": 10**9}, "--image-size must be from 8 to 16,384 pixels"),
        ({"epochs": 2**31}, "--epochs must be at most 2,147,483,647, not 2147483648"),
        ({"columns": ("picture=a",)}, "--columns must be image=NAME, label=NAME or split=NAME, n"),
        ({"columns": ("image",)}, "--columns must be image=NAME, .* not image"),
        ({"columns": ("image=", "label=a")}, "--columns must be image=NAME, .* not image="),
        ({"columns": ("image=a", "image=b")}, "--columns names a column twice"),
        ({"data": "a\udcff"}, r"--data a\\udcff is not valid UTF-8 text"),
        ({"out": Path("a\0b")}, r"--out a\\x00b is not valid UTF-8 text"),
    ],
)
def test_impossible_options_are_refused(change, message):
    with pytest.raises(ConfigurationError, match=message):
        Configuration(**change)


def test_columns_are_names_that_may_hold_an_equals_sign():
    options = Configuration(columns=("image=id", "label=a=b"))
    assert options.column_names == {"image": "id", "label": "a=b"}


def test_json_holds_every_option():
    options = Configuration(out=Path("runs/x"), seeds=(1, 2))
    content = json.loads(json.dumps(options.as_json()))
    assert set(content) == set(vars(options))
    assert content["out"] == str(Path("runs/x"))
    assert content["seeds"] == [1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": "3"}, "the configuration's epochs must be a whole number, not '3'"),
        ({"epochs": 2.5}, "epochs must be a whole number, not 2.5"),
        ({"epochs": True}, "epochs must be a whole number, not True"),
        ({"epochs": None}, "epochs must be a whole number, not None"),
        ({"lr": 10**400}, "lr must be a number, not 1000"),
        ({"lr": "nan"}, "lr must be a number, not 'nan'"),
        ({"models": 5}, "models must be a list, each text, not 5"),
        ({"models": "plain20"}, "models must be a list, each text"),
        ({"models": [["plain20"]]}, "models must be a list, each text"),
        ({"seeds": [1.0]}, "seeds must be a list, each a whole number"),
        ({"image_size": [8]}, "image_size must be a whole number or null"),
        ({"augment": 1}, "augment must be true or false, not 1"),
        ({"norm": "layer"}, "norm must be batch or none or group, not 'layer'"),
        ({"norm": ["batch"]}, "norm must be batch or none or group"),
        ({"shortcut": {}}, "shortcut must be A or B or null"),
        ({"out": 5}, "out must be text or null, not 5"),
        ({"data": {"a": 1}}, "data must be text"),
    ],
)
def test_json_of_another_type_is_refused_in_a_sentence_that_names_the_option(change, message):
    with pytest.raises(ConfigurationError, match=message):
        Configuration.from_json(Configuration().as_json() | change)


def test_json_may_hold_whole_numbers_for_options_that_are_floats():
    options = Configuration(out=Path("x"), seeds=(1, 2), shortcut="A", image_size=16)
    assert Configuration.from_json(json.loads(json.dumps(options.as_json()))) == options
    whole = Configuration.from_json({"lr": 1, "unknown": [{}]})
    assert whole == Configuration(lr=1.0)
    assert isinstance(whole.lr, float)


def test_a_value_too_deep_for_python_to_write_is_refused_in_a_short_sentence():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, {"a": deep}, [["a" * 10**6]] * 10**6):
        with pytest.raises(ConfigurationError, match="lr must be a number, not") as raised:
            Configuration.from_json({"lr": value})
        assert len(str(raised.value)) < 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*Configuration().as_json(), "other"]), JSON, max_size=4))
def test_any_json_is_a_configuration_or_refused_in_one_line(options):
    message = "."
    try:
        configuration = Configuration.from_json(options)
        assert Configuration.from_json(configuration.as_json()) == configuration
    except ConfigurationError as error:
        message = str(error)
    assert message.isprintable()
