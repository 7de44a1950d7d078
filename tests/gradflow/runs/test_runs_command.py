"""`python -m gradflow.runs check` prints its findings as a table and a sentence."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gradflow.runs.__main__ import main

RECORDED = Path(__file__).parents[2] / "fixtures" / "runs"


def said(capsys):
    captured = capsys.readouterr()
    assert all(len(line) <= 80 for line in captured.out.splitlines())
    return captured.out


def last_sentence(text):
    return " ".join(re.split(r"\n(?! )", text.strip())[-1].split())


@pytest.fixture
def experiment(tmp_path):
    return shutil.copytree(RECORDED / "version-2", tmp_path / "experiment")


def test_sound_experiment(experiment, capsys):
    before = {path: path.stat().st_mtime_ns for path in experiment.rglob("*")}
    assert main(["check", str(experiment)]) == 0
    text = said(capsys)
    assert last_sentence(text) == "Undamaged: 15 files of 1 run as they were written."
    assert re.search(r"^tiny-seed0 +2 +complete +15 +\d\.\d\d +127 +0$", text, re.MULTILINE)
    assert {path: path.stat().st_mtime_ns for path in experiment.rglob("*")} == before


def test_damage_is_named_then_repaired(experiment, capsys):
    part = experiment / "tiny-seed0" / "gradients" / "part-0000000004-0000000005.parquet"
    part.write_bytes(b"")
    assert main(["check", str(experiment)]) == 1
    text = said(capsys)
    assert f"damaged: {part.relative_to(experiment)}\n    empty" in text
    assert "gap: tiny-seed0 has no rows of gradients: steps 4 to 5" in text
    assert last_sentence(text).startswith(
        "Damaged: 1 file, beside 15 files of 1 run; --repair sets damaged files"
    )
    assert main(["check", str(experiment), "--repair"]) == 0
    text = said(capsys)
    assert f"set aside: {part.relative_to(experiment)}" in text
    assert last_sentence(text).endswith("1 file set aside by an earlier repair.")


def test_run_without_checksums_is_said_to_be_readable(capsys):
    assert main(["check", str(RECORDED / "version-1")]) == 0
    text = last_sentence(said(capsys))
    assert text.startswith("Readable: 22 files of 1 run; 1 run recorded before checksums were kept")


@pytest.mark.parametrize("option", [[], ["--repair"]])
def test_folder_without_runs_is_refused_in_a_sentence(option, tmp_path, capsys):
    for folder, expected in ((tmp_path, "is not a run folder"), (tmp_path / "no", "is no folder")):
        assert main(["check", str(folder), *option]) == 1
        captured = capsys.readouterr()
        assert expected in captured.err
        assert captured.err.count("\n") == 1
        assert not captured.out
    assert not list(tmp_path.iterdir())


def test_names_cannot_command_the_terminal(experiment, capsys):
    run = (experiment / "tiny-seed0").rename(experiment / "\x1b[31mred")
    assert main(["check", str(run)]) == 0
    assert "\x1b" not in said(capsys)


def test_as_a_program_it_loads_no_torch(experiment):
    code = (
        "import sys; from gradflow.runs.__main__ import main; status = main();"
        "print('torch' in sys.modules); sys.exit(status)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "check", str(experiment)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines()[-1] == "False"


def test_only_the_first_hundred_damaged_files_are_named(experiment, capsys):
    folder = experiment / "tiny-seed0" / "gradients"
    for number in range(1000, 1150):
        (folder / f"part-{number:010d}-{number:010d}.parquet").touch()
    assert main(["check", str(experiment)]) == 1
    lines = said(capsys).splitlines()
    assert len([line for line in lines if line.startswith("damaged: ")]) == 100
    assert any("and 50 more files beside it" in line for line in lines)
    assert any("Damaged: 150 files" in line for line in lines)
