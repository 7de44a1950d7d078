"""Cards: every text is escaped, nothing is loaded, and light or dark is as the notebook says."""

import re
from html.parser import HTMLParser

import pytest

from gradflow.notebooks import html

HOSTILE = [
    "<script>alert(1)</script>",
    "\" onerror='x'",
    "&lt;b&gt;",
    "\x1b[31m\x00",
    "a\nb",
    "ü → 5",
]
VOID = {"img"}


class Reader(HTMLParser):
    """The texts and tags of a card; fails if an element is not closed."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.texts, self.tags, self.open = [], [], []
        self.feed(content)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)


def whole(hostile: str) -> str:
    return html.card(
        hostile,
        html.text(hostile),
        html.facts({hostile: hostile}),
        html.table([hostile], [[hostile]]),
        html.folded(hostile, html.text(hostile)),
        html.image(b"<svg/>", "svg", hostile, 72),
    )


@pytest.mark.parametrize("hostile", HOSTILE)
def test_texts_show_as_they_are_and_never_become_elements(hostile):
    plain = Reader(whole("name"))
    read = Reader(whole(hostile))
    assert [tag for tag, _ in read.tags] == [tag for tag, _ in plain.tags]
    assert [sorted(attributes) for _, attributes in read.tags] == [
        sorted(attributes) for _, attributes in plain.tags
    ]
    shown = hostile.replace("\x1b", "\\x1b").replace("\x00", "\\x00").replace("\n", "\\n")
    assert shown in read.texts


def test_space_between_a_number_and_its_unit_stays():
    assert html.escape("95\N{NO-BREAK SPACE}%") == "95\N{NO-BREAK SPACE}%"


def test_card_loads_nothing():
    content = whole("name")
    addresses = re.findall(r"(?:src|href)=\"([^\"]*)\"", content)
    assert addresses
    assert all(one.startswith("data:") for one in addresses)
    assert "url(" not in content
    assert "@import" not in content


def test_empty_parts_are_left_out():
    assert html.card("a", "", html.text(""), html.listed([], 3), html.folded("b")) == html.card("a")


def test_long_lists_are_folded():
    read = Reader(html.listed(["a", "b", "c"], 2))
    assert read.texts == ["a", "b", "1 more", "c"]
    assert [tag for tag, _ in read.tags].count("details") == 1


def test_address_of_a_link_keeps_a_file_name_with_signs():
    assert html.address('a b/"x"?#%.html') == "a%20b/%22x%22%3F%23%25.html"
    assert html.address("javascript:alert(1)").startswith("javascript%3A")


# What is around a card in JupyterLab, VS Code and Colab, and nothing of them.
AROUND = {
    "plain": "<body>{}</body>",
    "lab dark": '<body data-jp-theme-light="false">{}</body>',
    "lab light": '<body data-jp-theme-light="true">{}</body>',
    "code dark": '<body class="vscode-dark">{}</body>',
    "code light": '<body class="vscode-light">{}</body>',
}
GROUND = {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 23, 27)"}


@pytest.mark.parametrize(
    ("around", "system", "expected"),
    [
        ("plain", "light", "light"),
        ("plain", "dark", "dark"),
        ("lab dark", "light", "dark"),
        ("lab light", "dark", "light"),
        ("code dark", "light", "dark"),
        ("code light", "dark", "light"),
    ],
)
def test_card_is_light_or_dark_as_the_notebook_is(around, system, expected, tmp_path, open_page):
    page = tmp_path / "page.html"
    content = AROUND[around].format(html.card("heading", html.text("words")))
    page.write_text(f"<!DOCTYPE html><meta charset=utf-8>{content}", encoding="utf-8")
    shown = open_page(page, color_scheme=system)
    style = "getComputedStyle(document.querySelector('.gradflow-card'))"
    assert shown.evaluate(f"{style}.backgroundColor") == GROUND[expected]
    ink = [int(part) for part in re.findall(r"\d+", shown.evaluate(f"{style}.color"))]
    assert (max(ink) < 80) if expected == "light" else (min(ink) > 200)
