"""The wheel holds the three packages whole: it runs, and a user's script is type-checked by it."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[1]
PACKAGES = ("gradflow", "analyses", "reports")
NOT_CODE = {".pyc", ".parquet"}

RIGHT = """
from torch import nn
import gradflow
from analyses.registry import Analysis, run_all
from reports.elements import Document

def norms(model: nn.Module) -> int:
    with gradflow.Tracer(model, "run", schedule=gradflow.every(2)) as tracer:
        tracer.end_epoch(train_loss=1.0)
    run = gradflow.open_run("run")
    return len(run_all(gradflow.open_experiment(run.folder)))

def heading(document: Document, analysis: Analysis) -> str:
    return document.title + analysis.title
"""
WRONG = """
import gradflow
from analyses.registry import Analysis
from reports.elements import Document

folder: int = gradflow.open_run("run").folder
def key(analysis: Analysis) -> int:
    return analysis.key
def title(document: Document) -> int:
    return document.title
"""
# Of torch this checks nothing: only what is gradflow's own counts, and it takes a minute less.
SETTINGS = "[mypy]\nstrict = true\n[mypy-torch.*,pandas.*]\nfollow_imports = skip\n"


def run(*arguments, cwd, **options):
    done = subprocess.run(
        arguments, cwd=cwd, capture_output=True, text=True, check=False, timeout=300, **options
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory"]
    code, said = run(*build, str(folder), cwd=HOME)
    assert code == 0, said
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A Python that has the wheel, and all else from this one's environment but this checkout."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    code, site = run(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder
    )
    assert code == 0
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site.strip())
    # A folder named in a .pth file is searched; .pth files within it, such as that of an editable
    # install, are not followed.
    (Path(site.strip()) / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.fixture(scope="module")
def checked(installed, tmp_path_factory):
    """What mypy says of a right script and of a wrong one, which see no other gradflow."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "mypy.ini").write_text(SETTINGS)
    (folder / "right.py").write_text(RIGHT)
    (folder / "wrong.py").write_text(WRONG)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [installed, "-m", "mypy", "right.py", "wrong.py"]
    return run(*command, cwd=folder, env=environment)[1].splitlines()


def test_every_file_of_the_packages_is_in_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    files = {
        path.relative_to(HOME).as_posix()
        for package in PACKAGES
        for path in (HOME / package).rglob("*")
        if path.is_file() and path.suffix not in NOT_CODE and "cache" not in path.as_posix()
    }
    assert {f"{package}/py.typed" for package in PACKAGES} <= files <= held
    assert {name.partition("/")[0] for name in held} - set(PACKAGES) == {
        f"{wheel.name.rpartition('-py3')[0]}.dist-info"
    }


def test_installed_wheel_runs_from_elsewhere(installed, tmp_path):
    code = "import gradflow, reports.formats; from analyses.registry import built_in; built_in()"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    told = f"{code}; print(gradflow.__file__)"
    done, said = run(installed, "-c", told, cwd=tmp_path, env=environment)
    assert done == 0, said
    assert not said.startswith(str(HOME))


def test_script_of_a_user_is_type_checked_against_the_wheel(checked):
    assert [line for line in checked if line.startswith("right.py")] == []
    assert checked[-1] == "Found 3 errors in 1 file (checked 2 source files)"


def test_wrong_types_of_each_package_are_found(checked):
    assert sum(line.startswith("wrong.py") and ": error: " in line for line in checked) == 3
