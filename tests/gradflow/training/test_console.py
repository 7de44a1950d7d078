"""The console output for folders and classes with arbitrary characters in their names."""

import io
import shlex
from pathlib import Path

import pytest
import torch
from rich.console import Console

from gradflow.data import split
from gradflow.data.images import ImageData
from gradflow.training.configuration import Configuration
from gradflow.training.console import shell_quoted, show_plan
from gradflow.training.experiment import Plan


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("runs/plain", ["runs/plain"]),
        ("a b", ["a b"]),
        ('it\'s "$(touch x)" `y`; rm *', ['it\'s "$(touch x)" `y`; rm *']),
        ("-rf", ["./-rf"]),
        ("漢", ["漢"]),
        ("a\x1b[2Jb\n", ["a\\x1b[2Jb\\n"]),
    ],
)
def test_a_path_to_be_copied_into_a_shell_is_one_word_and_runs_nothing(name, words):
    assert shlex.split(shell_quoted(Path(name))) == words


def plan_of(options):
    data = ImageData(
        images=torch.zeros(8, 1, 8, 8, dtype=torch.uint8),
        labels=torch.tensor([0, 1] * 4),
        classes=("a", "b"),
        names=tuple("abcdefgh"),
        fingerprints=tuple("abcdefgh"),
        flips=False,
    )
    parts = {2025: split(data, seed=2025)}
    output = io.StringIO()
    plan = Plan(options, Path("out"), torch.device("cpu"), data, parts)
    show_plan(Console(file=output, width=80), plan)
    return output.getvalue()


@pytest.mark.parametrize(
    ("options", "without_effect"),
    [
        ({"sink_every": "epoch"}, True),
        ({"sink_quantities": ("step_gradient_norm",)}, True),
        ({"sink_every": "epoch", "sinks": ("csv",)}, False),
        ({"sink_every": "epoch", "sinks": ("none",)}, False),
        ({}, False),
    ],
)
def test_a_choice_of_numbers_for_no_sink_is_said_to_have_no_effect(options, without_effect):
    shown = plan_of(Configuration(batch_size=2, **options))
    assert ("have no effect without --sinks" in shown) == without_effect


def test_the_plan_shows_names_as_text_and_says_that_rows_repeat():
    data = ImageData(
        images=torch.zeros(8, 1, 8, 8, dtype=torch.uint8),
        labels=torch.tensor([0, 1] * 4),
        classes=("[red]a", "b"),
        names=("x\x1b[2J", "[bold]y\n", *"abcdef"),
        fingerprints=("same", "same", *"abcdef"),
        flips=False,
        repeated_rows=1234,
    )
    options = Configuration(data="[blink]\x1b[31m", batch_size=2)
    parts = {2025: split(data, seed=2025)}
    output = io.StringIO()
    plan = Plan(options, Path("out"), torch.device("cpu"), data, parts)
    show_plan(Console(file=output, width=200), plan)
    shown = output.getvalue()
    assert "[blink]\\x1b[31m: 8 gray images" in shown
    assert "1,234 rows of the CSV repeat another row and are left out" in shown
    assert "one image has several labels: x\\x1b[2J, [bold]y\\n" in shown
    assert "\x1b" not in shown
