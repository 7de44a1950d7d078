"""The description of the runs: question, warnings, training line, configuration."""

import re
import time
from dataclasses import replace
from itertools import chain

import pytest

from analyses.comparison.combination import combine
from gradflow.runs.format.schema import IMAGES
from gradflow.runs.reading.run import open_experiment
from gradflow.runs.writing.run import ExperimentWriter, RunWriter
from reports.document.sections import Numbering
from reports.document.summary import (
    configuration_of,
    created_of,
    question_of,
    section_command,
    title_of,
    training_line,
    warnings_of,
)


def single_run(tmp_path, close="complete", **description):
    writer = RunWriter(tmp_path / "mine", {"network": "plain34", **description})
    if close:
        writer.close(close)
    return writer


def test_question_names_the_networks_and_their_accuracy(experiment):
    assert question_of(experiment) == (
        "What do the gradients in plain34 and resnet34 do, "
        "and does that explain what we see in their accuracy?"
    )


def test_question_omits_accuracy_if_none_was_recorded(tmp_path):
    single_run(tmp_path)
    question = question_of(open_experiment(tmp_path / "mine"))
    assert question == "What do the gradients in plain34 do?"


def test_complete_runs_need_no_warning(experiment):
    assert warnings_of(experiment) == ()


@pytest.mark.parametrize(
    ("close", "sentence"),
    [
        (None, "The run mine is still running: it has recorded 0 epochs."),
        ("interrupted", "The run mine was interrupted: it has recorded 0 epochs."),
        ("failed", "The run mine failed: it has recorded 0 epochs."),
    ],
)
def test_run_that_is_not_complete_says_so(tmp_path, close, sentence):
    single_run(tmp_path, close)
    assert warnings_of(open_experiment(tmp_path / "mine")) == (sentence,)


def test_run_that_has_not_started_is_named(tmp_path):
    ExperimentWriter(tmp_path, {"runs": ["mine", "other"]})
    single_run(tmp_path)
    assert warnings_of(open_experiment(tmp_path)) == ("The run other has not started.",)


def test_only_a_few_of_many_waiting_runs_are_named(tmp_path):
    ExperimentWriter(tmp_path, {"runs": ["mine", *map(str, range(1000))]})
    single_run(tmp_path).release()
    *named, last = warnings_of(open_experiment(tmp_path))
    assert named == [f"The run {number} has not started." for number in range(10)]
    assert last == "990 further runs have not started either."


def test_only_500_of_very_many_settings_are_listed(tmp_path):
    single_run(tmp_path, configuration={f"key{number}": number for number in range(1000)})
    (table,) = configuration_of(open_experiment(tmp_path / "mine"), Numbering())
    assert len(table.rows) == 500
    assert re.fullmatch(r"The first 500 of 1,0\d\d rows\.", table.note)


def test_time_to_sum_up_very_many_settings_grows_with_their_number(tmp_path):
    def seconds(count):
        folder = tmp_path / str(count)
        single_run(folder, configuration={f"key{number}": number for number in range(count)})
        experiment = open_experiment(folder / "mine")
        begin = time.process_time()
        training_line(experiment)
        configuration_of(experiment, Numbering())
        return time.process_time() - begin

    seconds(10)
    assert seconds(20_000) < 40 * max(seconds(2000), 0.01)


def test_runs_of_unequal_length_say_which_epoch_is_their_last(tmp_path):
    ExperimentWriter(tmp_path, {"runs": ["mine", "other"]})
    single_run(tmp_path).append("epochs", {"epoch": [1, 2], "step": [9, 19]}, 0, 19)
    longer = RunWriter(tmp_path / "other", {"network": "resnet34"})
    longer.append("epochs", {"epoch": [1, 2, 3], "step": [9, 19, 29]}, 0, 29)
    longer.close("complete")
    assert warnings_of(open_experiment(tmp_path)) == (
        "The runs have recorded 2 to 3 epochs. The last epoch means each run's own last epoch, or "
        "in comparisons the last that they share.",
    )


def test_training_line_has_networks_seeds_data_and_settings(experiment):
    assert training_line(experiment) == (
        "plain34 and resnet34; 1 seed (1); data digits; 2 epochs; learning rate 0.0005; on cpu."
    )


