"""What is prepared for a day with a GPU runs on the CPU, as far as it can."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gradflow.probes.registry import PROBE_NAMES

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "on_gpu.sh"
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


def run(*arguments, **environment):
    return subprocess.run(
        ["bash", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "PYTHON": sys.executable, **environment},
    )


def test_the_script_has_no_error_of_syntax():
    result = run("-n", str(SCRIPT))
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_a_dry_run_ends_with_a_table_and_small_files(tmp_path):
    result = run(str(SCRIPT), "--dry-run", str(tmp_path))
    assert result.returncode == 0, result.stderr
    targets = json.loads((tmp_path / "targets.json").read_text())
    assert not targets["left_out"]
    assert all("error" not in one for one in targets["results"])
    summary = (tmp_path / "summary.md").read_text()
    assert result.stdout.endswith(summary)
    for part in ("targets", "epoch", "experiment"):
        assert f"| {part} | ok |" in summary
    files = list(tmp_path.iterdir())
    assert len(files) <= 8
    assert all(one.stat().st_size < 16_000_000 for one in files)


def test_probes_of_the_experiment_exist():
    text = SCRIPT.read_text()
    named = re.search(r"probes=\(([^)]*)\)", text)
    assert named is not None
    assert set(named.group(1).split()) <= set(PROBE_NAMES)
