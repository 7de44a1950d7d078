"""What a user reads whose library is missing or too old; and that none is loaded unasked."""

import subprocess
import sys
from importlib.metadata import version

import pytest

from gradflow.integrations import libraries
from gradflow.integrations.libraries import LibraryError, load_first_library, load_library


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


def test_of_two_that_offer_the_same_the_one_in_use_is_taken(monkeypatch):
    monkeypatch.setattr(libraries, "version", lambda name: "1.0")
    modules = {"json": "json", "wave": "wave"}
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    assert load_first_library(modules, "1.0").__name__ == "json"
    load_library("wave", "wave", "1.0")
    monkeypatch.delitem(sys.modules, "json")
    assert load_first_library(modules, "1.0").__name__ == "wave"


def test_of_two_the_one_that_is_installed_is_taken(monkeypatch):
    def installed(name):
        if name != "wave":
            raise libraries.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(libraries, "version", installed)
    modules = {"no_such_library": "no-such-library", "wave": "wave"}
    assert load_first_library(modules, "1.0").__name__ == "wave"
    with pytest.raises(LibraryError, match="no-such-library is not installed"):
        load_first_library({"no_such_library": "no-such-library", "other": "other"}, "1.0")


def test_gradflow_alone_loads_none_of_them():
    program = (
        "import sys, gradflow, gradflow.integrations, gradflow.integrations.trainer_run\n"
        "print(*{*sys.modules} & {'lightning', 'pytorch_lightning', 'transformers', 'ignite'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("\n", "")
