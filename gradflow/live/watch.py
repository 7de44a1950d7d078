"""Rebuilds the report of a run after each epoch, and serves it to open pages.

Every two seconds the names, sizes and times of the folder's files are checked. A rebuild reads all
data from the disk again, in this process, at low priority.
"""

import os
import sys
import time
import traceback
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gradflow.errors import GradflowError, RunError, printable
from gradflow.live.serve import PageServer
from gradflow.runs.reading.progress import Progress, progress_of, recorded_files
from reports.elements import Document
from reports.html.live import live_page, waiting_page

Files = frozenset[tuple[str, int, int]]

POLL_SECONDS = 2.0
# Wait so long for open pages to load the last report; a background page asks once a minute.
_LAST_PAGE_SECONDS = 75.0
# Wait so long for the first request of a browser that was just opened.
_FIRST_REQUEST_SECONDS = 15.0
# Wait so long at the end before printing why.
_QUIET_SECONDS = 5.0
_NICENESS = 10


def watch(
    folder: Path,
    rebuild: Callable[[], Document],
    *,
    port: int = 0,
    open_browser: bool = False,
    poll_seconds: float = POLL_SECONDS,
) -> int:
    """Rebuild the report after each epoch in `folder` until all runs have ended.

    Args:
        folder: an experiment or single run; it need not exist yet.
        rebuild: writes the reports of `folder` and returns their document.
        port: the port of this machine that serves the page; 0 takes a free one.
        open_browser: open the page in the browser.
        poll_seconds: seconds between two checks of the folder.

    Returns the exit code: 0, 1 if the last rebuild failed, 130 after an interrupt (Ctrl-C).

    Raises `ConfigurationError` if the port is not available.
    """
    waiting = waiting_page(folder.resolve().name)
    with PageServer(waiting.page, waiting.version, "waiting for the first epoch", port) as server:
        name = printable(str(folder))
        print(f"{server.address} shows the report of {name}, and follows it", flush=True)
        if open_browser:
            webbrowser.open(server.address)
        _lower_priority()
        follower = _Follower(folder, rebuild, server)
        try:
            while not follower.check():
                time.sleep(poll_seconds)
            _wait_for_open_pages(server, expected=open_browser)
        except KeyboardInterrupt:
            print(f"interrupted: {follower.last_report}", file=sys.stderr)
            return 130
    return 1 if follower.failed else 0


@dataclass
class _Follower:
    """Compares the folder with the last report, and rebuilds the report if it is due.

    Fields:
        failed: whether the last rebuild failed.
    """

    folder: Path
    rebuild: Callable[[], Document]
    server: PageServer
    failed: bool = False
    _seen: Files | None = None
    _progress: Progress | None = None
    _built_of: Files | None = None
    _shown: Progress | None = None
    _not_before: float = 0.0
    _waiting_for: str = ""

    def check(self) -> bool:
        """Rebuild if an epoch has ended; returns whether training and report are finished."""
        files = recorded_files(self.folder)
        if files != self._seen:
            self._progress = self._read()
            self._seen = files
        progress = self._progress
        if progress is None:
            return False
        if progress.ended and files == self._built_of:
            self.server.set_status(self._status_text(progress), ended=True)
            return True
        if files != self._built_of and self._is_due(progress):
            self._built_of = files
            self._build(progress)
        return False

    @property
    def last_report(self) -> str:
        """The progress that the last report shows, as a sentence."""
        if self._shown is None:
            return "no report was built"
        return f"the last report shows {self._shown.epochs_text}"

    def _read(self) -> Progress | None:
        """The progress of the folder; None while there is nothing to report on."""
        try:
            progress = progress_of(self.folder)
        except RunError as error:
            reason = str(error)
        else:
            if progress.epochs or progress.ended:
                return progress
            reason = f"no epoch of {printable(str(self.folder))} has ended yet"
        if reason != self._waiting_for:
            self._waiting_for = reason
            print(f"waiting: {reason}", flush=True)
        return None

    def _is_due(self, progress: Progress) -> bool:
        """Whether an epoch has ended since the last report; a rebuild waits for the end of one."""
        if progress.ended:
            return True
        new_epoch = self._shown is None or progress.epochs != self._shown.epochs
        return new_epoch and time.monotonic() >= self._not_before

    def _build(self, progress: Progress) -> None:
        start = time.monotonic()
        try:
            live = live_page(self.rebuild())
        except GradflowError as error:
            self._fail(f"error: {error}")
        except Exception:  # a bug at one epoch must not stop later reports
            self._fail(traceback.format_exc())
        else:
            self.failed, self._shown = False, progress
            self.server.publish(live.page, live.version, self._status_text(progress))
            line = f"{time.strftime('%H:%M:%S')}  {progress.epochs_text}, {progress.outcome}"
            print(f"{line}  ({time.monotonic() - start:.1f} s)", flush=True)
        # Rebuilding takes at most half of the time, however fast the epochs are.
        end = time.monotonic()
        self._not_before = end + (end - start)

    def _fail(self, text: str) -> None:
        self.failed = True
        print(text, file=sys.stderr, flush=True)
        self.server.set_status("the last rebuild failed: the terminal says why")

    def _status_text(self, progress: Progress) -> str:
        failed = "; the last rebuild failed: the terminal says why" if self.failed else ""
        return f"{progress.epochs_text}; {progress.outcome}{failed}"


def _wait_for_open_pages(server: PageServer, *, expected: bool) -> None:
    """Serve until every open page shows the last report; if `expected`, wait for one to open."""
    start = time.monotonic()
    announced = False
    while True:
        waited = time.monotonic() - start
        coming = expected and not server.open_pages and waited < _FIRST_REQUEST_SECONDS
        if not coming and (not server.outdated_pages or waited > _LAST_PAGE_SECONDS):
            return
        if waited > _QUIET_SECONDS and not announced:
            announced = True
            print("training has ended; an open page has yet to show the last report", flush=True)
        time.sleep(0.1)


def _lower_priority() -> None:
    """Give priority to the training, which may run on the same cores."""
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
