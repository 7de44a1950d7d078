"""The command `python -m gradflow.report`: what it writes, prints and refuses."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import webbrowser
from pathlib import Path

import pyarrow
import pytest
from pypdf import PdfReader

from analyses.health.conditions import CONDITIONS
from analyses.registry import Outcome, run_all
from analyses.result import AnalysisResult, Estimate, Finding, Verdict
from gradflow import report
from gradflow.runs.format.manifest import MANIFEST_FILE
from gradflow.runs.reading.run import open_experiment
from gradflow.runs.writing.run import RunWriter
from reports.document.summary import section_command
from reports.formats import FORMATS


def answered(experiment, *_) -> tuple[Outcome, ...]:
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
        bad_if=Verdict.SUPPORTED,
    )
    result = AnalysisResult("It grows.", (finding,), (), (), "", ())
    return (Outcome("gradient_profile", "Gradients by depth", "Does it vanish?", result),)


def write_run(folder: Path, created: str = "2025-05-03T14:05:09+00:00") -> Path:
    RunWriter(folder, {"created": created, "network": "plain34", "seed": 1}).close("complete")
    return folder


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr("reports.building.run_all", answered)
    return write_run(tmp_path / "runs" / "mine")


def seen_in(folder: Path) -> list[str]:
    """What is in the folder, but for the lock, which is hidden, and the manifest."""
    names = (path.name for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(name for name in names if name != MANIFEST_FILE)


def test_arrow_takes_memory_of_the_system_only_while_a_report_is_made(run_folder, monkeypatch):
    before, pools = pyarrow.default_memory_pool().backend_name, []

    def noted(experiment, *_):
        pools.append(pyarrow.default_memory_pool().backend_name)
        return answered(experiment)

    monkeypatch.setattr("reports.building.run_all", noted)
    assert report.main([str(run_folder), "--format", "json"]) == 0
    assert pools == ["system"]
    assert pyarrow.default_memory_pool().backend_name == before


def test_both_formats_are_written_into_the_folder_of_the_run(run_folder, capsys):
    assert report.main([str(run_folder)]) == 0
    assert (run_folder / "report.html").read_bytes().startswith(b"<!DOCTYPE html>")
    assert (run_folder / "report.pdf").read_bytes().startswith(b"%PDF-")
    assert seen_in(run_folder) == [
        "report.html", "report.pdf", "run.json",
    ]  # fmt: skip
    printed = capsys.readouterr().out
    assert "The gradient vanishes toward the input\n  ✓ no (contradicted): plain34\n" in printed
    assert f"{run_folder / 'report.pdf'} (" in printed


def test_answer_fits_80_columns(run_folder, capsys):
    report.main([str(run_folder), "--format", "json"])
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


def test_no_experiment_is_one_sentence(tmp_path, capsys):
    assert report.main(["--runs-folder", str(tmp_path / "none")]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: there is no experiment in {tmp_path / 'none'}")
    assert error.count("\n") == 1


def test_folder_without_a_run_costs_the_others_nothing(run_folder, tmp_path, capsys):
    folders = [str(tmp_path / "absent"), str(run_folder)]
    assert report.main([*folders, "--each", "--format", "html"]) == 1
    assert capsys.readouterr().err == f"error: there is no folder {tmp_path / 'absent'}\n"
    assert (run_folder / "report.html").exists()


@pytest.mark.parametrize("text", ["docx", "html,docx", "", ","])
def test_unknown_format_is_one_sentence(run_folder, text, capsys):
    assert report.main([str(run_folder), "--format", text]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.endswith(f"choose from {', '.join(FORMATS)} with --format\n")


def test_report_that_cannot_be_written_is_one_sentence(run_folder, capsys):
    (run_folder / "report.html").mkdir()
    assert report.main([str(run_folder), "--format", "html"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: the report {run_folder / 'report.html'} cannot be written")
    assert error.endswith("name another folder with --out\n")
    assert report.main([str(run_folder), "--format", "html", "--out", str(run_folder / "a/b")]) == 0
    assert (run_folder / "a" / "b" / "report.html").exists()
    assert seen_in(run_folder) == ["a", "report.html", "run.json"]


def test_interruption_ends_with_130_and_one_line(run_folder, monkeypatch, capsys):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "write_reports", interrupt)
    assert report.main([str(run_folder)]) == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_defect_keeps_its_traceback(run_folder, monkeypatch):
    def fail(*arguments, **options):
        raise ZeroDivisionError

    monkeypatch.setattr(report, "write_reports", fail)
    with pytest.raises(ZeroDivisionError):
        report.main([str(run_folder)])


def test_help_explains_every_option(tmp_path, in_fresh_process):
    done = in_fresh_process(["-m", "gradflow.report", "--help"], tmp_path)
    assert done.returncode == 0
    options = ("--format", "--only", "--each", "--out", "--paper", "--open", "--runs-folder")
    for word in ("FOLDER", "newest experiment", *options, *FORMATS, *CONDITIONS):
        assert word in done.stdout
    named = re.search(r"Formats to write.*?\(default", done.stdout, re.DOTALL).group()
    assert set(re.findall(r"\b(html|pdf|md|json|txt|tex|docx|csv)\b", named)) == set(FORMATS)


def test_a_reader_that_has_seen_enough_costs_no_traceback(tmp_path):
    RunWriter(tmp_path / "run", {"network": "net"}).close("complete")
    command = f"{sys.executable} -m gradflow.report {tmp_path / 'run'} | head -1"
    result = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.stdout.count("\n") == 1
    assert "Traceback" not in result.stderr
    assert (tmp_path / "run" / "report.pdf").exists()


def files_of(folder: Path) -> list[str]:
    return [name for name in seen_in(folder) if name != "run.json"]


def test_every_format_can_be_asked_for_at_once(run_folder):
    assert report.main([str(run_folder), "--format", ",".join(FORMATS)]) == 0
    assert files_of(run_folder) == ["report.html", "report.json", "report.md", "report.pdf"]
    assert json.loads((run_folder / "report.json").read_text(encoding="utf-8"))["sections"]
    assert (run_folder / "report.md").read_text(encoding="utf-8").startswith("## Gradient flow")


def test_the_report_is_in_the_language_that_is_asked_for(run_folder, capsys):
    arguments = [str(run_folder), "--format", "html", "--language"]
    assert report.main([*arguments, "id"]) == 0
    assert '<html lang="id">' in (run_folder / "report.html").read_text(encoding="utf-8")
    assert "klaim" in capsys.readouterr().out
    assert report.main([*arguments, "xx"]) == 1
    assert "choose from en, id" in capsys.readouterr().err


@pytest.mark.parametrize(("paper", "size"), [("a4", (595, 842)), ("letter", (612, 792))])
def test_paper_of_the_pdf_can_be_chosen(run_folder, paper, size):
    assert report.main([str(run_folder), "--format", "pdf", "--paper", paper]) == 0
    box = PdfReader(run_folder / "report.pdf").pages[0].mediabox
    assert (round(box.width), round(box.height)) == size


def test_only_prints_the_section_and_writes_nothing(tmp_path, capsys):
    folder = write_run(tmp_path / "mine")
    assert report.main([str(folder), "--only", "skip_carry"]) == 0
    printed = capsys.readouterr().out
    assert "Gradient through the skips" in printed
    assert "Not asked" in printed
    assert "Learning curves" not in printed
    assert files_of(folder) == []


def test_only_with_a_format_leaves_the_whole_report_as_it_is(tmp_path):
    folder = write_run(tmp_path / "mine")
    (folder / "report.json").write_text("the whole report")
    wanted = "skip_carry,learning_curves"
    assert report.main([str(folder), "--only", wanted, "--format", "json"]) == 0
    assert (folder / "report.json").read_text() == "the whole report"
    part = json.loads((folder / "report-skip_carry-learning_curves.json").read_text())
    assert [section["key"] for section in part["sections"]] == ["learning_curves", "skip_carry"]


@pytest.mark.parametrize("only", ["skips", "skip_carry,skips"])
def test_an_unknown_analysis_is_one_sentence_with_the_known_ones(tmp_path, only, capsys):
    assert report.main([str(write_run(tmp_path / "mine")), "--only", only]) == 1
    error = capsys.readouterr().err
    assert error.startswith(
        "error: there is no analysis 'skips': choose from overview, network_drawing, "
    )
    assert error.count("\n") == 1


def test_only_without_a_name_is_one_sentence(tmp_path, capsys):
    assert report.main([str(write_run(tmp_path / "mine")), "--only", ","]) == 1
    assert capsys.readouterr().err.startswith("error: --only names no analysis")


def test_the_command_under_a_section_prints_that_section_again(tmp_path, in_fresh_process):
    folder = write_run(tmp_path / "runs" / "mine run")
    (outcome,) = run_all(open_experiment(folder), ["skip_carry"])
    command = section_command(open_experiment(folder), outcome.key)
    assert command == "python -m gradflow.report 'mine run' --only skip_carry"
    for place in (tmp_path, tmp_path / "runs"):
        done = in_fresh_process(shlex.split(command)[1:], place)
        assert (done.returncode, done.stderr) == (0, "")
        assert "Gradient through the skips" in done.stdout


def test_page_is_opened_when_asked_for(run_folder, monkeypatch, capsys):
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    assert report.main([str(run_folder), "--open", "--format", "json,html"]) == 0
    assert opened == [(run_folder / "report.html").resolve().as_uri()]
    assert report.main([str(run_folder), "--format", "html"]) == 0
    assert len(opened) == 1
    assert capsys.readouterr().err == ""


def test_without_a_browser_the_page_is_named_and_nothing_fails(run_folder, monkeypatch, capsys):
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    assert report.main([str(run_folder), "--open", "--format", "html"]) == 0
    address = (run_folder / "report.html").resolve().as_uri()
    assert capsys.readouterr().err == f"no browser was found: open {address} in one\n"


@pytest.mark.parametrize("options", [["--format", "json"], ["--only", "skip_carry"]])
def test_opening_a_page_that_is_not_written_is_one_sentence(run_folder, options, capsys):
    assert report.main([str(run_folder), "--open", *options]) == 1
    assert capsys.readouterr().err.startswith("error: --open shows the page: name html")


def test_the_name_of_a_folder_cannot_command_the_terminal(run_folder, tmp_path, capsys):
    odd = shutil.copytree(run_folder, tmp_path / "\x1b[31mred\u202e")
    assert report.main([str(odd), "--format", "md"]) == 0
    said = capsys.readouterr()
    assert r"\x1b[31mred\u202e/report.md" in said.out
    assert "\x1b" not in said.out + said.err
    assert "\u202e" not in said.out + said.err
