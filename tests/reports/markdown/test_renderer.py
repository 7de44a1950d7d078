"""The Markdown has the report's content, fits into a comment, and contains no foreign markup."""

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from analyses.registry import Outcome
from analyses.result import Verdict
from reports.document.builder import build_document
from reports.elements import Card, VerdictGroup, VerdictLine
from reports.markdown.escaping import escape_in_html, escape_inline
from reports.markdown.renderer import render_markdown

# Raw HTML is allowed, so that the tests detect a tag that comes from a text.
PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
OURS = {
    "h2", "h4", "p", "strong", "em", "ul", "li", "table", "thead", "tbody", "tr", "th", "td",
    "details", "summary", "code", "blockquote", "span",
}  # fmt: skip
# Patterns that GitHub turns into a link, a mention or a picture.
ACTIVE = re.compile(r"@\w|#\d|\bgh-\d|://|www\.|:[\w+-]+:|\b[0-9a-f]{7,40}\b", re.IGNORECASE)
# A dollar sign within a line starts a formula unless it is inside its own element.
LITERAL_DOLLAR = "<span>$</span>"
NASTY = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</details><h1>x</h1>", "<!-- x",
    "[a](http://x.y)", "![a](http://x.y/z.png)", "<http://x.y>", "http://x.y", "www.x.y",
    "@octocat", "mail@x.y", "owner/repo#12", "#12", "GH-12", "0123456789abcdef", ":smile:",
    "a | b", "|---|", "\\", "\\|", "`code`", "**bold** _em_ ~~gone~~", "1. one", "2) two", "- item",
    "+ item", "* item", "# heading", "> quote", "===", "---", "***", "[ ] task", "[^1]: note",
    "[a]: http://x.y", "&lt;b&gt; &amp; &#35;", "$x$ $$y$$", "a\n\nb", "a\r\n| b |", "    code",
    "\tcode", "```\ncode", "\x00\x1b[31m", "\u202egnp.exe", "\u2028# x", "{{ x }} {% y %}",
)  # fmt: skip


class RenderedPage(HTMLParser):
    """The tags of a page in order, with attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)
        assert "$" not in page.replace(LITERAL_DOLLAR, "")

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def rendered(markdown: str) -> RenderedPage:
    return RenderedPage(PARSER.render(markdown))


@pytest.fixture(scope="module")
def document(experiment, outcomes):
    return build_document(experiment, outcomes)


def test_markdown_has_the_texts_of_the_report(document):
    text = rendered(render_markdown(document).decode()).text
    plain = [document.title, document.question, document.verdict_counts]
    for section in document.sections:
        if "script" not in str(section):
            plain += [section.heading, section.question, section.notice]
            plain += [claim.heading for claim in section.claims]
            plain += [one.meaning for claim in section.claims for one in claim.findings]
    for expected in plain:
        assert expected in text
    for card in document.verdicts:
        for line in card.lines:
            assert line.signed in text


def test_every_verdict_has_a_row_of_four_cells(document):
    tags = Counter(rendered(render_markdown(document).decode()).tags)
    lines = sum(len(card.lines) for card in document.verdicts)
    assert tags["td"] == 4 * lines
    assert tags["tr"] == lines + 1


def test_hostile_texts_become_no_tag_link_or_mention(document):
    page = rendered(render_markdown(document).decode())
    assert set(page.tags) <= OURS
    assert set(page.attributes) <= {("style", "text-align:left")}
    assert not ACTIVE.search(page.text)
    headings = [tag for tag in page.tags if tag in ("details", "summary")]
    folded = len(document.sections) + bool(document.unanswered)
    assert headings == ["details", "summary"] * folded


@pytest.mark.parametrize("text", NASTY)
def test_nasty_text_shows_as_it_is_in_every_place(text):
    places = "## {0}\n\n{0}\n\n- {0}\n\n> {0}\n\n| a | b |\n|---|---|\n| {0} | x |\n\n_{0}_\n\n"
    escaped = escape_inline(text)
    page = rendered(
        places.format(escaped) + f"<details><summary>{escape_in_html(text)}</summary>\n\n</details>"
    )
    harmless = rendered(places.format("word") + "<details><summary>word</summary>\n\n</details>")
    assert [tag for tag in page.tags if tag != "span"] == harmless.tags
    assert not page.attributes
    assert not ACTIVE.search(page.text)
    flat = re.sub(r"\s+", " ", re.sub(r"[\x00\x1b\u202e]", "\ufffd", text)).strip()
    assert page.text.replace("\u200b", "").count(flat) >= 7


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60) | st.text(alphabet="<>[]()|`*_~#@$&\\\n -+=.:1a!/", max_size=30))
def test_any_text_stays_text(text):
    escaped = escape_inline(text)
    page = rendered(f"| a | b |\n|---|---|\n| {escaped} | x |\n\n{escaped}\n\n- {escaped}\n")
    tags = [tag for tag in page.tags if tag not in ("span", "p")]
    assert tags == ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td", "ul", "li"]
    assert not page.attributes
    assert not ACTIVE.search(page.text)


@pytest.mark.parametrize("longest", [4_000, 20_000, 60_000])
def test_a_long_report_is_cut_and_says_what_is_left_out(document, longest):
    rows = tuple(
        Card(
            f"Statement {place}",
            (VerdictLine("net", f"Statement {place}", Verdict.SUPPORTED, "", "yes", "x", "1"),),
            "",
        )
        for place in range(300)
    )
    many = replace(
        document,
        verdicts_by_analysis=(VerdictGroup("One", rows),),
        sections=tuple(document.sections[place % 2] for place in range(300)),
    )
    content = render_markdown(many, longest)
    assert longest / 2 < len(content) <= longest
    page = rendered(content.decode())
    assert set(page.tags) <= OURS
    assert page.tags.count("details") < 300
    assert "Left out here, since a comment must not be longer: " in page.text
    shown = page.tags.count("tr") - 1
    if shown < 300:
        assert f"{300 - shown} further verdicts are left out here" in page.text


def test_a_report_of_usual_length_leaves_nothing_out(document):
    text = render_markdown(document).decode()
    assert "left out" not in text.lower()


def test_without_findings_there_is_no_table(experiment):
    outcomes = (Outcome("skip_carry", "Skips", "Do they?", not_applicable="no additions"),)
    page = rendered(render_markdown(build_document(experiment, outcomes)).decode())
    assert "table" not in page.tags
    assert "No additions" in page.text


def test_the_same_document_gives_the_same_bytes(document):
    assert render_markdown(document) == render_markdown(document)
