"""Reports are rebuilt while a run is recorded, and open pages follow them."""

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from analyses.registry import Outcome
from analyses.result import AnalysisResult, Estimate, Finding, Table, Verdict
from gradflow import report
from gradflow.live import watch as watching
from gradflow.runs.format.schema import TABLES
from gradflow.runs.writing.run import ExperimentWriter, RunWriter
from reports.elements import Document
from reports.formats import parse_formats

PATIENCE = 20.0


def until(true: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until `true()` returns a true value, or fail."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def html_of(folder: Path) -> Document:
    """Do what the command does at each rebuild: write report.html and return its document."""
    return report.rebuilt(folder, parse_formats("html"), (), folder, "a4")


class Recording:
    """A run that a real writer records epoch by epoch, and the watch in a thread."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.code: int | None = None
        self.address = ""
        self.epoch = 0
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(
            watching, "_lower_priority", lambda: None
        )  # it would slow the other tests
        monkeypatch.setattr("reports.building.run_all", quick_outcomes)

    def start(self, **configuration: object) -> None:
        self.writer = RunWriter(
            self.folder,
            {"network": "plain18", "seed": 1, "created": "2025-05-03T14:05:09+00:00",
             "configuration": configuration},
        )  # fmt: skip

    def end_epoch(self) -> None:
        self.epoch += 1
        last = 10 * self.epoch - 1
        self.writer.append("epochs", {"epoch": [self.epoch], "step": [last]}, last - 9, last)

    def watch(self, rebuild: Callable[[], Document] | None = None, **options: object) -> None:
        rebuild = rebuild or (lambda: html_of(self.folder))
        made = watching.PageServer

        def remembered(*arguments):
            self.server = made(*arguments)
            self.address = self.server.address
            return self.server

        self._monkeypatch.setattr(watching, "PageServer", remembered)

        def run() -> None:
            self.code = watching.watch(self.folder, rebuild, poll_seconds=0.02, **options)

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()
        until(lambda: self.address)

    def ends_with(self, code: int) -> None:
        self.thread.join(PATIENCE)
        assert self.code == code

    def page(self) -> str:
        path = self.folder / "report.html"
        return path.read_text(encoding="utf-8") if path.exists() else ""


def quick_outcomes(experiment, *_) -> tuple[Outcome, ...]:
    """A finding about the epochs recorded so far, with much text around it."""
    epochs = len(experiment.runs[0].epochs)
    finding = Finding(
        key="epochs",
        network="plain18",
        hypothesis="Epochs are recorded",
        contradicted_by="none",
        verdict=Verdict.SUPPORTED,
        estimates=(Estimate("epochs", float(epochs)),),
        threshold="any",
        meaning=f"So far {epochs} are recorded.",
        next_step="Wait.",
    )
    table = Table("epochs", "The epochs", experiment.runs[0].epochs)
    result = AnalysisResult("Summary.", (finding,), (), (table,), "Counted. " * 400, ())
    return tuple(Outcome(f"count{n}", f"Count {n}", "How many?", result) for n in range(6))


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Returns everything printed so far."""
    parts: list[str] = []

    def so_far() -> str:
        parts.append(capsys.readouterr().out)
        return "".join(parts)

    return so_far


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recording:
    return Recording(tmp_path / "mine", monkeypatch)


def test_report_is_rebuilt_as_epochs_land_until_the_run_ends(recording, capsys):
    recording.start(epochs=3)
    recording.watch()
    for epoch in (1, 2, 3):
        recording.end_epoch()
        until(lambda epoch=epoch: f"So far {epoch} are recorded." in recording.page())
        assert "is still running" in recording.page()
    recording.writer.close("complete")
    recording.ends_with(0)
    assert "is still running" not in recording.page()
    lines = [line for line in capsys.readouterr().out.splitlines() if " s)" in line]
    assert [line.split("  ")[1] for line in lines] == [
        "epoch 1 of 3, training goes on",
        "epoch 2 of 3, training goes on",
        "epoch 3 of 3, training goes on",
        "epoch 3 of 3, training has ended",
    ]
    assert max(map(len, lines)) <= 80


def test_what_is_not_there_yet_is_waited_for_and_said_once(recording, printed):
    recording.watch()
    until(lambda: "there is no folder" in printed())
    recording.start()
    until(lambda: "has ended yet" in printed())
    assert recording.page() == ""
    recording.end_epoch()
    until(recording.page)
    recording.writer.close("complete")
    recording.ends_with(0)
    lines = printed().splitlines()
    assert [line for line in lines if line.startswith("waiting")] == [
        f"waiting: there is no folder {recording.folder}",
        f"waiting: no epoch of {recording.folder} has ended yet",
    ]


def test_the_name_of_what_is_followed_cannot_command_the_terminal(tmp_path, monkeypatch, printed):
    recording = Recording(tmp_path / "\x1b[31mred", monkeypatch)
    recording.watch()
    until(lambda: "there is no folder" in printed())
    recording.start()
    until(lambda: "has ended yet" in printed())
    recording.end_epoch()
    recording.writer.close("complete")
    recording.ends_with(0)
    assert r"\x1b[31mred" in printed()
    assert "\x1b" not in printed()


def test_experiment_is_followed_from_its_first_run_to_its_last(tmp_path, monkeypatch, printed):
    recording = Recording(tmp_path / "trial", monkeypatch)
    recording.watch()
    ExperimentWriter(tmp_path / "trial", {"runs": ["a", "b"]})
    until(lambda: "has no run yet" in printed())
    for name in ("a", "b"):
        writer = RunWriter(tmp_path / "trial" / name, {"network": name})
        writer.append("epochs", {"epoch": [1], "step": [9]}, 0, 9)
        until(lambda name=name: f"The run {name} is still running" in recording.page())
        writer.close("complete")
    recording.ends_with(0)


def test_epochs_that_come_faster_than_rebuilds_are_taken_together(recording):
    starts: list[float] = []

    def slow():
        starts.append(time.monotonic())
        time.sleep(0.2)
        return html_of(recording.folder)

    recording.start()
    recording.watch(slow)
    for _ in range(30):
        recording.end_epoch()
        time.sleep(0.03)
    recording.writer.close("complete")
    recording.ends_with(0)
    assert "So far 30 are recorded." in recording.page()
    assert 2 <= len(starts) < 30
    # Pauses are as long as rebuilds; only the last rebuild comes at once.
    assert all(later - start >= 0.4 for start, later in pairwise(starts[:-1]))


def test_tables_that_grow_within_an_epoch_wait_for_its_end(recording, printed):
    recording.start()
    recording.watch()
    recording.end_epoch()
    until(lambda: printed().count(" s)") == 1)
    recording.writer.append(
        "steps",
        {quantity.name: [None] for quantity in TABLES["steps"].columns}
        | {"epoch": [2], "step": [10], "skipped": [False]},
        10,
        14,
    )
    time.sleep(0.5)
    assert printed().count(" s)") == 1
    recording.writer.close("complete")
    recording.ends_with(0)


def test_damaged_part_is_named_and_read_once_it_is_whole(recording, printed):
    recording.start()
    recording.end_epoch()
    (part,) = (recording.folder / "epochs").iterdir()
    whole = part.read_bytes()
    part.write_bytes(whole[:50])  # as a copy over the network leaves it for a while
    recording.watch()
    until(lambda: f"waiting: the part {part} is damaged" in printed())
    part.write_bytes(whole)
    until(recording.page)
    recording.writer.close("complete")
    recording.ends_with(0)


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_run_that_breaks_off_during_a_rebuild_ends_the_watch(recording, status, capsys):
    def break_off():
        if recording.epoch == 1:
            recording.epoch += 1
            recording.writer.close(status)
        return html_of(recording.folder)

    recording.start()
    recording.end_epoch()
    recording.watch(break_off)
    recording.ends_with(0)
    assert {"interrupted": "was interrupted", "failed": "failed"}[status] in recording.page()
    assert capsys.readouterr().out.count(" s)") == 2


def test_bug_at_one_epoch_does_not_stop_later_reports(recording, capsys):
    def fails_at_first():
        if not failed.is_set():
            failed.set()
            raise ZeroDivisionError("a defect")
        return html_of(recording.folder)

    failed = threading.Event()
    recording.start()
    recording.end_epoch()
    recording.watch(fails_at_first)
    assert failed.wait(PATIENCE)
    recording.end_epoch()
    until(recording.page)
    recording.writer.close("complete")
    recording.ends_with(0)
    assert capsys.readouterr().err.count("ZeroDivisionError: a defect") == 1


def test_last_report_that_could_not_be_built_ends_with_1(recording, capsys):
    recording.start()
    (recording.folder / "report.html").mkdir()
    recording.end_epoch()
    recording.writer.close("complete")
    recording.watch()
    recording.ends_with(1)
    assert capsys.readouterr().err.startswith("error: the report ")


def test_same_bytes_lie_on_disk_as_without_the_watch(recording):
    recording.start()
    recording.end_epoch()
    recording.writer.close("complete")
    recording.watch()
    recording.ends_with(0)
    followed = (recording.folder / "report.html").read_bytes()
    assert b"connect-src" not in followed
    html_of(recording.folder)
    assert (recording.folder / "report.html").read_bytes() == followed


def test_open_page_follows_to_the_last_epoch_by_itself(recording, open_address):
    recording.watch()
    page = open_address(recording.address)
    assert "Waiting for the first epoch of mine" in page.inner_text("h1")
    page.wait_for_selector("#live :text('waiting for the first epoch')")
    recording.start(epochs=2)
    recording.end_epoch()
    page.wait_for_selector(":text('So far 1 are recorded.')")
    page.wait_for_selector("#live :text('epoch 1 of 2; training goes on')")
    page.wait_for_selector("#live .age:text-matches('^updated \\\\d+ s ago$')")
    recording.end_epoch()
    page.wait_for_selector(":text('So far 2 are recorded.')")
    recording.writer.close("complete")
    page.wait_for_selector("#live :text('epoch 2 of 2; training has ended')")
    # It stops asking; otherwise the end of the server would log an error on the console.
    recording.ends_with(0)
    time.sleep(1.3)
    assert page.inner_text("#live [role=status]") == "epoch 2 of 2; training has ended"


def test_address_is_opened_in_the_browser_where_asked_for(recording, monkeypatch):
    opened = []
    monkeypatch.setattr(watching.webbrowser, "open", opened.append)
    monkeypatch.setattr(watching, "_FIRST_REQUEST_SECONDS", 0.1)
    recording.start()
    recording.writer.close("complete")
    recording.watch(open_browser=True)
    recording.ends_with(0)
    assert opened == [recording.address]


def test_page_in_the_background_is_waited_for_at_the_end(recording, monkeypatch, printed):
    """A background page asks at most once a minute, and would otherwise miss the last report."""
    monkeypatch.setattr(watching, "_QUIET_SECONDS", 0.2)
    recording.start()
    recording.end_epoch()
    recording.watch()
    until(recording.page)
    recording.server.note_reader("background", "old", recording.server.served)
    recording.writer.close("complete")
    until(lambda: "an open page has yet to show the last report" in printed())
    assert recording.thread.is_alive()
    last = recording.server.served
    recording.server.note_reader("background", last.version, last)
    recording.ends_with(0)
