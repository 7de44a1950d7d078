"""Fuzz surfaces of options: recorded configurations and command lines.

The commands run in this process through their `main`. Slow work is replaced by nothing: training,
probes, analyses, rendering, the server and the browser. Networks of each kind are built once.
"""

import functools
import io
import json
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from random import Random
from typing import Any

from fuzz_inputs import (
    NUMBERS,
    any_json,
    any_text,
    json_bytes,
    mutated_json,
    place,
    replace_by_something_odd,
)
from fuzz_runs import FIXTURES, RUN
from fuzz_trial import Attempt, BrokenPromiseError, Outcome, run_command
from PIL import Image
from rich.console import Console

from gradflow import probe, report, train_and_trace
from gradflow.data import ImageData
from gradflow.errors import DataError
from gradflow.live import watch
from gradflow.runs import __main__ as check_command
from gradflow.runs.writing.run import claim_folder
from gradflow.training import experiment
from gradflow.training.configuration import Configuration
from gradflow.training.console import show_plan
from gradflow.training.resumption import recorded_configuration
from reports import building

PLAIN = Configuration(data="images", models=("plain20",), validation_fraction=0.5).as_json()
Main = Callable[[list[str]], int]


def make_configuration(random: Random, scratch: Path) -> Attempt:
    """Options as an experiment records them, some of them invalid."""
    options = _options(random)
    if random.random() < 0.4:
        return Attempt(ascii(options), lambda: _read_options(options))
    description = {"schema_version": 2, "kind": "experiment", "configuration": options}
    if random.random() < 0.1:
        description = mutated_json(random, description)
    content = json_bytes(random, description, (b'{"schema_version": 2, "configuration": {}}',))
    place(scratch, "experiment.json", content)
    return Attempt(ascii(content[:1000]), lambda: recorded_configuration(scratch, Configuration()))


def _options(random: Random) -> dict[str, Any]:
    options = Configuration().as_json()
    for _ in range(random.choice((0, 1, 1, 1, 2, 5))):
        name = random.choice(list(options))
        values = (mutated_json(random, options[name]), any_json(random), random.choice(NUMBERS))
        options[name] = random.choice(values)
    return mutated_json(random, options) if random.random() < 0.1 else options


def _read_options(options: dict[str, Any]) -> None:
    if not isinstance(options, dict):
        return  # who reads a description makes sure of that
    configuration = Configuration.from_json(options)
    kept = configuration.as_json()
    again = Configuration.from_json(json.loads(json.dumps(kept, allow_nan=False)))
    if again != configuration:
        raise BrokenPromiseError(f"what it records is not what it was: {kept}")


def make_command(random: Random, scratch: Path) -> Attempt:
    """A command line, and runs and images that it may name."""
    _furnish(random, scratch)
    name = random.choice(list(COMMANDS))
    arguments = _arguments(random, name)
    return Attempt(f"{name} {arguments!a}", lambda: _run(name, arguments, scratch), writes=True)


def _furnish(random: Random, scratch: Path) -> None:
    for name in ("a/0", "a/1", "b/2", "b/3"):
        place(scratch, f"images/{name}.png", _image(int(name[-1])))
    template = FIXTURES / "version-2"
    for file in ("experiment.json", f"{RUN}/run.json", f"{RUN}/layers.parquet"):
        content = (template / file).read_bytes()
        if file.endswith(".json"):
            description = json.loads(content) | {"configuration": PLAIN}
            if random.random() < 0.5:
                description["configuration"] = _options(random)
            content = json.dumps(description).encode(errors="replace")
            if random.random() < 0.3:
                content = json_bytes(random, mutated_json(random, description), (content,))
        place(scratch, f"runs/first/{file}", content)
    place(scratch, "runs/first/notes.txt", b"")
    if random.random() < 0.1:
        replace_by_something_odd(random, scratch / "runs/first/notes.txt", scratch)


