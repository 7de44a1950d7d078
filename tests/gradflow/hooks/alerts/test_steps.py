"""What the alert for steps that are too large makes of losses that rise."""

import numpy as np
import pytest

from gradflow.hooks.alerts.rule import Batch, Layers
from gradflow.hooks.alerts.steps import Overshooting

COLUMNS = {"layer": ["a"], "role": ["linear"], "type": ["Linear"], "parameters": [10]}
LAYERS = Layers(**{name: COLUMNS.get(name, [None]) for name in Layers.__dataclass_fields__})
LARGE_FROM = 40


def told(cosine, loss, steps=200, reload=False):
    """Whether the alert has been given by the last step; four steps come at once."""
    rule, seen = Overshooting(), []
    for first in range(0, steps, 4):
        numbers = np.arange(first, first + 4)
        columns = {
            "parameter": np.array(["a.weight"] * 4, object),
            "step": numbers,
            "update_norm": np.ma.array(np.where(numbers < LARGE_FROM, 0.05, 0.2)),
            "weight_norm": np.ma.ones(4),
            "gradient_cosine": np.ma.array([cosine] * 4),
        }
        tables = {"parameters": columns, "steps": {"loss": np.ma.array(loss(numbers))}}
        seen += rule.look(Batch(tables, numbers.tolist(), frozenset(), LAYERS))
        if reload:
            state, rule = rule.state_dict(), Overshooting()
            rule.load_state_dict(state)
    return any(one.ill for one in seen)


def climbing(steps):
    return 1.05**steps


@pytest.mark.parametrize("reload", [False, True])
def test_a_loss_that_is_climbed_is_not_told_however_long_it_goes_on(reload):
    assert not told(0.9, climbing, reload=reload)


def test_a_loss_that_large_steps_drive_up_is_told():
    assert told(-0.2, climbing)
    assert told(0.9, lambda steps: np.where(steps <= LARGE_FROM, 1.0, 5.0))
