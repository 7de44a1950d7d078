"""The HTML report in a browser, opened from a file, offline."""

from base64 import b64encode
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from functools import partial

import pytest
from axe_core_python.sync_playwright import Axe
from matplotlib.figure import Figure as Drawing

from analyses.plotting import theme
from analyses.result import Figure
from reports.document.builder import build_document
from reports.document.figures import draw_figure
from reports.html.renderer import render_html

DESK = {"width": 1280, "height": 900}
TELEPHONE = {"width": 400, "height": 900}
# Texts that close elements or attributes, run scripts, or reverse the direction of writing.
BREAKING = (
    "</title></style></script><script>window.ran = 1</script>",
    '" onmouseover="window.ran = 1" autofocus onfocus=\'window.ran = 1\' x="',
    "'><img src=x onerror='window.ran = 1'><svg/onload=window.ran=1>",
    "<!-- --!> <![CDATA[ ]]> <base href='https://example.org/'> &lt;b&gt; &#60;",
    "{{ 7 * 7 }} {% include 'page.html.j2' %} ${window.ran = 1} javascript:window.ran=1",
    "layer\u202eevil\u202c \u2066isolated\u2069 \u200f\u05d0\u05d1\u200e \u0645\u0631",
    "W" * 400,
)
# Fields with values of ours, used in ids, links and conditions rather than shown as texts.
OURS = {"anchor", "label", "sign", "word", "suffix", "shown_before", "version", "language"}


@pytest.fixture(scope="module")
def document(experiment, outcomes):
    return build_document(experiment, outcomes)


@pytest.fixture
def open_report(open_page, tmp_path, document):
    """Opens the page of `document`, or of the one given."""

    def open_it(given=None, **options):
        path = tmp_path / "report.html"
        path.write_bytes(render_html(given or document))
        return open_page(path, **{"viewport": DESK, **options})

    return open_it


def filled(part, text):
    """An element of the document with every text from outside replaced by `text`."""
    if isinstance(part, tuple):
        return tuple(filled(one, text) for one in part)
    if is_dataclass(part):
        named = {field.name: getattr(part, field.name) for field in fields(part)}
        return replace(
            part, **{name: filled(one, text) for name, one in named.items() if name not in OURS}
        )
    is_text = isinstance(part, str) and not isinstance(part, Enum)
    return text if is_text and part else part


def small(document):
    """The document reduced to two sections with claims, figures and a short table."""
    section = document.sections[1]
    table = replace(section.tables[0], rows=section.tables[0].rows[:1])
    sections = (document.sections[0], replace(section, tables=(table,)))
    first = document.configuration[0]
    return replace(
        document,
        sections=sections,
        glossary=document.glossary[:1],
        configuration=(replace(first, rows=first.rows[:3]),),
    )


def test_page_opens_without_console_errors_or_requests(open_report):
    page = open_report()
    assert page.title() == "Gradient flow in plain34 and resnet34"
    # The hostile names of the third section ran nothing either.
    assert "<script>alert(1)</script>" in page.locator("#section-3").text_content()


@pytest.mark.parametrize("text", BREAKING)
def test_hostile_text_in_every_place_is_shown_and_does_nothing(open_report, document, text):
    page = open_report(filled(small(document), text))
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.reload()
    page.mouse.move(300, 300)
    assert page.evaluate("window.ran") is None
    assert dialogs == []
    for place in ("h1", "h2 >> nth=2", ".statement a", ".found p", ".lines .network", "main td"):
        assert page.locator(place).first.text_content() in (text, "All verdicts")
    assert page.locator("img").first.get_attribute("alt") == text
    assert page.locator("script, base, svg, [onfocus]").count() == 1  # the script is ours
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize("width", [400, 320])
def test_narrow_page_does_not_scroll_sideways(open_report, width):
    page = open_report(viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == width


def drawing(width):
    made = Drawing(figsize=(width, 3))
    made.subplots().plot([0, 1], [0, 1])
    return made


@pytest.mark.parametrize("viewport", [DESK, TELEPHONE], ids=["desk", "telephone"])
def test_the_first_picture_is_whole_at_the_width_of_a_telephone(open_report, document, viewport):
    wide, narrow = (partial(drawing, width) for width in (theme.WIDTH, theme.NARROW_WIDTH))
    first = draw_figure(Figure("key", "Title", "Caption.", "Alt", wide, narrow), "Figure 1")
    page = open_report(replace(small(document), overview_figure=first), viewport=viewport)
    shown = page.locator(".opening img").evaluate(
        "(one) => ({ source: one.currentSrc, width: one.getBoundingClientRect().width, "
        "drawn: one.naturalWidth, room: one.closest('.scroll').clientWidth, "
        "needed: one.closest('.scroll').scrollWidth })"
    )
    picture = first.narrow if viewport is TELEPHONE else first.picture
    assert shown["source"].endswith(b64encode(picture.data).decode())
    assert shown["drawn"] == pytest.approx(picture.width * 96 / 72, abs=1)
    assert shown["needed"] <= shown["room"]
    # Letters are at least nine tenths as large as they were drawn.
    assert shown["width"] >= 0.9 * shown["drawn"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESK, TELEPHONE], ids=["desk", "telephone"])
