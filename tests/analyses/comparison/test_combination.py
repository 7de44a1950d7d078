"""Several experiments as one: networks and runs told apart, nothing on disk changed."""

from dataclasses import replace

import pytest

from analyses.comparison.combination import MAX_LABEL_LENGTH, combine, labels_of
from gradflow.errors import ConfigurationError
from gradflow.runs.reading.run import open_experiment
from gradflow.runs.writing.run import ExperimentWriter, RunWriter


def recorded(folder, *runs, created="2025-05-03T14:05:09+00:00", missing=(), **options):
    """An experiment of runs (network, seed), all made with `options`."""
    names = [f"{network}-seed{seed}" for network, seed in runs]
    ExperimentWriter(folder, {"created": created, "runs": [*names, *missing]})
    for (network, seed), name in zip(runs, names, strict=True):
        description = {"network": network, "seed": seed, "configuration": options}
        RunWriter(folder / name, description).close("complete")
    return open_experiment(folder)


def bytes_below(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_networks_of_one_name_are_told_apart_and_others_left_alone(tmp_path):
    parts = [
        recorded(tmp_path / "a", ("plain8", 1), ("wide", 1), lr=0.1),
        recorded(tmp_path / "b", ("plain8", 1), lr=0.2),
    ]
    before = bytes_below(tmp_path)
    together = combine(parts, tmp_path / "out")
    assert together.networks == ["plain8 (lr 0.1)", "wide", "plain8 (lr 0.2)"]
    names = [run.name for run in together.runs]
    assert names == ["plain8 (lr 0.1)", "wide-seed1", "plain8 (lr 0.2)"]
    assert [one.networks for one in together.members] == [["plain8", "wide"], ["plain8"]]
    assert bytes_below(tmp_path) == before
    assert parts[0].networks == ["plain8", "wide"]


def test_runs_of_several_seeds_keep_their_names(tmp_path):
    parts = [
        recorded(tmp_path / name, ("plain8", 1), ("plain8", 2), lr=lr)
        for name, lr in (("a", 0.1), ("b", 0.2))
    ]
    together = combine(parts, tmp_path / "out")
    names = [run.name for run in together.runs]
    assert names[:2] == ["plain8-seed1 (lr 0.1)", "plain8-seed2 (lr 0.1)"]
    assert len(set(names)) == 4


def test_tables_are_read_once_for_all_views(tmp_path):
    part = recorded(tmp_path / "a", ("plain8", 1))
    together = combine([part, recorded(tmp_path / "b", ("plain8", 1))], tmp_path / "out")
    assert together.runs[0].epochs is part.runs[0].epochs


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        (({"lr": 0.1}, {"lr": 0.2}), ["lr 0.1", "lr 0.2"]),
        (({"opt": {"lr": 1}}, {"opt": {"lr": 2}}), ["lr 1", "lr 2"]),
        (({"lr": 0.1, "norm": "x"}, {"lr": 0.2, "norm": "y"}), ["a", "b"]),
        (({}, {}), ["a", "b"]),
        (({"lr": 0.1}, {}), ["a", "b"]),
        (({"note": "x" * 40}, {"note": "y" * 40}), ["a", "b"]),
    ],
)
def test_label_is_the_one_option_that_differs_else_the_folder(tmp_path, options, labels):
    parts = [
        recorded(tmp_path / name, ("plain8", 1), **given)
        for name, given in zip("ab", options, strict=True)
    ]
    assert labels_of(parts) == labels


def test_single_runs_that_differ_in_the_seed_are_called_by_it(tmp_path):
    parts = [recorded(tmp_path / name, ("plain8", seed)) for name, seed in (("a", 1), ("b", 2))]
    assert labels_of(parts) == ["seed 1", "seed 2"]
    several = recorded(tmp_path / "c", ("plain8", 3), ("plain8", 4))
    assert labels_of([parts[0], several]) == ["a", "c"]


def test_folders_of_one_name_are_told_apart_by_what_they_lie_in(tmp_path):
    parts = [recorded(tmp_path / place / "trial", ("plain8", 1)) for place in ("x", "y")]
    assert labels_of(parts) == ["x/trial", "y/trial"]


def test_labels_are_short_and_still_no_two_alike(tmp_path):
    dates = ("20250503-140509", "20250503-150211")
    names = [f"photographs-of-dishes-{date}" for date in dates]
    labels = labels_of([recorded(tmp_path / name, ("plain8", 1)) for name in names])
    assert labels == ["photographs…50503-140509", "photographs…50503-150211"]
    assert max(map(len, labels)) == MAX_LABEL_LENGTH
    middle = [f"{'a' * 30}{letter}{'b' * 30}" for letter in "xy"]
    labels = labels_of([recorded(tmp_path / name, ("plain8", 1)) for name in middle])
    assert len(set(labels)) == 2


def test_date_is_that_of_the_newest_whatever_the_time_zone(tmp_path):
    parts = [
        recorded(tmp_path / "a", ("plain8", 1), created="2025-06-01T00:30:00+02:00"),
        recorded(tmp_path / "b", ("plain8", 1), created="2025-05-31T23:00:00+00:00"),
    ]
    together = combine(parts, tmp_path / "out")
    assert together.description["created"] == "2025-05-31T23:00:00+00:00"


def test_runs_that_have_not_started_are_kept_in_mind(tmp_path):
    parts = [
        recorded(tmp_path / "a", ("plain8", 1)),
        recorded(tmp_path / "b", ("plain8", 1), missing=["plain8-seed2"]),
    ]
    assert "plain8-seed2 (b)" in combine(parts, tmp_path / "out").description["runs"]


def test_a_run_within_a_named_experiment_is_refused(tmp_path):
    whole = recorded(tmp_path / "a", ("plain8", 1))
    alone = open_experiment(tmp_path / "a" / "plain8-seed1")
    with pytest.raises(ConfigurationError, match="plain8-seed1 is named twice"):
        combine([whole, alone], tmp_path / "out")
    combine([whole, replace(alone, runs=recorded(tmp_path / "b", ("x", 1)).runs)], tmp_path)
