"""Whether gradients are called noise: draws of a known signal and noise."""

import numpy as np
import pandas as pd
import pytest

from analyses.health.conditions.noise import noise_answer
from analyses.result import Verdict

BATCH = 4.0


class Probed:
    """A run with draws of squared gradients about `signal`, and of noise about 1."""

    def __init__(self, signal, spread, draws=16):
        draw = np.random.default_rng(0)
        self.gradients = pd.DataFrame({"batch_size": [BATCH]})
        self.rows = pd.DataFrame({
            "epoch": 1,
            "noise": draw.normal(1.0, 0.1, draws),
            "squared_gradient": draw.normal(signal, spread, draws),
        })  # fmt: skip

    def table(self, name):
        assert name == "noise_scale"
        return self.rows


@pytest.mark.parametrize(
    ("signal", "spread", "verdict"),
    [
        (0.1, 0.01, Verdict.CONTRADICTED),
        (1e-4, 1e-5, Verdict.SUPPORTED),
        (1e-5, 5e-4, Verdict.SUPPORTED),  # as of a gradient of 0, well measured
        (1e-2, 1.0, Verdict.INCONCLUSIVE),  # of one that is not measured well
    ],
)
def test_the_noise_scale_is_compared_with_the_batch(signal, spread, verdict):
    found = noise_answer(Probed(signal, spread), 100.0)
    assert found.verdict is verdict


def test_of_a_gradient_of_zero_the_least_is_told():
    run = Probed(-1e-4, 5e-4)
    found = noise_answer(run, 100.0)
    signal = run.rows["squared_gradient"]
    most = signal.mean() + 1.96 * signal.std() / 4
    assert found.value == pytest.approx(run.rows["noise"].mean() / most / BATCH)
    assert "not positive" in found.note
    assert found.note.endswith("the ratio is at least 4,364.")


def test_a_run_without_the_probe_is_not_asked():
    run = Probed(1.0, 0.1)
    run.rows = run.rows.iloc[:0]
    assert noise_answer(run, 100.0).reason == "the probe of the noise scale did not run"