# By command: lines that it takes.
LINES: dict[str, tuple[list[str], ...]] = {
    "train_and_trace": (
        [*("--data", "images", "--image-size", "8"), *("--validation-fraction", "0.5")],
        ["--data", "images/a/0.png", "--models", "plain20"],
        ["--resume", "runs/first"],
        [],
    ),
    "report": (["runs/first"], ["first", f"first/{RUN}", "--each"], ["first", "--format", "md"]),
    "probe": (["runs/first"], ["runs/first", "--data", "images"]),
    "runs": (["check", "runs/first"], ["check", f"runs/first/{RUN}", "--repair"]),
}
OPTIONS: dict[str, Sequence[str]] = {
    "train_and_trace": [field.name for field in fields(train_and_trace.Options)],
    "report": [field.name for field in fields(report.Options)],
    "probe": [field.name for field in fields(probe.Options)],
    "runs": [field.name for field in fields(check_command.Options)],
}
FITTING: dict[str, Sequence[str]] = {
    "models": ("plain20", "resnet20"),
    "norm": ("batch", "none", "group", "layer"),
    "shortcut": ("A", "B", "None"),
    "probes": ("all", "none", "loss_slice"),
    "device": ("auto", "cpu", "cuda", "tpu"),
    "format": ("html", "html,pdf", "md,json", ","),
    "only": ("gradient_profile", ",", "gradient_profile,health"),
    "paper": ("a4", "letter"),
    **dict.fromkeys(("each", "open", "watch", "repair"), ()),
    **dict.fromkeys(
        ("folder", "folders", "data", "out", "resume", "runs_folder"),
        ("images", "runs/first", f"runs/first/{RUN}", "runs", "first", "new", ".", "images/a"),
    ),
}
NUMERALS = ("0", "1", "8", "32", "0.5", "-1", "1e400", "nan", "inf", "True", "None", "9" * 5000)


def _arguments(random: Random, name: str) -> list[str]:
    arguments = list(random.choice(LINES[name]))
    for _ in range(random.choice((0, 1, 1, 1, 2, 4, 12))):
        option = random.choice(OPTIONS[name])
        words = [f"--{random.choice(('',) * 12 + ('no-',))}{option.replace('_', '-')}"]
        fitting = FITTING.get(option, NUMERALS)
        if random.random() < 0.3:
            words.append(any_text(random))
        elif fitting:
            words.append(random.choice(fitting))
        if random.random() < 0.1:
            words = ["=".join(words)]
        arguments += words
    kind = random.randrange(12)
    if kind == 0 and arguments:
        arguments[random.randrange(len(arguments))] = any_text(random)
    elif kind == 1:
        random.shuffle(arguments)
    elif kind == 2:
        arguments = (arguments * random.choice((2, 50)))[: random.randrange(200)]
    return arguments


def _run(name: str, arguments: list[str], scratch: Path) -> Outcome:
    _keep_still(scratch)
    if "--help" in arguments or any(word.startswith("--tyro") for word in arguments):
        return "read"  # both are tyro's own, and print what was installed
    return run_command(COMMANDS[name], arguments)


COMMANDS: dict[str, Main] = {
    "train_and_trace": train_and_trace.main,
    "report": report.main,
    "probe": probe.main,
    "runs": check_command.main,
}


@functools.cache
def _keep_still(_: Path) -> None:
    """Once per process, replace slow work and network access by functions that do nothing."""
    stubs: tuple[tuple[Any, str, Any], ...] = (
        (train_and_trace, "run_plan", _claim),
        (experiment, "build", _try_to_build),
        (experiment, "load", _load_from_elsewhere),
        (probe, "load", _load_from_elsewhere),
        (probe, "probe_run", lambda run, options, print_line: probe.rebuild_job(run, options)),
        (building, "make_report", lambda *_: None),
        (report, "_write", lambda *_: []),
        (watch, "watch", lambda *_, **__: 0),
        (webbrowser, "open", lambda _: False),
    )
    for owner, name, stub in stubs:
        getattr(owner, name)  # what is put in place of nothing would hold nothing still
        setattr(owner, name, stub)


def _claim(plan: experiment.Plan, console: Console) -> None:
    """Do what a training first does with its folder, unless the folder lies outside the scratch."""
    show_plan(console, plan)
    try:
        inside = plan.folder.resolve().is_relative_to(Path.cwd())
    except (OSError, ValueError):
        inside = True  # no folder can be called so
    if inside and not plan.resumed:
        claim_folder(plan.folder)


_build, _load = experiment.build, experiment.load


@functools.cache
def _try_to_build(network: str, **options: Any) -> None:
    """Check that the network exists. It is not kept, because its weights would count as memory."""
    _build(network, **options)


def _load_from_elsewhere(source: str, **options: Any) -> ImageData:
    """Load images from a path only; digits and CIFAR-10 are not input from outside."""
    if source in ("digits", "cifar10"):
        raise DataError("the fuzzer has no such data set")
    return _load(source, **options)


@functools.cache
def _image(red: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (red, 0, 0)).save(stream, "png")
    return stream.getvalue()
