"""Each program on the page about trainers does what it says, and is short."""

import re
import runpy
from pathlib import Path

import pytest

import gradflow

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "howto" / "integrations.md").read_text(encoding="utf-8")
PROGRAMS = dict(re.findall(r"\n## (\S+)\n(?:(?!\n## ).)*?```python\n(.*?)```", PAGE, re.DOTALL))
FILES = {
    "Lightning": "lightning_trainer.py",
    "transformers": "transformers_trainer.py",
    "accelerate": "accelerate_loop.py",
}
# Of each: the module it needs, its folder, and how many epochs and steps it trains.
EXPECTED = {
    "Lightning": ("lightning", "lightning", 2, 128),
    "transformers": ("transformers", "transformers", 2, 8),
    "Ultralytics": ("ultralytics", "yolo", 2, 4),
    "accelerate": ("accelerate", "accelerate", 1, 4),
    "Ignite": ("ignite", "ignite", 2, 20),
    "fastai": ("fastai", "fastai", 2, 8),
    "skorch": ("skorch", "skorch", 3, 3),
    "stable-baselines3": ("stable_baselines3", "ppo", 3, 30),
}


def test_every_section_of_a_library_has_a_program():
    sections = set(re.findall(r"\n## (\S+)\n", PAGE)) - {"What"}
    assert sections == set(PROGRAMS) == set(EXPECTED)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", EXPECTED)
def test_the_program_records_a_run(tmp_path, monkeypatch, library):
    module, folder, epochs, steps = EXPECTED[library]
    pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "program.py"
    program.write_text(PROGRAMS[library], encoding="utf-8")
    runpy.run_path(str(program), run_name="__main__")
    run = gradflow.open_run(tmp_path / "runs" / folder)
    assert run.description["status"] == "complete"
    assert "not_recorded" not in run.description
    assert len(run.epochs) == epochs
    assert run.epochs.step.iloc[-1] == steps - 1
    assert (run.gradients.norm > 0).any()


@pytest.mark.parametrize("library", PROGRAMS)
def test_the_program_is_short(library):
    lines = [line for line in PROGRAMS[library].splitlines() if line.strip()]
    assert len(lines) <= 15


@pytest.mark.parametrize("library", FILES)
def test_the_example_is_the_program(library):
    text = (ROOT / "examples" / FILES[library]).read_text(encoding="utf-8")
    assert text.partition("\n\n")[2] == PROGRAMS[library]
