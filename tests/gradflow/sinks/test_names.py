"""Names are unambiguous, and patterns choose by them."""

import pytest

from gradflow.errors import ConfigurationError
from gradflow.runs.format.schema import TABLES
from gradflow.sinks.names import DEFAULT_QUANTITIES, QUANTITIES, SCALARS, Choice


def test_no_two_quantities_have_the_same_name():
    assert len(QUANTITIES) == len(set(QUANTITIES))
    assert not any(name.startswith("epoch_") for name in QUANTITIES)


def test_every_recorded_number_of_a_step_has_a_name():
    left_out = {"layers", "modes", "epochs", "spikes"}
    # Of these a row has more than one name, such as a layer and a position.
    left_out |= {"positions", "model_tensors", "gradients_before", "terms", "term_pairs"}
    for name, table in TABLES.items():
        if name in left_out or "step" not in [key.name for key in table.keys]:
            continue
        numbers = {one.name for one in table.quantities if one.dtype not in ("str", "list")}
        assert set(SCALARS[name]) == numbers - {"lowest_exponent"}, name


@pytest.mark.parametrize(
    ("pattern", "name", "chosen"),
    [
        ("gradient_norm/*", "gradient_norm/layer1.0.conv1", True),
        ("gradient_norm/layer1.*", "gradient_norm/layer1.0.conv1", True),
        ("gradient_norm/layer1.*", "gradient_norm/layer2.0.conv1", False),
        ("gradient_norm", "gradient_norm/layer1.0.conv1", True),
        ("gradient_norm", "parameter_gradient_norm/fc.weight", False),
        ("gradient_norm", "step_gradient_norm", False),
        ("step_gradient_norm", "step_gradient_norm", True),
        ("*/fc", "activation_rms/fc", True),
        ("*/fc", "step_gradient_norm", False),
        ("*", "step_gradient_norm", True),
        ("epoch_*", "epoch_train_loss", True),
        ("epoch_train_loss", "epoch_valid_loss", False),
        # Brackets in a layer's name are not a choice of letters.
        ("activation_rms/lstm[1][0]", "activation_rms/lstm[1][0]", True),
        ("gradient_norm/*", "gradient_norm/a/b", True),
    ],
)
def test_patterns_choose_by_quantity_and_row(pattern, name, chosen):
    assert Choice([pattern]).takes(name) is chosen


def test_a_pattern_that_fits_no_quantity_is_refused():
    with pytest.raises(ConfigurationError, match=r"'gradientnorm/\*' fits no quantity"):
        Choice(["gradientnorm/*"])
    with pytest.raises(ConfigurationError, match="not 3"):
        Choice([3])
    with pytest.raises(ConfigurationError, match="empty"):
        Choice([])


def test_the_default_has_a_known_quantity_for_each_pattern():
    for pattern in DEFAULT_QUANTITIES:
        assert pattern == "epoch_*" or any(Choice([pattern]).may_take(one) for one in QUANTITIES)
