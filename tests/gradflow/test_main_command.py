"""The command `gradflow`: its commands by short names, and what it says to others."""

import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from gradflow import __version__
from gradflow.__main__ import COMMANDS, Command, main
from gradflow.runs.writing.run import RunWriter

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run_folder(tmp_path) -> Path:
    RunWriter(tmp_path / "mine", {"network": "plain34", "seed": 1}).close("complete")
    return tmp_path / "mine"


def test_installation_puts_the_command_on_the_path():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["scripts"]["gradflow"].partition(":")
    assert getattr(import_module(module), name) is main


def test_help_lists_the_commands_within_80_columns(capsys):
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in ("train", "report", "probe", "check"):
        assert any(line.startswith(f"  {name} ") for line in lines)
    assert max(map(len, lines)) <= 80


def test_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"gradflow {__version__}\n"


def test_without_a_command_the_help_goes_to_standard_error(capsys):
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert (out, err.partition("\n")[0]) == ("", "usage: gradflow COMMAND [OPTIONS]")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "trian",
            "error: there is no command 'trian': did you mean train? The commands are train, ",
        ),
        ("x\x1b[31m", "error: there is no command 'x\\\\x1b[31m': choose from train, report, "),
        ("--fast", "error: there is no command '--fast': choose from train, "),
    ],
)
def test_wrong_names_are_one_sentence(name, said, capsys):
    assert main([name]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(said)
    assert err.count("\n") == 1


def test_command_whose_module_is_missing_is_left_out_and_said(capsys, monkeypatch):
    monkeypatch.setitem(COMMANDS, "export", Command("gradflow.no_such_module", "", False))
    assert main(["export", "mine"]) == 2
    assert capsys.readouterr().err.startswith("error: this gradflow has no command export: ")
    main(["--help"])
    assert "export" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["train", "report", "probe", "check"])
def test_each_command_is_called_by_its_short_name(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: gradflow {name} ")


def test_arguments_and_exit_codes_are_those_of_the_command(run_folder, capsys):
    assert main(["report", str(run_folder), "--format", "json"]) == 0
    assert (run_folder / "report.json").exists()
    assert main(["report", str(run_folder / "none")]) == 1
    assert capsys.readouterr().err.startswith("error: there is no folder ")


def test_python_m_gradflow_is_the_same_command(tmp_path, run_folder, in_fresh_process):
    # As the report command does, it must not import a package that lies in the working folder.
    (tmp_path / "analyses.py").write_text("raise RuntimeError('imported')")
    done = in_fresh_process(["-m", "gradflow", "report", "mine", "--format", "md"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (run_folder / "report.md").exists()


def test_help_and_wrong_names_load_nothing_slow(tmp_path, in_fresh_process):
    code = (
        "import sys\nfrom gradflow.__main__ import main\nmain(['--help'])\nmain(['trian'])\n"
        "sys.exit(repr(sorted({'torch', 'pandas', 'tyro', 'analyses'} & sys.modules.keys())))"
    )
    done = in_fresh_process(["-c", code], tmp_path)
    assert done.stderr.splitlines()[-1] == "[]"
