"""Measures the size of the page with the explorer, and how soon it can be used in Chromium.

    python benchmarks/explorer_speed.py --layers 200 --epochs 200

Records an experiment of two networks by three seeds with made-up values, builds its whole report
and opens the page without a network connection. It measures the seconds from the start of the
navigation until all four charts are drawn, and from a click on a cell until the history of its
layer is drawn. It also measures for how many seconds the page's thread ran until the charts were
drawn; this does not depend on other work of the machine. Values are medians. Columns: layers,
epochs, seeds, all sections, page, values in it, building the explorer, charts drawn, seconds the
thread ran, click answered.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import matplotlib as mpl
from playwright.sync_api import Browser, sync_playwright
from recorded_experiment import Size, record

mpl.use("Agg")

from analyses.registry import run_all
from gradflow.runs.reading.run import open_experiment
from reports.document.builder import build_document
from reports.explorer.builder import build_explorer
from reports.html.renderer import render_html

DRAWN = "#explorer-body[aria-busy=false]"
# The time at which everything is drawn, on the clock that starts with the navigation.
WATCH = """selector => new Promise(resolve => {
  const look = () => document.querySelector(selector)
    ? resolve(performance.now()) : requestAnimationFrame(look);
  look();
})"""


def seconds_until_usable(browser: Browser, page_file: Path) -> tuple[float, float, float]:
    """Seconds until the charts are drawn, seconds the thread ran, seconds to answer a click."""
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    meter = context.new_cdp_session(page)
    # Seconds for which the page's thread ran, whatever else the machine was doing.
    meter.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(page_file.resolve().as_uri(), wait_until="commit")
    drawn = page.evaluate(WATCH, DRAWN)
    metrics = meter.send("Performance.getMetrics")["metrics"]
    busy = next(one["value"] for one in metrics if one["name"] == "TaskDuration")
    canvas = page.locator("#explorer-maps canvas").first
    canvas.scroll_into_view_if_needed()
    canvas.evaluate(
        "canvas => canvas.addEventListener('click', () => { window.clicked = performance.now(); })"
    )
    before = page.locator("#explorer-readout").inner_text()
    canvas.click(position={"x": 200, "y": 100})
    answered = page.evaluate(WATCH, DRAWN)
    if page.locator("#explorer-readout").inner_text() == before:
        raise RuntimeError("the click on the heat map was not answered")
    clicked = page.evaluate("window.clicked")
    context.close()
    return drawn / 1000, busy, (answered - clicked) / 1000


def main() -> None:
    """Print one row of figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--openings", type=int, default=7)
    parser.add_argument("--analyses", action="store_true", help="with every section of the report")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "experiment"
        size = Size(options.layers, options.epochs)
        record(folder, ["plain", "resnet"], range(options.seeds), size)
        experiment = open_experiment(folder)
        outcomes = run_all(experiment) if options.analyses else ()
        start = time.perf_counter()
        part = build_explorer(experiment)
        built = time.perf_counter() - start
        page = Path(temporary) / "report.html"
        page.write_bytes(render_html(build_document(experiment, outcomes)))
        with sync_playwright() as playwright:
            chromium = shutil.which("chromium") or shutil.which("chromium-browser")
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            times = [seconds_until_usable(browser, page) for _ in range(options.openings)]
            browser.close()
        drawn, busy, answered = (statistics.median(column) for column in zip(*times, strict=True))
        values = len(part.data) / 1e6 if part else 0.0
        print(
            f"| {options.layers} | {options.epochs} | {options.seeds} | "
            f"{'yes' if outcomes else 'no'} | {page.stat().st_size / 1e6:.1f} MB | "
            f"{values:.1f} MB | {built:.1f} s | {drawn:.2f} s | {busy:.2f} s | {answered:.2f} s |"
        )


if __name__ == "__main__":
    main()
