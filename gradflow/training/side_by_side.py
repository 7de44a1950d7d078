"""Trains several jobs at the same time, each in a process of its own."""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from gradflow.command_line.interrupts import (
    SHUTDOWN_SECONDS,
    Terminated,
    raise_on_termination_signals,
)
from gradflow.command_line.out_of_memory import reporting_out_of_memory
from gradflow.data import ImageData, Split
from gradflow.errors import GradflowError
from gradflow.training.job import Job
from gradflow.training.loop import EpochSummary, Progress

Result = TypeVar("Result")
Work = Callable[[Job, Progress], Result]


@dataclass(frozen=True)
class Failure:
    """Why a job has no result.

    Fields:
        reason: one sentence.
        trace: the traceback of an error that is none of gradflow's own; else empty.
    """

    reason: str
    trace: str = ""


def run_side_by_side(
    jobs: Sequence[Job],
    work: Work[Result],
    progress_of: Callable[[Job], Progress],
    processes: int,
) -> list[Result | Failure]:
    """The result of `work` for every job, or why there is none; at most `processes` at a time.

    A process computes with as many threads as this one, so that the results are those of jobs that
    run one after another. An error in one of them leaves the others alone. If this process is
    interrupted, all of them end in good order first.

    Args:
        jobs: each is sent to its process, with its images.
        work: a function of a module, since it is imported there.
        progress_of: makes a job's progress display, which is called in this process.
    """
    waiting = list(range(len(jobs)))[::-1]
    running: dict[Connection, _Child[Result]] = {}
    results: dict[int, Result | Failure] = {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                number = waiting.pop()
                child = _Child(number, jobs[number], work, progress_of(jobs[number]))
                running[child.connection] = child
            for connection in wait(list(running)):
                if not isinstance(connection, Connection):
                    continue
                child = running[connection]
                if not child.receive():
                    results[child.number] = child.result()
                    del running[connection]
    finally:
        _end(list(running.values()))
    return [results[number] for number in range(len(jobs))]


class _Child(Generic[Result]):
    """A process at work on one job, and its progress display in this process."""

    def __init__(self, number: int, job: Job, work: Work[Result], progress: Progress) -> None:
        self.number = number
        self._progress = progress
        self._outcome: Result | Failure | None = None
        # Spawned, since a fork would copy the threads and locks of torch in the state they are in.
        context = get_context("spawn")
        self.connection, theirs = context.Pipe(duplex=False)
        # As arrays: tensors would be put in shared memory, of which containers have little.
        others = {name: value for name, value in vars(job).items() if name not in _WITH_TENSORS}
        arrays = {name: _as_arrays(getattr(job, name)) for name in _WITH_TENSORS}
        self.process: BaseProcess = context.Process(
            target=_work,
            args=(theirs, work, others, arrays, torch.get_num_threads()),
            name=job.folder.name,
        )
        self.process.start()
        theirs.close()

    def receive(self) -> bool:
        """Show the next message of the process; False once it will send no more."""
        try:
            name, arguments = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            return False
        if name == "outcome":
            (self._outcome,) = arguments
        else:
            getattr(self._progress, name)(*arguments)
        return True

    def result(self) -> Result | Failure:
        """What the ended process sent last."""
        if self._outcome is None:
            return Failure(f"its process ended with the exit code {self.process.exitcode}")
        return self._outcome


def _end(children: Sequence[_Child[Result]]) -> None:
    """Ask the processes to end, wait until they have saved what they recorded, and end the rest."""
    try:
        for child in children:
            child.process.terminate()
        for child in children:
            child.process.join(SHUTDOWN_SECONDS)
    finally:
        for child in children:
            child.process.kill()
            child.process.join()


class _SentProgress:
    """Sends each call to the process that shows the progress."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def on_start(self, epoch: int) -> None:
        """See `Progress`."""
        self._connection.send(("on_start", (epoch,)))

    def on_steps_done(self, step: int, loss: float, accuracy: float) -> None:
        """See `Progress`."""
        self._connection.send(("on_steps_done", (step, loss, accuracy)))

    def on_epoch_end(self, summary: EpochSummary) -> None:
        """See `Progress`."""
        self._connection.send(("on_epoch_end", (summary,)))


_WITH_TENSORS = {"data": ImageData, "split": Split}


def _as_arrays(record: ImageData | Split) -> dict[str, Any]:
    return {
        name: value.numpy() if isinstance(value, Tensor) else value
        for name, value in vars(record).items()
    }


def _as_tensors(arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        for name, value in arrays.items()
    }


def _work(
    connection: Connection,
    work: Work[object],
    others: Mapping[str, Any],
    arrays: Mapping[str, Mapping[str, Any]],
    threads: int,
) -> None:
    """What a process does with the fields of its job."""
    # A terminal sends Ctrl-C to all processes at once: the one that shows the progress decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise_on_termination_signals()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    outcome: object
    try:
        records = {name: kind(**_as_tensors(arrays[name])) for name, kind in _WITH_TENSORS.items()}
        job = Job(**others, **records)
        with reporting_out_of_memory(lambda: ""):
            outcome = work(job, _SentProgress(connection))
    except GradflowError as error:
        outcome = Failure(str(error))
    except Terminated as request:
        sys.exit(request.status)
    except Exception as error:
        outcome = Failure(f"{type(error).__name__}: {error}", traceback.format_exc())
    connection.send(("outcome", (outcome,)))


def _end_with_parent() -> None:
    """Ask this process to end once the one that started it is gone, however it ended."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
