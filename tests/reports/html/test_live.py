"""The live page: its version, its policy, and the script that reloads it."""

import re
from collections.abc import Iterator

import pytest

from gradflow.live.serve import PageServer
from reports.document.builder import build_document
from reports.html.live import live_page, waiting_page
from reports.html.renderer import render_html
from reports.html.scripts import read_script


@pytest.fixture(scope="module")
def document(experiment, outcomes):
    return build_document(experiment, outcomes[:1])


@pytest.fixture
def server() -> Iterator[PageServer]:
    with PageServer(b"", "", "") as running:
        yield running


def test_page_in_a_file_makes_no_requests(document):
    page = render_html(document)
    assert b"connect-src" not in page
    assert b'id="live"' not in page
    assert read_script("live.js").encode() not in page


def test_served_page_may_ask_its_own_server_alone(document):
    page = live_page(document).page.decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert "connect-src &#39;self&#39;;" in policy
    assert "default-src &#39;none&#39;" in policy
    assert read_script("live.js") in page


def test_version_is_a_hash_of_the_content(document, experiment):
    first, again = live_page(document), live_page(document)
    assert first == again
    assert f'data-version="{first.version}"'.encode() in first.page
    assert re.fullmatch("[0-9a-f]{16}", first.version)
    assert live_page(build_document(experiment, ())).version != first.version


def test_hostile_folder_is_escaped_on_the_page_that_waits(server, open_address):
    name = "<script>alert(1)</script>{{ 7 * 7 }}\"'& Größe"
    page = waiting_page(name)
    server.publish(page.page, page.version, name)
    opened = open_address(server.address)
    assert opened.inner_text("h1") == f"Waiting for the first epoch of {name}"
    opened.wait_for_selector("#live [role=status]:not(:empty)")
    assert opened.inner_text("#live [role=status]") == name


def test_whole_report_updates_without_console_errors(server, open_address, document, experiment):
    first, second = live_page(document), live_page(build_document(experiment, ()))
    server.publish(first.page, first.version, "epoch 1 of 2; training goes on")
    page = open_address(server.address)
    page.wait_for_selector("#live :text('epoch 1 of 2; training goes on')")
    server.publish(second.page, second.version, "epoch 2 of 2; training goes on")
    page.wait_for_selector("#live :text('epoch 2 of 2; training goes on')")
    assert page.get_attribute("#live", "data-version") == second.version


def page_with_controls(version: str, more: int = 0) -> bytes:
    """A page with content to scroll, open, set and focus, below `more` extra lines."""
    lines = "<p>A line.</p>" * 40
    return f"""<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{version}</title>
        <link rel="icon" href="data:,"><style>html {{ scroll-behavior: smooth }}</style></head>
        <body>
        <main><section id="first"><h2>First</h2>{"<p>More.</p>" * more}{lines}
        <details><summary>One</summary><p>1</p></details>
        <details><summary>Two</summary><p>2</p></details></section>
        <section id="second"><h2>Second</h2>{lines}<a href="#first">up</a>
        <input type="range" name="epoch" min="1" max="9" value="3"><input type="checkbox">
        <output></output></section>{lines}</main>
        <aside id="live" data-version="{version}"><p role="status"></p><p class="age"></p></aside>
        <script>document.querySelector("[name=epoch]").addEventListener("input", (event) => {{
        document.querySelector("output").textContent = event.target.value; }});</script>
        <script>{read_script("live.js")}</script></body></html>""".encode()


def test_reader_keeps_place_focus_and_settings(server, open_address):
    server.publish(page_with_controls("a"), "a", "epoch 1")
    page = open_address(server.address + "#second")
    page.wait_for_selector("#live :text('epoch 1')")
    page.click("summary:text('Two')")
    page.fill("[name=epoch]", "7")
    page.check("[type=checkbox]")
    page.evaluate("document.querySelector('a').focus({ preventScroll: true })")
    # Wait until the smooth scrolling to the fragment and the clicked element has ended.
    page.evaluate(
        """async () => {
            for (let rest = 0, last; rest < 10; last = scrollY) {
                await new Promise(requestAnimationFrame);
                rest = scrollY === last ? rest + 1 : 0;
            }
            const heading = document.querySelector("#second h2").getBoundingClientRect().top;
            scrollBy({ top: heading - 50, behavior: "instant" });
        }"""
    )
    server.publish(page_with_controls("b", more=25), "b", "epoch 2")
    page.wait_for_selector("#live :text('epoch 2')")
    assert page.title() == "b"
    state = page.evaluate(
        """() => ({
            top: Math.round(document.querySelector("#second h2").getBoundingClientRect().top),
            open: [...document.querySelectorAll("details")].map((one) => one.open),
            focused: document.activeElement.textContent, hash: location.hash,
            epoch: document.querySelector("[name=epoch]").value,
            heard: document.querySelector("output").textContent,
            checked: document.querySelector("[type=checkbox]").checked,
        })"""
    )
    assert state == {
        "top": 50, "open": [False, True], "focused": "up", "hash": "#second", "epoch": "7",
        "heard": "7", "checked": True,
    }  # fmt: skip


def test_page_does_not_reload_while_the_pointer_is_pressed(server, open_address):
    server.publish(page_with_controls("a"), "a", "epoch 1")
    page = open_address(server.address)
    page.wait_for_selector("#live :text('epoch 1')")
    page.mouse.move(100, 100)
    page.mouse.down()
    server.publish(page_with_controls("b"), "b", "epoch 2")
    page.wait_for_timeout(1300)
    assert page.title() == "a"
    page.mouse.up()
    page.wait_for_selector("#live :text('epoch 2')")


def test_stopped_server_is_reported_and_no_longer_asked(browser):
    """Uses its own page, because the failed connection appears on the console."""
    context = browser.new_context()
    page = context.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    with PageServer(page_with_controls("a"), "a", "epoch 1") as server:
        page.goto(server.address)
        page.wait_for_selector("#live :text('epoch 1')")
    page.wait_for_selector("#live.gone :text('the program that served this page has stopped')")
    before = len(asked)
    page.wait_for_timeout(1300)
    assert len(asked) == before
    assert page.title() == "a"
    context.close()
