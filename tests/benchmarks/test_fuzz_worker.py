"""The fuzzer finds what it looks for: each fault that is planted fails, by its own name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2]
PLANTED = """
import json, os, signal, sys, time
from pathlib import Path
from fuzz_trial import Attempt, Limits
from fuzz_worker import try_all
from gradflow.errors import DataError

class Unprintable(DataError):
    def __str__(self):
        return "two\\nlines"

def raising(error):
    raise error

FAULTS = {
    "value": lambda: 1,
    "refusal": lambda: raising(DataError("no such thing")),
    "ValueError": lambda: raising(ValueError("planted")),
    "unprintable": lambda: raising(Unprintable()),
    "silent": lambda: raising(DataError("")),
    "writes beside": lambda: Path("../canary/secret.png").write_bytes(b"changed"),
    "adds beside": lambda: Path("../new").mkdir(),
    "writes inside": lambda: Path("new").write_bytes(b""),
    "slow": lambda: time.sleep(60),
    "swallows": lambda: [swallowing() for _ in range(1000)],
    "huge": lambda: bytearray(2**40),
    "dies": lambda: os.abort(),
}

def swallowing():
    try:
        time.sleep(60)
    except Exception:
        pass

def make(random, scratch):
    name = random.choice(list(FAULTS))
    return Attempt(name, FAULTS[name])

if __name__ == "__main__":
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    for result in try_all("planted", make, 0, range(count), folder, Limits(0.2, 2**30)):
        print(json.dumps([result.number, result.words, result.outcome, result.reason]))
"""
COUNT = 60


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Number, fault, outcome and reason of each of many inputs."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "planted.py").write_text(PLANTED)
    paths = os.pathsep.join(map(str, (HOME, HOME / "benchmarks")))
    (folder / "files").mkdir()
    ended = subprocess.run(
        [sys.executable, folder / "planted.py", folder / "files", str(COUNT)],
        env={**os.environ, "PYTHONPATH": paths},
        cwd=folder, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert not list((folder / "files").glob("planted-*"))
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.mark.parametrize(
    ("fault", "outcome", "reason"),
    [
        ("value", "read", ""),
        ("refusal", "refused", ""),
        ("ValueError", "failed", "ValueError: 'planted'"),
        ("unprintable", "failed", "two\nlines"),
        ("silent", "failed", ""),
        ("writes beside", "failed", "touched what is not its own: '"),
        ("adds beside", "failed", "something new beside the scratch folder"),
        ("writes inside", "failed", "reading changed '"),
        ("slow", "failed", "took longer than 0.2 s"),
        ("swallows", "failed", "took longer than 0.2 s"),
        ("huge", "failed", "MemoryError"),
        ("", "failed", "the process died with status -6"),  # nothing was left to say which it was
    ],
)
def test_what_is_planted_is_found_and_said(results, fault, outcome, reason):
    found = [result for result in results if result[1] == fault]
    assert found
    assert all(result[2] == outcome and reason in result[3] for result in found), found


def test_every_input_is_tried_once_whatever_became_of_those_before(results):
    assert [result[0] for result in results] == list(range(COUNT))
