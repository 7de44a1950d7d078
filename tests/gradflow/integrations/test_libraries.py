"""What a user reads whose library is missing or too old; and that none is loaded unasked."""

import subprocess
import sys
from importlib.metadata import version

import pytest

from gradflow.integrations import libraries
from gradflow.integrations.libraries import LibraryError, load_libraries, load_library


def test_a_missing_library_is_named_with_the_version_needed():
    with pytest.raises(LibraryError, match=r"^no-such-library is not.*'no-such-library>=1.2'$"):
        load_library("no_such_library", "no-such-library", "1.2")


def test_an_old_library_is_named_with_both_versions():
    found = version("pandas").replace(".", r"\.")
    with pytest.raises(LibraryError, match=rf"pandas {found} is installed.*older than 99\.1"):
        load_library("pandas", "pandas", "99.1")


def test_it_can_be_caught_as_an_import_error():
    with pytest.raises(ImportError):
        load_library("no_such_library", "no-such-library", "1.2")


@pytest.mark.parametrize(
    ("found", "oldest", "is_older"),
    [("2.10", "2.9", False), ("2.6.0rc1", "2.6", False), ("1.9+cu12", "1.10", True)],
)
def test_versions_are_compared_by_number(monkeypatch, found, oldest, is_older):
    monkeypatch.setattr(libraries, "version", lambda name: found)
    if is_older:
        with pytest.raises(LibraryError):
            load_library("json", "json", oldest)
    else:
        assert load_library("json", "json", oldest).__name__ == "json"


def test_of_several_those_are_taken_that_are_installed_and_new_enough(monkeypatch):
    def installed(name):
        if name == "none":
            raise libraries.PackageNotFoundError(name)
        return {"json": "1.0", "wave": "2.0"}[name]

    monkeypatch.setattr(libraries, "version", installed)
    modules = {"none": "none", "json": "json", "wave": "wave"}
    for oldest, names in (("1.0", ["json", "wave"]), ("1.5", ["wave"])):
        assert [one.__name__ for one in load_libraries(modules, oldest)] == names
    with pytest.raises(LibraryError, match="none is not installed"):
        load_libraries(modules, "3.0")


def test_gradflow_alone_loads_none_of_them():
    program = (
        "import sys, gradflow, gradflow.integrations, gradflow.integrations.trainer_run\n"
        "print(*{*sys.modules} & {'lightning', 'pytorch_lightning', 'transformers', 'ignite'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("\n", "")
