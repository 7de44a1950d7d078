"""Tries inputs in a separate process, and starts another process if it dies or hangs."""

import multiprocessing
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from fuzz_trial import Limits, Make, Result, log_of, work

_START = 120  # seconds
_SAID = 400  # letters of what a process that dies says


def try_all(
    surface: str, make: Make, seed: int, numbers: range, folder: Path, limits: Limits
) -> Iterator[Result]:
    """The results of the inputs `numbers`, in order; the processes keep their files in `folder`.

    If a process dies, or does not answer within four times the seconds of `limits`, its input has
    failed, and another process continues with the next input.
    """
    while numbers:
        base = Path(tempfile.mkdtemp(prefix=f"{surface}-", dir=folder))
        with _Worker(surface, make, seed, numbers, base, limits) as worker:
            for result in worker.results(numbers, 4 * limits.seconds):
                said = "" if result.words else log_of(base).read_text(errors="replace")[-_SAID:]
                yield replace(result, reason=result.reason + said)
                numbers = numbers[1:]
        shutil.rmtree(base)
        log_of(base).unlink()


def load_beforehand(modules: Sequence[str]) -> None:
    """Import `modules`, given by their full names, once before any process starts."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(modules))


class _Worker:
    """A process that tries inputs one after another, and that an input may kill."""

    def __init__(self, *arguments: object) -> None:
        context = multiprocessing.get_context("forkserver")
        self._from: Connection
        self._from, to = context.Pipe(duplex=False)
        self._process: BaseProcess = context.Process(target=work, args=(*arguments, to))
        self._process.start()
        to.close()

    def results(self, numbers: range, patience: float) -> Iterator[Result]:
        """The results in order; the last one says how the process died or that it ended."""
        ready = self._receive(_START)
        if isinstance(ready, str):
            raise RuntimeError(f"no input could be tried: {ready}")
        for number in numbers:
            answer = self._receive(patience)
            if isinstance(answer, Result):
                yield answer
            else:
                yield Result(number, "failed", f"{answer} ")
                return

    def _receive(self, patience: float) -> Result | str | None:
        """The next message of the process, or how it died."""
        try:
            if self._from.poll(patience):
                answer: Result | None = self._from.recv()
                return answer
        except EOFError:
            self._process.join()
            return f"the process died with status {self._process.exitcode}"
        self._process.kill()
        return f"the process hung for {patience:.0f} s"

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
