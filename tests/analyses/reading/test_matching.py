"""Runs are compared image by image only on the same images, and as a pair only if trained alike."""

import pytest

from analyses.accuracy.difference.question import ANALYSIS as MATCHED
from analyses.reading.matching import mismatch_reason, same_images
from analyses.reading.pairs import residual_pairs
from analyses.reasons.question import ANALYSIS as BETTER
from analyses.registry import NotApplicableError
from gradflow.runs.reading.run import open_experiment


def both(build, **of_the_second):
    right = build.right_of([0.5, 0.6, 0.7])
    options = {"lr": 0.1, "seeds": [1], "data": "here"}
    second = {"configuration": options, **of_the_second}
    return build.experiment(
        build.plan("plain8", right=right, configuration=options),
        build.plan("resnet8", right=right, skip_share=0.5, **second),
    )


def test_runs_made_together_match(build):
    first, second = both(build).runs
    assert mismatch_reason(first, second) == ""
    assert same_images(first, second)


def test_what_is_only_recorded_otherwise_does_not_part_them(build):
    first, second = both(
        build, configuration={"lr": 0.1, "data": "there", "probes": ["none"], "trace_every": 9}
    ).runs
    assert mismatch_reason(first, second) == ""


def test_options_of_the_training_part_them_and_are_named(build):
    first, second = both(build, configuration={"lr": 0.2, "optimizer": {"momentum": 0.9}}).runs
    said = mismatch_reason(first, second)
    assert said == "they were trained with different lr and optimizer.momentum"


def other_images(experiment, column):
    """Give the second run other images under the same numbers."""
    second = experiment.runs[1]
    table = second.images if column != "target" else second.predictions
    values = table[column].iloc[::-1].to_numpy() if column != "target" else table[column] + 1
    name = "images" if column != "target" else "predictions"
    second._tables[name] = table.assign(**{column: values})


def without(experiment, *columns):
    for run in experiment.runs:
        run._tables["images"] = run.images.assign(**dict.fromkeys(columns))


@pytest.mark.parametrize(
    ("column", "unknown"),
    [("fingerprint", ()), ("name", ("fingerprint",)), ("target", ("fingerprint", "name"))],
)
def test_images_are_told_apart_by_the_best_that_is_known_of_them(build, column, unknown):
    alike = both(build)
    unlike = open_experiment(alike.folder)
    for experiment in (alike, unlike):
        without(experiment, *unknown)
    other_images(unlike, column)
    assert same_images(*alike.runs)
    assert not same_images(*unlike.runs)
    assert mismatch_reason(*unlike.runs) == "their images differ"


def test_without_common_images_there_is_nothing_to_match(build):
    experiment = both(build)
    other_images(experiment, "fingerprint")
    assert residual_pairs(experiment) == []
    for analysis in (MATCHED, BETTER):
        with pytest.raises(NotApplicableError):
            analysis.run(experiment)


def test_networks_trained_otherwise_are_compared_but_nothing_is_called_a_cause(build):
    experiment = both(build, configuration={"lr": 0.2})
    assert any("lr" in caveat for caveat in MATCHED.run(experiment).findings[0].caveats)
    with pytest.raises(NotApplicableError, match="with the same options"):
        BETTER.run(experiment)