def test_training_line_counts_the_images(tmp_path):
    writer = single_run(tmp_path, configuration={"data": "digits"})
    columns = {quantity.name: [None] * 3 for quantity in IMAGES.columns}
    columns |= {"image": [0, 1, 2], "name": ["a", "b", "c"], "label": [0, 1, 0]}
    columns |= {"subset": ["training", "training", "validation"]}
    writer.append("images", columns, 0, 0)
    line = training_line(open_experiment(tmp_path / "mine"))
    assert line == "plain34; data digits with 2 training and 1 validation images."


def test_training_line_needs_no_settings(tmp_path):
    single_run(tmp_path)
    assert training_line(open_experiment(tmp_path / "mine")) == "plain34."


def test_configuration_holds_every_entry_of_every_run(experiment):
    tables = configuration_of(experiment, Numbering())
    entries = dict(tables[0].rows)
    assert entries["configuration.lr"] == "0.0005"
    assert entries["tracing.overhead"] == "0.07"
    assert entries["device"] == "cpu"
    assert tables[1].columns[0] == "run"
    assert {row[0] for row in tables[1].rows} == {"plain34-seed1", "resnet34-seed1"}
    described = {
        key for run in experiment.runs for key in run.description if key not in {"configuration"}
    }
    printed = set(entries) | set(tables[1].columns)
    assert {key for key in described if key != "tracing"} <= printed
    assert {"plain34", "resnet34"} <= set(chain(*tables[1].rows))


def test_sinks_are_not_listed_again_beside_their_links(tmp_path):
    for seed in (1, 2):
        sinks = [{"kind": "CSV", "place": f"{seed}.csv"}]
        description = {"network": "net", "seed": seed, "sinks": sinks}
        RunWriter(tmp_path / "mine" / f"net-seed{seed}", description).close("complete")
    ExperimentWriter(tmp_path / "mine", {"runs": ["net-seed1", "net-seed2"]})
    tables = configuration_of(open_experiment(tmp_path / "mine"), Numbering())
    assert "sinks" not in str([(one.columns, one.rows) for one in tables])


def test_configuration_of_one_run_is_one_table(tmp_path):
    single_run(tmp_path, configuration={"names": ["a", "b"], "off": False, "none": None})
    (table,) = configuration_of(open_experiment(tmp_path / "mine"), Numbering())
    entries = dict(table.rows)
    assert entries["configuration.names"] == "a, b"
    assert entries["configuration.off"] == "no"
    assert entries["network"] == "plain34"


def test_very_long_entry_is_shortened_and_says_so(tmp_path):
    single_run(tmp_path, configuration={"indices": list(range(1000))})
    (table,) = configuration_of(open_experiment(tmp_path / "mine"), Numbering())
    assert dict(table.rows)["configuration.indices"].endswith(" … (shortened)")


def test_date_is_that_of_the_run_and_missing_where_it_has_none(experiment):
    assert created_of(experiment).isoformat() == "2025-05-03T14:05:09+00:00"
    assert created_of(replace(experiment, description={})) is None


def recorded(folder, lr):
    description = {
        "network": "plain34",
        "seed": 1,
        "created": "2025-05-03T14:05:09+00:00",
        "configuration": {"lr": lr, "batch_size": 24},
    }
    RunWriter(folder, description).close("complete")
    return open_experiment(folder)


def test_compared_experiments_are_told_apart_and_only_what_is_common_is_said_of_both(tmp_path):
    parts = [recorded(tmp_path / name, lr) for name, lr in (("a", 0.1), ("b", 0.2))]
    together = combine(parts, tmp_path / "out")
    assert title_of(together) == "Gradient flow: lr 0.1 and lr 0.2 compared"
    assert question_of(together) == (
        "What differs between lr 0.1 and lr 0.2 in how the gradients flow?"
    )
    line = training_line(together)
    assert "batch size 24" in line
    assert "learning rate" not in line
    assert section_command(together, "skip_carry") == (
        "python -m gradflow.report a b --only skip_carry"
    )
    (_, runs) = configuration_of(together, Numbering())
    assert [row[0] for row in runs.rows] == ["a", "b"]
