"""Makes the pages of this folder: a page for each condition of the health check.

    OMP_NUM_THREADS=1 python docs/conditions/make.py
    OMP_NUM_THREADS=1 python docs/conditions/make.py disconnected stalled

Each condition with a file in `trainings/` is shown by running it: a small training that has the
condition, and one in which it is mended. What a page says of them is what the health check said.
"""

import importlib
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure

import gradflow
from analyses.health.condition import Condition
from analyses.health.conditions import CONDITIONS, Thresholds
from analyses.health.question import all_findings
from analyses.plotting.panels import heat_map, log_colour_bar, log_colours, subplots
from analyses.plotting.theme import themed
from analyses.result import Finding, Verdict
from gradflow.runs.reading.run import Run, open_experiment

HERE = Path(__file__).parent
TRAININGS, PICTURES = HERE / "trainings", HERE / "pictures"
WORDS = {
    Verdict.SUPPORTED: "yes",
    Verdict.CONTRADICTED: "no",
    Verdict.INCONCLUSIVE: "can't tell",
}
SEE_TABLE = "see the table of [conditions](../reference/analyses.md)"
NEEDS = {
    "shattered": "the table `shattering`, which the probe of that name fills",
    "noisy": "the table `noise_scale`, which the probe of that name fills",
}
SEE_PROBES = "see [probes](../reference/probes.md)"


@dataclass(frozen=True)
class Shown:
    """A training that was run: what its function says of it, its run and its findings by topic."""

    words: str
    run: Run
    findings: dict[str, Finding]


def shown(key: str, which: str, folder: Path) -> Shown:
    """Run the training `which`, ill or mended, of the condition `key`."""
    module = importlib.import_module(f"trainings.{key.replace('-', '_')}")
    torch.manual_seed(0)
    function = getattr(module, which)
    function(folder / which)
    found = all_findings(open_experiment(folder / which))
    run = gradflow.open_run(folder / which)
    return Shown(function.__doc__ or "", run, {one.topic: one for one in found})


def page(key: str, words: Condition) -> str:
    """The page of the condition `key`; draws its picture."""
    title = words.hypothesis.replace("[ of {}]", "").rstrip(".")
    lines = [f"# `{key}`: {title[0].lower()}{title[1:]}", "", *_facts(words), ""]
    path = TRAININGS / f"{key.replace('-', '_')}.py"
    if key in NEEDS:
        lines += [f"It needs {NEEDS[key]}: {SEE_PROBES}.", ""]
    with tempfile.TemporaryDirectory() as folder:
        ill, mended = (shown(key, which, Path(folder)) for which in ("ill", "mended"))
        save(picture(ill, mended), key)
    lines += [
        "## A training that has it",
        "",
        f"{_module_words(path)} [The code](trainings/{path.name}) runs by itself.",
        "",
        "```python",
        _body(path),
        "```",
        "",
        *_said(ill, key),
        "",
        f"![Gradient norms and loss of both trainings](pictures/{key}.png)",
        "",
        "*Left, the training that has it; right, the one in which it is mended. Top: the gradient "
        "norm of each layer's output at each recorded step, or of each position in the sequence, "
        "grey where there is none. Bottom: the loss.*",
        "",
        "## What to do",
        "",
        words.next_step,
        "",
        f"Mended here: {mended.words[0].lower()}{mended.words[1:]}",
        "",
        *_said(mended, key),
    ]
    return "\n".join([*lines, ""])


def _facts(words: Condition) -> list[str]:
    default = getattr(Thresholds(), words.bound) if words.bound else None
    return [
        "| | |",
        "|---|---|",
        f"| measured | {words.method or SEE_TABLE} |",
        f"| bound | {'any' if default is None else f'`{words.bound}`, by default {default:g}'} |",
        f"| it would be contradicted by | {words.contradicted_by} |",
        f"| source | {words.source} |",
        f'| asked by | `gradflow.check("runs/mine", fail_on="{words.key}")` |',
    ]


