"""Trains in a separate process, and kills it or makes its writing fail at a chosen moment.

The processes are forked from one that has loaded all modules but run nothing, so each starts fast.
A *moment* is a point in the writing of a run. Moments are the fault points of
`gradflow.runs.format.files`, and the events that Python reports to audit hooks: a file of the
experiment is opened for writing, renamed or removed, or a folder is made. They are counted from 1.
"""

import errno
import functools
import itertools
import json
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch

from gradflow.runs.format import manifest
from gradflow.runs.writing import merging
from gradflow.runs.writing import run as writer
from gradflow.train_and_trace import main
from gradflow.training import loop

_EVENTS = {"open": "open", "os.rename": "rename", "os.remove": "remove", "os.mkdir": "mkdir"}
# What a full disk still does, and what no system call stands behind.
_NEEDS_NO_SPACE = ("rename", "remove", "renamed")
_NO_SYSTEM_CALL = ("merged",)


@dataclass(frozen=True)
class Fault:
    """A fault at the `at`-th moment.

    Fields:
        kind: `kill`: SIGKILL. `torn`: SIGKILL while the `at`-th line of a manifest is half written.
            `ENOSPC`, `EIO`: the system call fails with this error. `memory`: PyTorch finds no
            memory for the `at`-th validation.
        lasting: whether all later calls fail as well.
    """

    kind: Literal["kill", "torn", "ENOSPC", "EIO", "memory"]
    at: int
    lasting: bool = False


@dataclass(frozen=True)
class Circumstances:
    """The conditions under which a training runs.

    Fields:
        fault: the fault to inject; None for no fault.
        merged_at_once: number of parts that are merged into one; with 2 even a short run merges.
        hours_back: the clock is this many hours behind, and goes back one more hour each time it is
            read; None for a normal clock.
        address_space: how many more bytes of memory the process may map.
        moments: the JSON file for the names of all moments.
    """

    fault: Fault | None = None
    merged_at_once: int = merging.PARTS_PER_MERGE
    hours_back: int | None = None
    address_space: int | None = None
    moments: Path | None = None


@dataclass
class Training:
    """A training that runs in another process.

    Fields:
        process: the process.
        log: the file of its standard output and error.
        began: a connection that receives a message when the command begins.
    """

    process: BaseProcess
    log: Path
    began: Connection = field(repr=False)

    def wait(self) -> int:
        """Wait for the end and return the exit status; negative if a signal ended the process."""
        self.process.join(300)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(f"a training did not end; its output is in {self.log}")
        return self.process.exitcode

    def kill_after(self, seconds: float) -> int:
        """Let it run for `seconds`, then kill it; return the exit status."""
        self.began.recv()
        self.process.join(seconds)
        self.process.kill()
        return self.wait()

    @property
    def errors(self) -> str:
        """The text that it has written to standard error so far."""
        return self.log.with_suffix(".err").read_text()


def start(
    arguments: Sequence[str], folder: Path, log: Path, circumstances: Circumstances | None = None
) -> Training:
    """Start `python -m gradflow.train_and_trace` with `arguments`; it writes into `folder`."""
    context = multiprocessing.get_context("forkserver")
    # By their full names: the server knows no more folders than those of installed packages.
    context.set_forkserver_preload(
        ["gradflow.train_and_trace", "gradflow.runs.reading.run", "pytest"]
    )
    began, begins = context.Pipe(duplex=False)
    process = context.Process(
        target=_train,
        args=(list(arguments), folder, log, circumstances or Circumstances(), begins),
        daemon=True,
    )
    process.start()
    begins.close()
    return Training(process, log, began)


def _train(
    arguments: list[str],
    folder: Path,
    log: Path,
    circumstances: Circumstances,
    begins: Connection,
) -> NoReturn:
    for suffix, descriptor in ((".out", 1), (".err", 2)):
        opened = os.open(log.with_suffix(suffix), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, descriptor)
    # The server's were replaced before these were opened, or closed.
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    torch.set_num_threads(1)
    merging.PARTS_PER_MERGE = circumstances.merged_at_once
    if circumstances.hours_back is not None:
        _turn_the_clock_back(circumstances.hours_back)
    if circumstances.address_space is not None:
        limit = _mapped() + circumstances.address_space
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    moments = _Moments(folder, circumstances.fault)
    moments.watch()
    begins.send(None)
    status = main(arguments)
    moments.armed = False
    if circumstances.moments is not None:
        circumstances.moments.write_text(json.dumps(moments.names))
    sys.exit(status)


class _Moments:
    """Counts the moments of this process, and injects the fault at the chosen moment."""

    def __init__(self, folder: Path, fault: Fault | None) -> None:
        self.names: list[str] = []
        self.armed = True
        self._folder = f"{folder}{os.sep}"
        self._fault = fault

    def watch(self) -> None:
        """Start counting."""
        for name, module in list(sys.modules.items()):
            if name.startswith("gradflow.") and hasattr(module, "fault_point"):
                module.fault_point = self.reach
        sys.addaudithook(self._hear)
        if self._fault is None:
            return
        if self._fault.kind == "torn":
            manifest.append = _counted(manifest.append, self._fault.at, _write_half)
        if self._fault.kind == "memory":
            loop.evaluate = _counted(loop.evaluate, self._fault.at, _find_no_memory)

    def reach(self, name: str) -> None:
        """Count the moment `name`, and inject the fault if it is the chosen one."""
        if not self.armed:
            return
        self.names.append(name)
        fault, now = self._fault, len(self.names)
        if fault is None:
            return
        if fault.kind == "kill" and now == fault.at:
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.kind in ("ENOSPC", "EIO") and name not in _NO_SYSTEM_CALL:
            due = now >= fault.at if fault.lasting else now == fault.at
            if due and not (fault.kind == "ENOSPC" and name in _NEEDS_NO_SPACE):
                number = getattr(errno, fault.kind)
                raise OSError(number, os.strerror(number))

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _EVENTS or not isinstance(arguments[0], (str, bytes, os.PathLike)):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        if os.fsdecode(arguments[0]).startswith(self._folder):
            self.reach(_EVENTS[event])


def _counted(
    function: Callable[..., Any], at: int, instead: Callable[..., Any]
) -> Callable[..., Any]:
    """A function that calls `function`, except that its `at`-th call goes to `instead`."""
    calls = 0

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return (instead if calls == at else function)(*arguments)

    return call


def _write_half(path: Path, content: bytes) -> NoReturn:
    with path.open("ab", buffering=0) as file:
        file.write(content[: len(content) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def _find_no_memory(*_: Any) -> NoReturn:
    raise torch.OutOfMemoryError("out of memory. Tried to allocate 20.00 GiB")


def _mapped() -> int:
    """The bytes of address space that this process uses."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _turn_the_clock_back(hours: int) -> None:
    begin, looks = datetime.now().astimezone(), itertools.count(hours)

    class Backward(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return (begin - timedelta(hours=next(looks))).astimezone(tz)

    writer.datetime = Backward
    time.time = lambda: Backward.now().timestamp()
    time.time_ns = lambda: int(time.time() * 1e9)
