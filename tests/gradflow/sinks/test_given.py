"""Loggers of Lightning, read back from their files."""

import pandas as pd
import pytest

from gradflow.sinks import Lightning


def test_a_logger_gets_the_numbers_of_each_step(train, expected, tmp_path):
    loggers = pytest.importorskip("lightning.pytorch.loggers")
    logger = loggers.CSVLogger(tmp_path / "logs", name="mine")
    run, _ = train(Lightning(logger, quantities="step_gradient_norm"))
    logger.save()
    frame = pd.read_csv(f"{logger.log_dir}/metrics.csv").dropna()
    known = expected(run, "steps", "gradient_norm", "step_gradient_norm", "")
    name = "gradflow/step_gradient_norm"
    assert {(name, step): v for step, v in zip(frame.step, frame[name], strict=True)} == known
    assert run.description["sinks"][0]["place"] == f"CSVLogger in {logger.log_dir}"


def test_whatever_has_log_metrics_is_taken_for_a_logger(train):
    got = []

    class Logger:
        def log_metrics(self, metrics, step):
            got.append((step, sorted(metrics)))

    train(Logger(), epochs=1, steps=2)
    assert [step for step, _ in got] == [0, 1, 1]
    assert "gradflow/step_gradient_norm" in got[0][1]