def _said(one: Shown, key: str) -> list[str]:
    """What the health check says of the condition and of the whole network, as a quotation."""
    asked = {key: f"`{key}`", "healthy": "healthy"}
    told = [(words, one.findings[name]) for name, words in asked.items() if name in one.findings]
    rows = [f"> {words}: **{WORDS[found.verdict]}**. {found.meaning}" for words, found in told]
    if key not in one.findings:
        rows.insert(0, f"> **not asked**: `{key}` was not asked of this training.")
    return ["The health check says:", "", *"\n>\n".join(rows).splitlines()]


def _module_words(path: Path) -> str:
    return path.read_text(encoding="utf-8").split('"""')[1]


def _body(path: Path) -> str:
    """The file without its first docstring."""
    return path.read_text(encoding="utf-8").split('"""', 2)[2].strip()


@themed
def picture(ill: Shown, mended: Shown) -> Figure:
    """Gradient norms by layer and step, and the loss, of both trainings."""
    figure, axes = subplots(2, 2, 4.4, height_ratios=(2, 1))
    frames = [_norms(one.run) for one in (ill, mended)]
    drawn = [frame for frame in frames if not frame.empty]
    norm = log_colours([frame.where(frame > 0) for frame in drawn]) if drawn else None
    mesh = None
    for axis, frame, title in zip(axes[0], frames, ("ill", "mended"), strict=True):
        axis.set_title(title)
        if norm is not None and not frame.empty:
            mesh = heat_map(axis, frame.where(frame > 0), norm, "cividis", title)
        axis.set_xlabel("step")
    axes[0, 0].set_ylabel("position" if len(ill.run.positions) else "layer")
    if mesh is not None:
        log_colour_bar(figure, mesh, axes[0], "gradient norm\n(loss / unit of x)")
    for axis, one in zip(axes[1], (ill, mended), strict=True):
        axis.plot(one.run.steps["step"], one.run.steps["loss"], color="#30507a", linewidth=1)
        axis.set_xlabel("step")
    axes[1, 0].set_ylabel("loss (nats)")
    return figure


def _norms(run: Run) -> pd.DataFrame:
    """Gradient norms by layer and step; by position and step where the run has several."""
    if len(run.positions):
        rows = run.positions[run.positions["layer"] == run.positions["layer"].iloc[-1]]
        return rows.pivot_table(index="first_position", columns="step", values="gradient_norm")
    if not len(run.gradients):
        return pd.DataFrame()
    layers = run.layers.loc[run.layers["role"] != "block", "layer"]
    rows = run.gradients[run.gradients["layer"].isin(layers)]
    frame = rows.pivot_table(index="layer", columns="step", values="norm", dropna=False)
    return frame.reindex(list(layers))


def save(figure: Figure, key: str) -> None:
    """Save the picture of the condition `key`."""
    PICTURES.mkdir(exist_ok=True)
    figure.savefig(PICTURES / f"{key}.png", dpi=110, metadata={"Software": None})


def index() -> str:
    """The table of all pages."""
    rows = [f"| [`{key}`]({key}.md) | {one.holds} |" for key, one in CONDITIONS.items()]
    return "\n".join(
        [
            "# The conditions of the health check",
            "",
            "A page each, with a small training that has the condition, what the check says of it, "
            "and the mend. Made by `python docs/conditions/make.py`.",
            "",
            "| condition | what it says |",
            "|---|---|",
            *rows,
            "",
            "[Published lists of training faults](literature.md), item by item: which condition "
            "covers each, or why none does.",
            "",
        ]
    )


def main(keys: list[str]) -> None:
    """Make the pages of `keys`, all by default, and the table."""
    sys.path.insert(0, str(HERE))
    for key in keys or CONDITIONS:
        (HERE / f"{key}.md").write_text(page(key, CONDITIONS[key]), encoding="utf-8")
        print(key, flush=True)
    (HERE / "README.md").write_text(index(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
