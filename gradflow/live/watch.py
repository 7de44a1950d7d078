"""Builds the report of a run anew as its epochs land, and serves it to pages that follow.

The folder is looked at every two seconds, at names and sizes alone. A rebuild reads everything from
the disk again, in this process, at low priority.
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
from gradflow.runs.reading.progress import Standing, files_of, standing_of
from reports.elements import Document
from reports.html.live import live_page, waiting_page

Files = frozenset[tuple[str, int, int]]

LOOK_EVERY = 2.0
# Who is told at the end to show the last page may be asleep in the background for a minute.
_FAREWELL = 75.0
# How long a browser that was just opened may take to ask for the first time.
_FIRST_QUESTION = 15.0
# How long the end is put off without a word.
_PATIENT = 5.0
_NICENESS = 10


def watch(
    folder: Path,
    rebuild: Callable[[], Document],
    *,
    port: int = 0,
    opened: bool = False,
    look_every: float = LOOK_EVERY,
) -> int:
    """Rebuild as epochs land in `folder` until all its runs have ended; returns the exit code.

    Args:
        folder: an experiment or single run; it need not be there yet.
        rebuild: writes the reports of `folder` and returns the document that they lay out.
        port: where the page is served on this machine; 0 takes a free port.
        opened: open the page in the browser.
        look_every: seconds from one look at the folder to the next.

    The code is 0, 1 where the last rebuild failed, 130 where an interrupt (Ctrl-C) ended it.

    Raises `ConfigurationError` where the port cannot be had.
    """
    waiting = waiting_page(folder.resolve().name)
    with PageServer(waiting.page, waiting.version, "waiting for the first epoch", port) as server:
        name = printable(str(folder))
        print(f"{server.address} shows the report of {name}, and follows it", flush=True)
        if opened:
            webbrowser.open(server.address)
        _step_back()
        follower = _Follower(folder, rebuild, server)
        try:
            while not follower.look():
                time.sleep(look_every)
            _see_off(server, expected=opened)
        except KeyboardInterrupt:
            print(f"interrupted: {follower.account}", file=sys.stderr)
            return 130
    return 1 if follower.failed else 0


@dataclass
class _Follower:
    """What is known of the folder, and when the report was last built of it.

    Fields:
        failed: whether the last rebuild failed.
    """

    folder: Path
    rebuild: Callable[[], Document]
    server: PageServer
    failed: bool = False
    _seen: Files | None = None
    _standing: Standing | None = None
    _built_of: Files | None = None
    _shown: Standing | None = None
    _not_before: float = 0.0
    _waiting_for: str = ""

    def look(self) -> bool:
        """Rebuild if there is reason to; whether nothing more is to come."""
        files = files_of(self.folder)
        if files != self._seen:
            self._standing = self._read()
            self._seen = files
        standing = self._standing
        if standing is None:
            return False
        if standing.ended and files == self._built_of:
            self.server.tell(self._told(standing), ended=True)
            return True
        if files != self._built_of and self._is_due(standing):
            self._built_of = files
            self._build(standing)
        return False

    @property
    def account(self) -> str:
        """How far the report goes that was built last."""
        if self._shown is None:
            return "no report was built"
        return f"the last report shows {self._shown.progress}"

    def _read(self) -> Standing | None:
        """How far the folder has got; None while there is nothing to report on."""
        try:
            standing = standing_of(self.folder)
        except RunError as error:
            reason = str(error)
        else:
            if standing.epochs or standing.ended:
                return standing
            reason = f"no epoch of {printable(str(self.folder))} has ended yet"
        if reason != self._waiting_for:
            self._waiting_for = reason
            print(f"waiting: {reason}", flush=True)
        return None

    def _is_due(self, standing: Standing) -> bool:
        """Whether an epoch has landed; tables that grow within an epoch wait for its end."""
        if standing.ended:
            return True
        landed = self._shown is None or standing.epochs != self._shown.epochs
        return landed and time.monotonic() >= self._not_before

    def _build(self, standing: Standing) -> None:
        start = time.monotonic()
        try:
            live = live_page(self.rebuild())
        except GradflowError as error:
            self._fail(f"error: {error}")
        except Exception:  # a defect at one epoch must not cost the reader the next
            self._fail(traceback.format_exc())
        else:
            self.failed, self._shown = False, standing
            self.server.publish(live.page, live.version, self._told(standing))
            line = f"{time.strftime('%H:%M:%S')}  {standing.progress}, {standing.outcome}"
            print(f"{line}  ({time.monotonic() - start:.1f} s)", flush=True)
        # Half of the time at most is spent on rebuilding, however fast the epochs come.
        end = time.monotonic()
        self._not_before = end + (end - start)

    def _fail(self, text: str) -> None:
        self.failed = True
        print(text, file=sys.stderr, flush=True)
        self.server.tell("the last rebuild failed: the terminal says why")

    def _told(self, standing: Standing) -> str:
        failed = "; the last rebuild failed: the terminal says why" if self.failed else ""
        return f"{standing.progress}; {standing.outcome}{failed}"


def _see_off(server: PageServer, *, expected: bool) -> None:
    """Serve on until every open page shows the last report; an `expected` one may yet be opened."""
    start = time.monotonic()
    told = False
    while True:
        waited = time.monotonic() - start
        coming = expected and not server.readers and waited < _FIRST_QUESTION
        if not coming and (not server.following or waited > _FAREWELL):
            return
        if waited > _PATIENT and not told:
            told = True
            print("training has ended; an open page has yet to show the last report", flush=True)
        time.sleep(0.1)


def _step_back() -> None:
    """Let the training, which may run on the same cores, go first."""
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
