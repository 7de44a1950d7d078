"""How findings, figures, tables and outcomes show themselves in a notebook."""

import re
from dataclasses import replace

import pandas as pd
import pytest
from matplotlib.figure import Figure as Drawing

from analyses.registry import Outcome
from analyses.result import AnalysisResult, Estimate, Figure, Finding, Table, Verdict

FINDING = Finding(
    key="dead-plain",
    network="plain",
    hypothesis="Most channels of some layer of plain are dead.",
    contradicted_by="None.",
    verdict=Verdict.SUPPORTED,
    estimates=(Estimate("share of dead channels", 0.5, 0.25, 0.75),),
    threshold="supported if above 0.1",
    meaning="In plain half of the channels are dead <b>.",
    next_step="Try leaky ReLUs.",
    caveats=("One run.",),
    bad_if=Verdict.SUPPORTED,
)


def draw() -> Drawing:
    drawing = Drawing(figsize=(3, 2))
    drawing.subplots().plot([1, 2])
    return drawing


FIGURE = Figure("shares", "Half are dead", "Shares & layers.", 'alt "text"', draw)


def words(content: str) -> str:
    return re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>", "", content))


@pytest.mark.parametrize("verdict", Verdict)
def test_finding_shows_its_verdict_meaning_number_and_next_step(verdict):
    content = replace(FINDING, verdict=verdict)._repr_html_()
    shown = words(content)
    number = ("0.25", "0.75", "supported if above 0.1")
    meaning = "half of the channels are dead &lt;b&gt;."
    for said in (FINDING.hypothesis, verdict.value, meaning, *number, "Try leaky", "One run."):
        assert said in shown
    assert '<svg role="img" aria-label="0.5, interval from 0.25 to 0.75"' in content


@pytest.mark.parametrize("estimates", [(), (Estimate("share", None),), (Estimate("share", 0.5),)])
def test_finding_without_an_interval_has_no_picture_of_it(estimates):
    assert "<svg" not in replace(FINDING, estimates=estimates)._repr_html_()


def test_figure_shows_its_picture_with_its_words():
    content = FIGURE._repr_html_()
    assert '<img src="data:image/svg+xml;base64,' in content
    assert 'alt="alt &quot;text&quot;"' in content
    assert "Half are dead" in words(content)
    assert "Shares &amp; layers." in words(content)


def test_figure_that_cannot_be_drawn_says_why():
    def fail():
        raise ZeroDivisionError("no <epochs>")

    shown = words(replace(FIGURE, draw=fail)._repr_html_())
    assert "could not be drawn: ZeroDivisionError: no &lt;epochs&gt;" in shown


def test_table_shows_its_first_rows():
    frame = pd.DataFrame({"layer": [f"l{place}" for place in range(30)], "share": [1 / 3] * 30})
    shown = words(Table("shares", "Shares", frame)._repr_html_())
    assert "l11" in shown
    assert "l12" not in shown
    assert "0.333" in shown
    assert "and 18 more rows" in shown


def test_outcome_shows_the_answer_or_why_there_is_none():
    result = AnalysisResult("Half are dead.", (FINDING,), (FIGURE,), (), "", ())
    shown = Outcome("health", "Health", "Is it healthy?", result)._repr_html_()
    for said in ("Is it healthy?", "Half are dead.", "! yes"):
        assert said in words(shown)
    assert "<img" in shown
    missing = Outcome("health", "Health", "Is it healthy?", not_applicable="nothing recorded")
    assert "nothing recorded" in words(missing._repr_html_())
    failed = Outcome("health", "Health", "Is it healthy?", failure="KeyError: 'x'")
    assert "This analysis failed: KeyError: &#x27;x&#x27;" in words(failed._repr_html_())


def test_reprs_say_what_it_is_in_a_line():
    result = AnalysisResult("Half are dead.", (), (), (), "", ())
    assert repr(FINDING).startswith("Finding('dead-plain', supported: 'In plain half")
    assert repr(FIGURE) == "Figure('shares', 'Half are dead')"
    assert repr(Table("t", "T", pd.DataFrame({"a": [1]}))) == "Table('t', 'T', 1 rows)"
    assert repr(Outcome("health", "", "", result)) == "Outcome('health', 'Half are dead.')"
