"""`gradflow check` and `--fail-on`: exit codes for CI, and what they print."""

import shutil
import sys

import pytest

from analyses.health.conditions import CONDITIONS
from gradflow import report
from gradflow.command_line.exit_codes import print_error
from gradflow.errors import CheckFailedError
from gradflow.findings.command import main
from gradflow.runs.writing.run import RunWriter


def test_healthy_run_is_0_with_a_line_for_each_condition(trained, capsys):
    assert main([str(trained("healthy"))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["non-finite: no", "inputs: no", "frozen-statistics: no"]
    told = [line for line in lines if not line.startswith(" ")]
    assert len(told) == sum(one.spoils for one in CONDITIONS.values())
    at = lines.index("not-learning: not asked of healthy (no loss was logged)")
    assert lines[at + 1].startswith("    to ask: Log the loss of each step")


def test_a_terminal_of_80_columns_gets_no_longer_lines(trained, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    main([str(trained("healthy"))])
    main([str(trained("dead"))])
    out, err = capsys.readouterr()
    assert max(map(len, out.splitlines())) <= 80 >= max(map(len, err.splitlines()))
    assert "    to do: " in err
    assert err.startswith("failed: ")


def test_what_to_do_is_told_once_for_findings_that_ask_for_the_same(capsys):
    sentences = ["dead: In a, 3 are.", "stalled: In a, none moves.", "clipped: In a, it is."]
    step = "Lower the learning rate."
    assert print_error(CheckFailedError(sentences, next_steps=[step, step, ""])) == 3
    assert capsys.readouterr().err.splitlines() == [
        "failed: dead: In a, 3 are.",
        "    to do: Lower the learning rate.",
        "failed: stalled: In a, none moves.",
        "    to do: the same as for dead",
        "failed: clipped: In a, it is.",
    ]


@pytest.mark.parametrize("network", ["vanishing", "dead"])
def test_run_with_a_condition_is_3_with_its_sentence(network, trained, capsys):
    assert main([str(trained(network)), "--fail-on", network]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    finding, step = err.splitlines()
    assert finding.startswith(f"failed: {network}: In {network} ")
    assert step.startswith("    to do: ")


def test_what_was_not_recorded_is_said_and_fails_only_if_asked(trained, capsys):
    folder = str(trained("healthy"))
    assert main([folder, "--fail-on", "shattered"]) == 0
    said, step = capsys.readouterr().out.splitlines()
    assert said == "shattered: not asked of healthy (the probe of shattering did not run)"
    assert step.startswith("    to ask: Train with gradflow train --probes shattering")
    assert main([folder, "--fail-on", "shattered", "--fail-on-unknown"]) == 3
    assert step.replace("to ask", "to do") in capsys.readouterr().err


def test_files_are_checked_if_asked(trained, tmp_path, capsys):
    folder = shutil.copytree(trained("dead"), tmp_path / "run")
    assert main([str(folder), "--files"]) == 0
    assert "Undamaged" in capsys.readouterr().out
    part = next((folder / "gradients").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-9])
    assert main([str(folder), "--files"]) == 1
    assert main([str(folder), "--files", "--repair"]) == 0
    assert not part.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--repair"], "use it with --files"),
        (["--files", "--fail-on", "dead"], "leave --fail-on out"),
        (["--fail-on", "deed"], "there is no condition 'deed'"),
        (["--fail-on", ""], "no condition is named"),
    ],
)
def test_options_that_do_not_go_together_are_one_sentence_and_1(options, said, trained, capsys):
    assert main([str(trained("healthy")), *options]) == 1
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_report_is_still_written_when_its_check_fails(trained, tmp_path, capsys):
    command = [str(trained("dead")), "--format", "json", "--out", str(tmp_path)]
    assert report.main([*command, "--fail-on", "vanishing,dead"]) == 3
    assert (tmp_path / "report.json").exists()
    out, err = capsys.readouterr()
    assert "report.json" in out
    assert err.startswith("failed: dead: In dead ")


def test_report_whose_check_passes_is_0(trained, tmp_path):
    command = [str(trained("healthy")), "--format", "json", "--out", str(tmp_path)]
    assert report.main([*command, "--fail-on", "vanishing,dead,healthy=contradicted"]) == 0


def test_sections_are_printed_before_the_check_fails(trained, capsys):
    command = [str(trained("dead")), "--only", "health_check", "--fail-on", "dead"]
    assert report.main(command) == 3
    assert "Health check" in capsys.readouterr().out


def test_comparison_fails_where_one_of_its_networks_does(trained, tmp_path, capsys):
    folders = [str(trained("healthy")), str(trained("dead"))]
    command = [*folders, "--format", "md", "--out", str(tmp_path), "--fail-on", "dead"]
    assert report.main(command) == 3
    assert (tmp_path / "report.md").exists()
    assert capsys.readouterr().err.startswith("failed: dead: In dead ")


def test_each_of_several_reports_is_written_and_an_error_outweighs_a_failed_check(
    trained, tmp_path, capsys
):
    dead, healthy = str(trained("dead")), str(trained("healthy"))
    options = ["--each", "--format", "md", "--out", str(tmp_path), "--fail-on", "dead"]
    assert report.main([dead, healthy, *options]) == 3
    assert {path.parent.name for path in tmp_path.rglob("report.md")} == {"1-dead", "2-healthy"}
    assert report.main([dead, str(tmp_path / "none"), *options]) == 1
    capsys.readouterr()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--fail-on", "deed"], "there is no condition 'deed'"),
        (["--fail-on-unknown"], "goes with --fail-on"),
        (["--watch", "--fail-on", "dead"], "use --fail-on after it"),
    ],
)
def test_wrong_checks_of_a_report_are_said_before_it_is_made(options, said, tmp_path, capsys):
    RunWriter(tmp_path / "run", {"network": "plain34", "seed": 1}).close("complete")
    assert report.main([str(tmp_path / "run"), *options]) == 1
    assert said in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("report*"))
