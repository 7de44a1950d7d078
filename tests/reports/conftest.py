"""Fixtures: a small recorded experiment, and outcomes with names chosen to break renderers."""

from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import pandas as pd
import pytest

matplotlib.use("Agg")

from matplotlib.figure import Figure as Drawing

from analyses.registry import Outcome
from analyses.result import AnalysisResult, Estimate, Figure, Finding, Table, Verdict
from gradflow.runs.reading.run import Experiment, open_experiment
from gradflow.runs.writing.run import ExperimentWriter, RunWriter
from reports.document.builder import build_document
from reports.elements import Document
from reports.pdf.renderer import render_pdf

HOSTILE = (
    "<script>alert(1)</script>",
    '#read("x") #panic() #image("y.png")',
    "$x$ *b* _i_ @ref <label> `raw` // /* = heading",
    "{{ document }} {% raw %} & \" ' \\ \\n",
    "Größe µ ± 3 → naïve",
    "stage4.block12.convolution_with_a_very_long_name." * 5 + "x" * 90,
)

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """The tags and the text of a page; fails if an element is not closed."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(content.decode())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text += data


def finding(key: str, verdict: Verdict, network: str | None, **changes) -> Finding:
    texts = {
        "hypothesis": f"The hypothesis {key} holds",
        "contradicted_by": f"A ratio under 1 for {key}",
        "threshold": "supported where the whole interval lies above 1",
        "meaning": f"The meaning of {key} is that the ratio is 54.3.",
        "next_step": f"Train {key} without normalization.",
        "caveats": ("One data set.", "Few seeds."),
        "estimates": (
            Estimate(f"ratio of {key}", 54.3, 51.2, 57.9, "%", method="bootstrap, 3 seeds"),
            Estimate("slope", None, method="too few epochs"),
        ),
    }
    return Finding(key=key, network=network, verdict=verdict, **(texts | changes))


def draw_line() -> Drawing:
    drawing = Drawing(figsize=(6.7, 3.5))
    axes = drawing.subplots()
    axes.plot([1, 2, 3], [0.1, 0.4, 0.35], marker="o")
    axes.set_xlabel("epoch")
    return drawing


def draw_nothing() -> Drawing:
    raise ZeroDivisionError("no epochs to draw")


def result(
    name: str, findings: tuple[Finding, ...], *tables: Table, **together: str
) -> AnalysisResult:
    figures = (
        Figure(f"{name}-a", f"Figure title {name}", "Caption A, n = 3.", f"alt {name}", draw_line),
        Figure(f"{name}-b", f"Other title {name}", "Caption B.", f"other {name}", draw_line),
    )
    return AnalysisResult(
        f"Summary of {name}: 54.3 %.", findings, figures, tables, f"Method of {name}.",
        ("He et al. 2015, section 4.1", f"Source of {name}"), together,
    )  # fmt: skip


@pytest.fixture(scope="session")
def make_finding() -> Callable[..., Finding]:
    """Makes a finding with texts for every field."""
    return finding


@pytest.fixture(scope="session")
def outcomes() -> tuple[Outcome, ...]:
    """Outcomes in report order: answered, hostile, without figure, not applicable, failed."""
    names = ("curve-supported", "curve-contradicted", "higher-accuracy-resnet34")
    plain = [
        finding(name, verdict, network, evidence=("curves-a",))
        for name, verdict, network in zip(
            names, Verdict, ("plain34", "resnet34", None), strict=True
        )
    ]
    profile = tuple(
        finding(
            f"vanish-{network}",
            Verdict.INCONCLUSIVE,
            network,
            statement="Gradients vanish",
            meaning="The meaning of vanish is that the ratio is 54.3.",
        )
        for network in ("plain34", "resnet34")
    )
    wide = pd.DataFrame({f"column {i}": [i / 7] * 3 for i in range(23)})
    long = pd.DataFrame({"layer": [f"layer{i}" for i in range(90)], "norm": range(90)})
    hostile = [
        finding(
            text, Verdict.CONTRADICTED, text, hypothesis=text, meaning=text, next_step=text,
            estimates=(Estimate(text, 1e-13, 1e-14, 1e-12, text, method=text),), caveats=(text,),
        )
        for text in HOSTILE
    ]  # fmt: skip
    columns = pd.DataFrame({text: [text, None] for text in HOSTILE})
    figure = Figure("broken", "Broken title", "Broken caption.", "alt", draw_nothing)
    broken = AnalysisResult("A summary.", (), (figure,), (), "", ())
    ask = "What happened?"
    return (
        Outcome(
            "matched_comparison",
            "Comparison",
            ask,
            result("curves", tuple(plain)),
            background="Paired runs saw the same images.",
        ),
        Outcome(
            "gradient_profile", "Gradients by depth", ask,
            result(
                "profile",
    profile, Table("wide", "Wide table", wide), Table("long", "Long table", long),
                vanish="Of both networks together.",
            ),
        ),
        Outcome(
            HOSTILE[0], HOSTILE[1], HOSTILE[2],
            result(HOSTILE[0], tuple(hostile), Table("names", HOSTILE[1], columns)),
        ),
        Outcome("drawing", "A broken drawing", ask, broken),
        Outcome("skip_carry", "Skip connections", ask, not_applicable="no residual additions"),
        Outcome("third_party", "Third party", "", failure="ValueError: it broke"),
    )  # fmt: skip


def write_run(folder: Path, network: str, seed: int, status: str = "complete", epochs: int = 2):
    writer = RunWriter(
        folder,
        {
            "created": "2025-05-03T14:05:09+00:00",
            "network": network,
            "seed": seed,
            "device": "cpu",
            "configuration": {"epochs": 2, "lr": 0.0005, "data": "digits"},
            "tracing": {"every": 5, "overhead": 0.07},
        },
    )
    if epochs:
        columns = {
            "epoch": list(range(1, epochs + 1)),
            "step": [10 * epoch for epoch in range(1, epochs + 1)],
            "validation_accuracy": [0.5] * epochs,
        }
        writer.append("epochs", columns, 0, 10 * epochs)
    if status != "running":
        writer.close(status)


@pytest.fixture(scope="session")
def experiment_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "trial"
    names = ["plain34-seed1", "resnet34-seed1"]
    ExperimentWriter(folder, {"created": "2025-05-03T14:05:09+00:00", "runs": names})
    for name in names:
        write_run(folder / name, name.partition("-")[0], 1)
    return folder


@pytest.fixture(scope="session")
def experiment(experiment_folder: Path) -> Experiment:
    return open_experiment(experiment_folder)


@pytest.fixture(scope="session")
def document_with_overview(experiment: Experiment, outcomes: tuple[Outcome, ...]) -> Document:
    """The report of the outcomes, with an overview figure."""
    figure = replace(outcomes[0].result.figures[0], key="overview", alt="alt of the overview")
    overview = Outcome("overview", "", "", AnalysisResult("", (), (figure,), (), "", ()))
    return build_document(experiment, [*outcomes, overview])


@pytest.fixture(scope="session")
def report_as_pdf(document_with_overview: Document) -> bytes:
    return render_pdf(document_with_overview)


@pytest.fixture(scope="session")
def page_of() -> Callable[[bytes], Page]:
    """Reads the bytes of an HTML file."""
    return Page
