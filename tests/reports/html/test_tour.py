"""The guided tour in a browser: it asks, waits, answers, and leaves the page as it was."""

from dataclasses import replace

import pytest
from axe_core_python.sync_playwright import Axe

from reports.elements import TourStep
from reports.html.renderer import render_html


@pytest.fixture(scope="module")
def toured(document_with_overview):
    """The report with a tour of three steps, the second without a figure."""
    section = document_with_overview.sections[0]
    anchor, label = section.claims[0].anchor, section.all_figures[0].label
    steps = (
        TourStep("First?", "Look at it.", "One: 54.3.", anchor, label),
        TourStep("Second?", "Look.", "Two: 54.3.", section.claims[1].anchor, ""),
        TourStep("<b>Third</b>?", "Look.", "Three: 54.3.", anchor, label),
    )
    return replace(document_with_overview, tour=steps)


@pytest.fixture
def open_toured(open_page, tmp_path, toured):
    def open_it(query="", width=1280, document=toured):
        path = tmp_path / "report.html"
        path.write_bytes(render_html(document))
        page = open_page(path, viewport={"width": width, "height": 900})
        if query:
            page.goto(f"{path.as_uri()}{query}")
        return page

    return open_it


def shown(page):
    return page.locator("#tour .step:not([hidden]) .question").all_text_contents()


def test_it_asks_before_it_tells(open_toured):
    page = open_toured()
    assert page.locator("#tour").is_hidden()
    page.click(".tour-start button")
    assert shown(page) == ["First?"]
    figure = page.locator(".toured")
    assert figure.evaluate("one => one.tagName") == "FIGURE"
    assert page.locator("#tour .found-out >> visible=true").count() == 0
    assert figure.locator("figcaption").is_hidden()  # its title says what was found
    page.click("[data-move=answer]")
    assert "One: 54.3." in page.locator("#tour .found-out >> visible=true").text_content()
    assert figure.locator("figcaption").is_visible()


def test_steps_go_forth_and_back_and_end_where_the_page_was(open_toured):
    page = open_toured()
    page.click(".tour-start button")
    assert page.locator("[data-move=back]").is_disabled()
    page.click("[data-move=next]")
    assert shown(page) == ["Second?"]
    assert page.locator("article.toured").count() == 1
    page.click("[data-move=next]")
    assert shown(page) == ["<b>Third</b>?"]
    assert page.locator("[data-move=next]").is_disabled()
    page.click("[data-move=back]")
    assert shown(page) == ["Second?"]
    page.keyboard.press("Escape")
    assert page.locator("#tour").is_hidden()
    assert page.locator(".toured, .asking").count() == 0
    assert page.evaluate("document.activeElement.textContent") == "Take the tour"


@pytest.mark.parametrize(
    ("query", "question"),
    [
        ("?tour", "First?"),
        ("?tour=2", "Second?"),
        ("?tour=99", "<b>Third</b>?"),
        ("?tour=x", "First?"),
    ],
)
def test_a_step_can_be_linked_to(open_toured, query, question):
    page = open_toured(query)
    assert shown(page) == [question]
    assert "?tour=" in page.url


def test_axe_finds_nothing_serious_and_a_telephone_shows_figure_and_question(open_toured):
    page = open_toured("?tour", width=400)
    page.click("[data-move=answer]")
    found = Axe().run(page)["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    top = page.locator("#tour").bounding_box()["y"]
    assert page.locator(".toured").bounding_box()["y"] < top


def test_a_report_without_one_has_no_trace_of_it(open_toured, document_with_overview):
    page = open_toured(document=document_with_overview)
    assert page.locator("#tour, .tour-start").count() == 0
