"""What every test may use."""

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker for each processor: threads of theirs would only wait for each other. Before numpy.
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import matplotlib as mpl
import pytest
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Route

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background so, and commands started here would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

mpl.use("Agg")
AT_THE_START = {
    getattr(signal, name): signal.getsignal(getattr(signal, name))
    for name in ("SIGTERM", "SIGHUP")
    if hasattr(signal, name)
}
FAULTS = "tests/faults/"


@pytest.fixture(autouse=True)
def _termination_signals_are_put_back() -> Iterator[None]:
    """A command that ran in this process has its own handlers, which later tests must not meet."""
    yield
    for number, handler in AT_THE_START.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _stance_is_put_back() -> Iterator[None]:
    """A tracer lets compiled code run uncompiled in recorded steps, and must not leave it so."""
    yield
    if "torch._dynamo" in sys.modules:
        eval_frame = sys.modules["torch._dynamo.eval_frame"]
        assert eval_frame._stance.stance == "default"


class ByModule(LoadScopeScheduling):
    """Gives a worker whole modules, whose fixtures are then made once.

    The tests of faults, which share a long training, go to one worker. Modules come in the order of
    collection, in which the longest are not the last.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return FAULTS if module.startswith(FAULTS) else module


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByModule:
    config.option.loadscopereorder = False
    return ByModule(config, log)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Small models run faster on one thread, and their sums come out the same each time."""
    try:
        import torch  # noqa: PLC0415 - the tests of the laptop side must not need it
    except ImportError:
        return
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """Headless Chromium; without one the test is skipped, but never in CI."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - few tests need it

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None and not os.environ.get("CI"):
        pytest.skip("no chromium on this machine: install it to test the page in a browser")
    with sync_playwright() as playwright:
        # As root, as in most containers, Chromium starts only without its sandbox.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def keep_screenshots(
    request: pytest.FixtureRequest,
) -> "Callable[[Sequence[BrowserContext]], None]":
    """Keeps what every page last showed, in the folder that `SCREENSHOTS` names, if it does."""

    def keep(contexts: "Sequence[BrowserContext]") -> None:
        if "SCREENSHOTS" not in os.environ:
            return
        name = re.sub(r"[^\w-]+", "-", request.node.name)
        for number, page in enumerate(page for context in contexts for page in context.pages):
            page.screenshot(path=Path(os.environ["SCREENSHOTS"]) / f"{name}-{number}.png")

    return keep


@pytest.fixture
def open_page(
    browser: "Browser", keep_screenshots: "Callable[[Sequence[BrowserContext]], None]"
) -> "Iterator[Callable[..., Page]]":
    """Opens a file as a page with the network cut off; any complaint or request fails the test.

    Keyword arguments are those of a browser context, such as `viewport` and `color_scheme`.
    """
    noticed: list[str] = []
    own: set[str] = set()
    contexts = []

    def open_file(path: Path, **options: object) -> "Page":
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: noticed.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: noticed.append(f"error: {error}"))
        page.on("request", lambda request: noticed.append(f"request: {request.url[:200]}"))
        own.add(f"request: {path.resolve().as_uri()}")
        page.goto(path.resolve().as_uri())
        return page

    yield open_file
    keep_screenshots(contexts)
    for context in contexts:
        context.close()
    outside = [
        one
        for one in noticed
        # A query such as `?tour` is the page's own.
        if one.partition("?")[0] not in own and not one.startswith("request: data:")
    ]
    assert outside == []


@pytest.fixture
def open_address(
    browser: "Browser", keep_screenshots: "Callable[[Sequence[BrowserContext]], None]"
) -> "Iterator[Callable[..., Page]]":
    """Opens an address of this machine as a page that reaches its own server and nothing else.

    Any complaint, and any request to elsewhere, fails the test. Keyword arguments are those of a
    browser context.
    """
    noticed: list[str] = []
    contexts = []

    def open_server(address: str, **options: object) -> "Page":
        context = browser.new_context(**options)
        contexts.append(context)
        own, _, _ = address.partition("#")

        def reach(route: "Route") -> None:
            if route.request.url.startswith(own):
                route.continue_()
            else:
                noticed.append(f"request: {route.request.url[:200]}")
                route.abort()

        context.route("http**/*", reach)
        page = context.new_page()
        page.on("console", lambda message: noticed.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: noticed.append(f"error: {error}"))
        page.goto(address)
        return page

    yield open_server
    keep_screenshots(contexts)
    for context in contexts:
        context.close()
    assert noticed == []
