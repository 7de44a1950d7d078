"""The built site is whole, fetches nothing from elsewhere, and its search works without a network.

Looks through what `python docs/build.py --quick` built, as `.ci/run` does before the tests.
"""

import os
import re
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import unquote, urldefrag

import pytest
from axe_core_python.sync_playwright import Axe

import gradflow
from analyses.health.conditions import CONDITIONS
from analyses.registry import built_in
from gradflow.probes.registry import PROBE_NAMES
from gradflow.runs.format.schema import TABLES

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

SITE = Path(__file__).parents[2] / "docs" / "_build" / "quick"
# The whole reports have tests of their own.
REPORTS = {"gallery/digits.html", "gallery/makanan-96.html"}
FETCHED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=[\"']([^\"']+)", re.I)
LINK = re.compile(r"<(?:a|link|script|img)\b[^>]*?(?:src|href)=\"([^\"]+)\"", re.IGNORECASE)
IMPORT = re.compile(r"(?:@import|url\()\s*[\"']?(https?:)?//")


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """The text of every page by its path in the site."""
    if not (SITE / "index.html").exists():
        if os.environ.get("CI"):
            pytest.fail("the site is not built: run `python docs/build.py --quick` first")
        pytest.skip("build the site with `python docs/build.py --quick` to test it")
    paths = {path.relative_to(SITE).as_posix(): path for path in SITE.rglob("*.html")}
    return {
        name: path.read_text(encoding="utf-8")
        for name, path in paths.items()
        if name not in REPORTS and not name.startswith("_static/")
    }


def test_no_page_fetches_anything_from_elsewhere(pages):
    fetched = {
        (name, source)
        for name, text in pages.items()
        for source in FETCHED.findall(text)
        if re.match(r"(https?:)?//", source)
    }
    assert fetched == set()
    styles = {path.name: path.read_text(encoding="utf-8") for path in SITE.rglob("*.css")}
    assert [name for name, text in styles.items() if IMPORT.search(text)] == []


def test_every_link_within_the_site_has_its_end(pages):
    ids = {name: set(re.findall(r"\bid=\"([^\"]+)\"", text)) for name, text in pages.items()}
    dangling = set()
    for name, text in pages.items():
        for link in set(LINK.findall(text)):
            if re.match(r"[a-z]+:|//", link):
                continue
            path, anchor = urldefrag(unquote(link))
            target = (SITE / name).parent / path.partition("?")[0] if path else SITE / name
            place = Path(os.path.normpath(target)).relative_to(SITE).as_posix()
            known = place in pages or (SITE / place).is_file()
            if not known or (anchor and place in ids and anchor not in ids[place]):
                dangling.add((name, link))
    assert dangling == set()


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        ("conditions", set(CONDITIONS)),
        ("reference/analyses", {one.key for one in built_in()}),
        ("reference/probes", set(PROBE_NAMES)),
        (
            "reference/quantities",
            {one.name for table in TABLES.values() for one in table.quantities},
        ),
        ("reference/api", set(gradflow.__all__) - {"__version__"}),
    ],
)
def test_each_has_a_page(pages, folder, names):
    assert names
    assert {name for name in names if f"{folder}/{name}.html" not in pages} == set()


def test_pictures_of_imports_are_drawn(pages):
    text = pages["explanation/architecture.html"]
    assert "flowchart TD" not in text
    source = (SITE.parents[1] / "explanation" / "architecture.md").read_text(encoding="utf-8")
    assert text.count('<div class="imports"><svg') == source.count("```mermaid") > 0
    arrows = [line.split(" --> ")[1] for line in source.splitlines() if " --> " in line]
    targets = sum(len(targets.split(" & ")) for targets in arrows)
    assert text.count('marker-end="url(#head)"') == targets


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(pages) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(SITE)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def open_site(browser, address, keep_screenshots):
    """Opens a page of the site; a request to elsewhere, or an error of a script, fails the test."""
    noticed: list[str] = []
    contexts = []

    def reach(route: "Route") -> None:
        if route.request.url.startswith(address):
            route.continue_()
        else:
            noticed.append(route.request.url)
            route.abort()

    def open_page_of_site(path: str, **options: object) -> "Page":
        contexts.append(browser.new_context(**options))
        contexts[-1].route("**/*", reach)
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: noticed.append(str(error)))
        page.on("requestfailed", lambda request: noticed.append(request.url))
        page.goto(address + path)
        return page

    yield open_page_of_site
    keep_screenshots(contexts)
    for context in contexts:
        context.close()
    assert noticed == []


def test_the_front_page_fits_a_phone_and_begins_with_the_readers_model(open_site):
    page = open_site("index.html", viewport={"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert "gradflow.Tracer(model" in page.locator("pre").first.inner_text()
    assert page.evaluate("document.querySelector('img.finding').naturalWidth") > 400


@pytest.mark.parametrize(
    ("path", "width", "scheme"),
    [
        ("index.html", 400, "dark"),
        pytest.param("pictures/index.html", 1280, "light", marks=pytest.mark.slow),
        ("reference/api/report.html", 1280, "dark"),
        ("reference/analyses/lesions.html", 400, "light"),
    ],
)
def test_axe_finds_nothing_serious_and_the_page_fits(open_site, path, width, scheme):
    page = open_site(path, viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    violations = Axe().run(page)["violations"]
    grave = [one for one in violations if one["impact"] in {"serious", "critical"}]
    assert [(one["id"], one["nodes"][0]["html"]) for one in grave] == []


def test_the_search_works_from_the_disk(pages, browser):
    page = browser.new_page()
    failed: list[str] = []
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.goto(f"{(SITE / 'search.html').as_uri()}?q=overshooting")
    page.wait_for_selector("#search-results li a")
    found = page.locator("#search-results li a").evaluate_all("all => all.map(one => one.href)")
    assert any(link.partition("?")[0].endswith("conditions/overshooting.html") for link in found)
    page.close()
    assert failed == []


def test_each_analysis_that_draws_shows_a_figure_on_its_page(pages):
    without = {
        one.key
        for one in built_in()
        if 'class="dark-light finding-of"' not in pages[f"reference/analyses/{one.key}.html"]
    }
    assert without == {"first_divergence"}  # it answers without a figure


def test_versions_are_those_of_the_changelog(pages):
    changelog = (SITE.parents[2] / "CHANGELOG.md").read_text(encoding="utf-8")
    text = pages["about/versions.html"]
    for heading in re.findall(r"^## (.+)$", changelog, re.MULTILINE):
        name = gradflow.__version__ if heading == "Unreleased" else heading
        assert f"{name}" in text.partition("All versions")[2]
    assert f'about/versions.html" title="Versions">{gradflow.__version__}<' in pages["search.html"]


def test_the_search_finds_without_a_network(open_site):
    page = open_site("search.html?q=overshooting")
    page.wait_for_selector("#search-results li a")
    found = page.locator("#search-results li a").evaluate_all("all => all.map(one => one.href)")
    assert any("conditions/overshooting.html" in link for link in found)
