"""What is loaded by what: the laptop side, that explains and shows, must never load torch."""

import subprocess
import sys
from importlib import import_module

import pytest

LIGHT = (
    "gradflow",
    "gradflow.runs.reading.run",
    "gradflow.runs.writing.run",
    "gradflow.runs.__main__",
    "analyses.registry",
    "reports.document.builder",
    "gradflow.report",
    "gradflow.live.watch",
    "gradflow.__main__",
    "gradflow.findings.answers",
    "gradflow.findings.checks",
    "gradflow.findings.reporting",
    "gradflow.findings.command",
    "gradflow.sinks.delivery",
    "gradflow.export",
)
# What a report does without, or loads while its figures are drawn: half a second and more together.
SLOW = ("scipy", "altair", "vl_convert", "seaborn", "sklearn", "matplotlib.pyplot", "typst")
# What sinks write to; each is imported when a run begins that is written there.
LOGGERS = ("tensorboard", "wandb", "mlflow", "trackio", "aim", "lightning", "anywidget", "IPython")


def run(program: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_what_explains_and_shows_never_loads_torch():
    # One after the other in one process: a complaint names the first that loads it.
    steps = [*(f"import {module}" for module in LIGHT), "analyses.registry.built_in()"]
    checked = "".join(f"{step}\nassert 'torch' not in sys.modules, {step!r}\n" for step in steps)
    assert run(f"import sys\n{checked}") == (0, "")


def test_a_report_begins_without_what_is_slow_to_load():
    steps = "import analyses.registry, reports.building, sys\nanalyses.registry.built_in()"
    loaded = f"sorted({{*{SLOW!r}}} & {{*sys.modules}})"
    assert run(f"{steps}\nprint({loaded})") == (0, "[]\n")
    # That scipy is seen once it is needed shows that the check above can fail.
    needed = "from analyses.statistics.proportions import wilson_interval\nwilson_interval(1, 2)"
    assert run(f"{steps}\n{needed}\nprint({loaded})") == (0, "['scipy']\n")


def test_the_tracer_loads_torch_but_neither_pandas_nor_what_compiles():
    """torch._dynamo takes more than a second, and is needed once something is compiled.

    That torch is seen here shows that the check above can fail.
    """
    loaded = "{*sys.modules} & {'torch', 'pandas', 'torch._dynamo'}"
    assert run(f"import gradflow, sys\ngradflow.Tracer\nprint({loaded})") == (0, "{'torch'}\n")


def test_no_sink_is_loaded_before_it_is_used():
    loaded = f"{{*sys.modules}} & {{*{LOGGERS!r}, 'gradflow.sinks'}}"
    assert run(f"import gradflow, sys\ngradflow.Tracer\nprint({loaded})") == (0, "set()\n")
    # That it is seen once it is used shows that the check above can fail.
    sinks = "gradflow.sinks.TensorBoard()"
    assert run(f"import gradflow, sys\n{sinks}\nprint({loaded})") == (0, "{'gradflow.sinks'}\n")


def test_names_that_people_import_first_are_offered():
    for package, names in {
        "gradflow": ("Tracer", "open_run", "analyze", "report", "check"),
        "gradflow.hooks": ("Tracer", "every", "log_spaced"),
        "gradflow.probes": ("Probe", "Subject", "find_probes", "run_probes"),
        "gradflow.runs": ("open_run", "open_experiment", "Run", "Experiment"),
        "analyses.comparison": ("combine", "compare_runs"),
    }.items():
        module = import_module(package)
        assert all(callable(getattr(module, name)) for name in names)
        with pytest.raises(AttributeError, match="no attribute 'anything'"):
            module.anything  # noqa: B018
