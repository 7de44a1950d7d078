"""Aim's local repository, read back by Aim."""

import pytest

from gradflow.sinks import Aim

aim = pytest.importorskip("aim")
Context = pytest.importorskip("aim.storage.context").Context
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def test_values_and_distributions_are_those_of_the_run(train, tmp_path):
    run, _ = train(
        Aim(tmp_path / "aim", quantities=["gradient_norm", "gradient_magnitudes"]),
        histograms=True,
    )
    (identity,) = aim.Repo(str(tmp_path / "aim")).list_all_runs()
    assert identity in run.description["sinks"][0]["place"]
    found = aim.Run(identity, repo=str(tmp_path / "aim"), system_tracking_interval=None)
    for layer, rows in run.gradients.groupby("layer"):
        metric = found.get_metric(f"gradflow/gradient_norm/{layer}", Context({}))
        frame = metric.dataframe().sort_values("step")
        assert list(zip(frame.step, frame.value, strict=True)) == list(
            zip(rows.step, rows.norm, strict=True)
        )
    histograms = run.gradient_histograms
    for layer, rows in histograms[histograms.counts.map(len) > 0].groupby("layer"):
        name = f"gradflow/gradient_magnitudes/{layer}"
        _, drawn = found.get_distribution_sequence(name, Context({})).values.sparse_list()
        assert [list(one.weights) for one in drawn] == [list(one) for one in rows.counts]
        assert [one.range[0] for one in drawn] == list(rows.lowest_exponent)
    found.close()
