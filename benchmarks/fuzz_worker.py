"""Tries inputs in a process of its own, and goes on in another one where it dies or hangs."""

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
    """The results of the inputs `numbers`, in order; their processes have their files in `folder`.

    A process that dies, or that does not answer in four times the seconds of `limits`, has failed
    with the input that it had, and another one begins with the next.
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
    """Let all processes begin with `modules`, by their full names, imported once."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(modules))


class _Worker:
    """A process that tries inputs one after another, and may die of one."""

    def __init__(self, *arguments: object) -> None:
        context = multiprocessing.get_context("forkserver")
        self._from: Connection
        self._from, to = context.Pipe(duplex=False)
        self._process: BaseProcess = context.Process(target=work, args=(*arguments, to))
        self._process.start()
        to.close()

    def results(self, numbers: range, patience: float) -> Iterator[Result]:
        """The results, in order; the last one is the death or the end of the process."""
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
        """What the process sends, or how it died."""
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
