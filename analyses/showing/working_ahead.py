"""Does pieces of work in processes of their own, while this one goes on.

A process is forked when pieces wait and none works: it has the data of the pieces already, and
sends back results. Whoever is free, this process too, claims the next piece from a pipe that holds
a byte for each. Results do not depend on who makes them.
"""

import gc
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Self, TypeVar

Made = TypeVar("Made")
Piece = Callable[[], Any]

# More would wait for each other: a report has some thirty pieces, of a quarter of a second each.
_MOST_PROCESSES = 3
# In seconds. A forked process could wait for a lock that another thread held at the fork.
_LONGEST_WAIT = 120
# A claim is one byte.
_LARGEST_BATCH = 255
# New objects before the garbage collector looks for cycles. Figures are full of them, and by
# default it looks for them several times in each figure.
_OBJECTS_PER_COLLECTION = 200_000


class WorkAhead:
    """Does the pieces of work that `add` was given; use it as a context, which ends the processes.

    `processes` work beside this one; 0 does every piece when its result is asked for. A piece is a
    function without arguments whose result can be pickled.
    """

    def __init__(self, processes: int | None = None) -> None:
        self._processes = spare_processes() if processes is None else processes
        self._thresholds = gc.get_threshold()
        self._waiting: list[Piece] = []
        self._batch: list[Piece] = []
        self._claims = -1
        self._workers: dict[Connection, Any] = {}
        # By identity: a piece may hold data that cannot be compared. The piece is kept, so that no
        # other takes its identity.
        self._done: dict[int, tuple[Piece, Any]] = {}

    def add(self, pieces: Iterable[Piece]) -> None:
        """Do `pieces` as soon as a process is free."""
        if self._processes:
            self._waiting += pieces
            self._collect(0)
            self._start_if_free()

    def result(self, piece: Callable[[], Made]) -> Made:
        """What `piece` returns; does others while it waits. Raises what `piece` raises."""
        while id(piece) not in self._done and self._go_on():
            pass
        if id(piece) not in self._done:  # never added, failed elsewhere, or its process was killed
            self._do(piece)
        made: Made = self._done[id(piece)][1]
        return made

    def __enter__(self) -> Self:
        if self._processes:
            # What was loaded stays, here and in what is forked: nobody need look through it.
            gc.collect()
            gc.freeze()
            gc.set_threshold(_OBJECTS_PER_COLLECTION, *self._thresholds[1:])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()
        gc.set_threshold(*self._thresholds)

    def _go_on(self) -> bool:
        """Do one thing that brings the results nearer; return whether there was one."""
        self._collect(0)
        self._start_if_free()
        if (place := self._claim()) is not None:
            self._try(self._batch[place])
        elif self._waiting:
            self._try(self._waiting.pop())
        elif self._workers:
            if not self._collect(_LONGEST_WAIT):
                self._end()
        else:
            return False
        return True

    def _try(self, piece: Piece) -> None:
        # What fails is done again where its result is asked for, and fails there.
        with suppress(Exception):
            self._do(piece)

    def _do(self, piece: Piece) -> None:
        self._keep(piece, piece())

    def _keep(self, piece: Piece, made: Any) -> None:
        self._done[id(piece)] = (piece, made)

    def _start_if_free(self) -> None:
        if self._workers or not self._waiting or not self._processes:
            return
        if self._claims >= 0:
            os.close(self._claims)
        self._batch = self._waiting[:_LARGEST_BATCH]
        self._waiting = self._waiting[_LARGEST_BATCH:]
        self._claims, filled = os.pipe()
        # The last first: a report ends with its largest figures, which nobody should wait for.
        os.write(filled, bytes(reversed(range(len(self._batch)))))
        os.close(filled)
        try:
            for _ in range(min(self._processes, len(self._batch))):
                self._fork()
        except OSError:  # e.g. no memory is left for another process
            self._processes = 0

    def _fork(self) -> None:
        reading, writing = get_context("fork").Pipe(duplex=False)
        worker = get_context("fork").Process(
            target=_do_claimed, args=(self._batch, self._claims, writing), daemon=True
        )
        with warnings.catch_warnings():
            # Python warns of threads, such as those of numpy: no piece needs their locks.
            warnings.simplefilter("ignore", DeprecationWarning)
            worker.start()
        writing.close()  # so that the end of the process ends the pipe
        self._workers[reading] = worker

    def _claim(self) -> int | None:
        return _claim(self._claims) if self._claims >= 0 else None

    def _collect(self, seconds: float) -> bool:
        """Take the results that are there, after up to `seconds`; return whether any process
        sent one or ended."""
        ready = wait(list(self._workers), seconds) if self._workers else []
        for one in ready:
            assert isinstance(one, Connection)
            try:
                place, made = one.recv()
                self._keep(self._batch[place], made)
            except (EOFError, OSError):
                one.close()
                self._workers.pop(one).join()
        return bool(ready)

    def _end(self) -> None:
        """End the processes; what they have not done yet is done here when it is asked for."""
        for reading, worker in self._workers.items():
            worker.kill()
            worker.join()
            reading.close()
        self._workers.clear()
        if self._claims >= 0:
            os.close(self._claims)
        self._claims, self._processes = -1, 0


def spare_processes() -> int:
    """How many processes can work beside this one; 0 where forking is not safe."""
    if sys.platform != "linux":
        return 0
    return min(len(os.sched_getaffinity(0)) - 1, _MOST_PROCESSES)


def _claim(claims: int) -> int | None:
    """The next piece that nobody has claimed; None if all are."""
    read = os.read(claims, 1)
    return read[0] if read else None


def _do_claimed(pieces: list[Piece], claims: int, results: Connection) -> None:
    # The process that forked this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.freeze()
    gc.set_threshold(_OBJECTS_PER_COLLECTION)
    while (place := _claim(claims)) is not None:
        # What fails here is done again where its result is asked for, and fails there.
        with suppress(Exception):
            made = pieces[place]()
            try:
                results.send((place, made))
            except OSError:  # nobody waits for it any more
                return
