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


def test_a_training_that_is_resumed_goes_on_with_the_same_run(train, tmp_path):
    (tmp_path / "experiment.json").write_text("{}")
    for steps in (3, 4):
        sink = Aim(tmp_path / "aim", quantities="step_gradient_norm")
        run, _ = train(sink, steps=steps, **({"resume": {}} if steps == 4 else {}))
    (identity,) = aim.Repo(str(tmp_path / "aim")).list_all_runs()
    (entry,) = run.description["sinks"]
    assert (entry["run"], entry["path"]) == (identity, "../aim")
    found = aim.Run(identity, repo=str(tmp_path / "aim"), system_tracking_interval=None)
    assert found.experiment == tmp_path.name
    frame = found.get_metric("gradflow/step_gradient_norm", Context({})).dataframe()
    assert sorted(set(frame.step)) == list(range(8))
    found.close()


def test_a_run_that_is_not_there_any_more_is_begun_anew(train, tmp_path):
    train(Aim(tmp_path / "first", quantities="step_gradient_norm"))
    run, _ = train(Aim(tmp_path / "second", quantities="step_gradient_norm"), resume={})
    (entry,) = run.description["sinks"]
    assert "problem" not in entry
    # Aim's list of runs is as old as its first use in the process.
    assert (tmp_path / "second" / ".aim" / "meta" / "chunks" / entry["run"]).is_dir()