def test_axe_finds_nothing_serious(open_report, document, viewport, scheme):
    page = open_report(small(document), viewport=viewport, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    result = Axe().run(page)
    grave = [
        (found["id"], node["html"])
        for found in result["violations"]
        if found["impact"] in {"serious", "critical"}
        for node in found["nodes"]
    ]
    assert grave == []
    assert "color-contrast" in {passed["id"] for passed in result["passes"]}


def test_axe_would_find_text_that_is_too_pale(open_report, document):
    page = open_report(small(document))
    page.evaluate("document.querySelector('h1').style.color = '#ddd'")
    found = Axe().run(page, context="h1", options={"runOnly": ["color-contrast"]})["violations"]
    assert [one["id"] for one in found] == ["color-contrast"]


def test_tab_key_reaches_every_control_and_shows_where_it_is(open_report, document):
    page = open_report(small(document))
    controls = page.evaluate("document.querySelectorAll('a, summary').length")
    reached = []
    for _ in range(controls + 40):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "(() => { const one = document.activeElement; const style = getComputedStyle(one);"
                "return [one.tagName, one.textContent, style.outlineStyle, "
                "one.getBoundingClientRect().top >= 0]; })()"
            )
        )
        if reached[-1][0] == "BODY":
            break
    assert reached.pop()[0] == "BODY"
    assert reached[0][1] == "Skip to the answer"
    assert sum(tag in {"A", "SUMMARY"} for tag, *_ in reached) == controls
    assert [one for one in reached if one[2] == "none" or not one[3]] == []


def test_skip_link_leads_past_the_contents(open_report):
    page = open_report()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def current(page) -> str:
    page.wait_for_timeout(100)
    return page.locator("nav [aria-current]").text_content()


def test_contents_mark_the_section_being_read(open_report):
    page = open_report()
    assert current(page) == "The answer"
    page.evaluate("document.getElementById('section-2').scrollIntoView()")
    assert current(page) == "2. Gradients by depth"
    page.evaluate("window.scrollTo(0, document.documentElement.scrollHeight)")
    assert current(page) == "References"


def test_contents_stand_beside_the_text_on_wide_screens_and_are_folded_on_narrow_ones(open_report):
    wide = open_report()
    wide.evaluate("window.scrollTo(0, 3000)")
    box = wide.locator("nav.contents").bounding_box()
    assert box["y"] == 0
    assert box["x"] + box["width"] < wide.locator("main").bounding_box()["x"]
    narrow = open_report(viewport=TELEPHONE)
    assert not narrow.locator("nav.contents li").first.is_visible()
    narrow.locator("nav.contents summary").click()
    assert narrow.locator("nav.contents li").first.is_visible()


def test_page_without_scripts_is_complete(open_report, document):
    page = open_report(java_script_enabled=False)
    assert page.locator("nav.contents li").first.is_visible()
    for claim in document.sections[0].claims:
        assert page.get_by_role("heading", name=claim.heading, exact=True).is_visible()
    fold = page.locator("#section-1-claim-1 details")
    assert not fold.locator("dt").first.is_visible()
    fold.locator("summary").click()
    assert fold.locator("dt").first.is_visible()


def test_link_to_a_folded_table_opens_it(open_report, document):
    label = document.sections[1].tables[1].label
    page = open_report()
    place = page.locator(f"#{label.lower().replace(' ', '-')}")
    assert not place.is_visible()
    page.evaluate(f"window.location.hash = '{label.lower().replace(' ', '-')}'")
    assert place.is_visible()


def test_print_shows_what_is_folded_and_leaves_the_contents_out(open_report):
    page = open_report()
    fold = page.locator("#section-1-claim-1 details dt").first
    assert not fold.is_visible()
    page.emulate_media(media="print")
    assert fold.is_visible()
    assert fold.bounding_box()["height"] > 0
    assert not page.locator("nav.contents").is_visible()


def test_verdicts_have_a_word_and_a_sign_where_one_is_due(open_report):
    page = open_report()
    chips = page.locator(".chip").all_text_contents()
    assert set(chips) == {"yes (supported)", "no (contradicted)", "? can't tell (inconclusive)"}
