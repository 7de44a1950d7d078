"""The command `python -m gradflow.report`: what it writes, prints and refuses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from analyses.registry import Outcome
from analyses.result import AnalysisResult, Estimate, Finding, Verdict
from gradflow import report
from gradflow.errors import ConfigurationError, RunError
from gradflow.runs.writer import ExperimentWriter, RunWriter

HOME = Path(report.__file__).resolve().parent.parent
LOADS_NO_TORCH = """
import sys
from gradflow.report import main
code = main([{folder!r}])
{last}
loaded = sorted({{"torch", "torchvision"}} & sys.modules.keys())
sys.exit(f"loaded {{loaded}}" if loaded else code)
"""


def answered(experiment) -> tuple[Outcome, ...]:
    finding = Finding(
        key="profile",
        network="plain34",
        hypothesis="The gradient vanishes toward the input",
        contradicted_by="a ratio above 1",
        verdict=Verdict.CONTRADICTED,
        estimates=(Estimate("ratio", 549.0, 412.0, 731.0),),
        threshold="contradicted where the whole interval lies above 1",
        meaning="The gradient grows 549 times toward the input.",
        next_step="Train without normalization.",
    )
    result = AnalysisResult("It grows.", (finding,), (), (), "", ())
    return (Outcome("gradient_profile", "Gradients by depth", "Does it vanish?", result),)


def write_run(folder: Path, created: str = "2025-05-03T14:05:09+00:00") -> Path:
    RunWriter(folder, {"created": created, "network": "plain34", "seed": 1}).close("complete")
    return folder


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr("analyses.registry.run_all", answered)
    return write_run(tmp_path / "runs" / "mine")


def in_fresh_process(
    arguments: list[str], cwd: Path, *paths: Path
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*paths, HOME]))}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip


def test_both_formats_are_written_into_the_folder_of_the_run(run_folder, capsys):
    assert report.main([str(run_folder)]) == 0
    assert (run_folder / "report.html").read_bytes().startswith(b"<!DOCTYPE html>")
    assert (run_folder / "report.pdf").read_bytes().startswith(b"%PDF-")
    assert sorted(path.name for path in run_folder.iterdir()) == [
        "report.html", "report.pdf", "run.json",
    ]  # fmt: skip
    printed = capsys.readouterr().out
    assert "✗ contradicted plain34: The gradient vanishes toward the input" in printed
    assert f"{run_folder / 'report.pdf'} (" in printed


def test_answer_fits_80_columns(run_folder, capsys, monkeypatch):
    monkeypatch.setattr(report, "_renderer", lambda name: lambda document: b"")
    report.main([str(run_folder)])
    printed = capsys.readouterr().out.splitlines()
    answer = [line for line in printed if str(run_folder) not in line]
    assert answer
    assert max(map(len, answer)) <= 80


def test_one_format_can_be_asked_for(run_folder):
    assert report.main([str(run_folder), "--format", "pdf"]) == 0
    assert not (run_folder / "report.html").exists()


def test_without_folders_the_newest_is_explained(run_folder, monkeypatch):
    monkeypatch.chdir(run_folder.parent.parent)
    assert report.main(["--format", "html"]) == 0
    assert (run_folder / "report.html").exists()


def test_newest_goes_by_the_date_of_creation_not_of_the_file(tmp_path):
    newest = write_run(tmp_path / "a", "2025-06-01T00:00:00+02:00")
    write_run(tmp_path / "b", "2025-05-31T21:59:59+00:00")
    ExperimentWriter(tmp_path / "c", {"created": "2024-01-01T00:00:00+00:00", "runs": []})
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "run.json").write_text("{damaged")
    assert report.newest_experiment(tmp_path) == newest


def test_runs_of_an_experiment_are_no_candidates_of_their_own(tmp_path):
    ExperimentWriter(tmp_path / "trial", {"created": "2024-01-01T00:00:00+00:00", "runs": ["x"]})
    write_run(tmp_path / "trial" / "x")
    assert report.newest_experiment(tmp_path) == tmp_path / "trial"


def test_no_experiment_is_one_sentence(tmp_path, capsys):
    assert report.main(["--runs-folder", str(tmp_path / "none")]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: there is no experiment in {tmp_path / 'none'}")
    assert error.count("\n") == 1
    with pytest.raises(RunError):
        report.newest_experiment(tmp_path)


def test_folder_without_a_run_costs_the_others_nothing(run_folder, tmp_path, capsys):
    assert report.main([str(tmp_path / "absent"), str(run_folder), "--format", "html"]) == 1
    assert capsys.readouterr().err == f"error: there is no folder {tmp_path / 'absent'}\n"
    assert (run_folder / "report.html").exists()


@pytest.mark.parametrize("text", ["docx", "html,docx", "", ","])
def test_unknown_format_is_one_sentence(run_folder, text, capsys):
    assert report.main([str(run_folder), "--format", text]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.endswith("choose from html, pdf with --format\n")
    with pytest.raises(ConfigurationError):
        report.parse_formats(text)


def test_formats_are_read_leniently():
    assert report.parse_formats(" PDF, html,pdf") == ("pdf", "html")


def test_report_that_cannot_be_written_is_one_sentence(run_folder, capsys):
    (run_folder / "report.html").mkdir()
    assert report.main([str(run_folder), "--format", "html"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: the report {run_folder / 'report.html'} cannot be written")
    assert sorted(path.name for path in run_folder.iterdir()) == ["report.html", "run.json"]


def test_interruption_ends_with_130_and_one_line(run_folder, monkeypatch, capsys):
    def interrupt(folder, formats):
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "write_reports", interrupt)
    assert report.main([str(run_folder)]) == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_defect_keeps_its_traceback(run_folder, monkeypatch):
    def fail(folder, formats):
        raise ZeroDivisionError

    monkeypatch.setattr(report, "write_reports", fail)
    with pytest.raises(ZeroDivisionError):
        report.main([str(run_folder)])


@pytest.mark.parametrize("name", ["reports", "analyses"])
def test_another_package_of_the_same_name_is_noticed(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise RuntimeError('imported')")
    done = in_fresh_process(["-m", "gradflow.report", "--format", "html"], tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: the package {name!r} was found in {tmp_path / name}")
    assert str(HOME / name) in done.stderr
    assert done.stderr.count("\n") == 1


def test_module_of_the_same_name_is_noticed(tmp_path):
    (tmp_path / "reports.py").write_text("raise RuntimeError('imported')")
    done = in_fresh_process(["-m", "gradflow.report"], tmp_path)
    assert done.returncode == 1
    assert str(tmp_path / "reports.py") in done.stderr


def test_output_folder_called_reports_does_no_harm(tmp_path):
    (tmp_path / "reports").mkdir()
    done = in_fresh_process(["-m", "gradflow.report"], tmp_path)
    assert done.stderr.startswith("error: there is no experiment in runs")


def test_help_explains_every_option(tmp_path):
    done = in_fresh_process(["-m", "gradflow.report", "--help"], tmp_path)
    assert done.returncode == 0
    for word in ("FOLDER", "--format", "--runs-folder", "newest experiment"):
        assert word in done.stdout


def test_torch_is_never_loaded(tmp_path):
    folder = write_run(tmp_path / "mine")
    code = LOADS_NO_TORCH.format(last="", folder=str(folder))
    done = in_fresh_process(["-c", code], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_that_check_sees_a_loaded_torch(tmp_path):
    folder = write_run(tmp_path / "mine")
    (tmp_path / "stand_in").mkdir()
    (tmp_path / "stand_in" / "torch.py").write_text("")
    code = LOADS_NO_TORCH.format(last="import torch", folder=str(folder))
    done = in_fresh_process(["-c", code], tmp_path, tmp_path / "stand_in")
    assert done.returncode == 1
    assert "loaded ['torch']" in done.stderr


def test_a_reader_that_has_seen_enough_costs_no_traceback(tmp_path):
    RunWriter(tmp_path / "run", {"network": "net"}).close("complete")
    command = f"{sys.executable} -m gradflow.report {tmp_path / 'run'} | head -1"
    result = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.stdout.count("\n") == 1
    assert "Traceback" not in result.stderr
    assert (tmp_path / "run" / "report.pdf").exists()
