"""Runs the code under test on one input, and checks what gradflow promises for every input.

The code must return a value or raise a `GradflowError` of one printable sentence, within limits of
time and memory. It must not create, change or remove any file outside its scratch folder; code that
only reads must not change files inside it either. A surface makes its inputs in this layout:

    base/scratch/   made anew for each input; the working folder of the code
    base/canary/    files that must not change; no other file may appear next to this folder
"""

import contextlib
import hashlib
import io
import os
import resource
import shutil
import signal
import stat
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any, Literal, NoReturn

from gradflow.errors import GradflowError

Outcome = Literal["read", "refused", "failed"]


@dataclass(frozen=True)
class Attempt:
    """One input in its scratch folder, and the code to run on it.

    Fields:
        words: a description of the input.
        act: reads the input; for a command, returns whether the input was `read` or `refused`.
        writes: whether `act` may write into the scratch folder.
    """

    words: str
    act: Callable[[], object]
    writes: bool = False


# Makes the input that the random numbers choose, in a scratch folder.
Make = Callable[[Random, Path], Attempt]


@dataclass(frozen=True)
class Limits:
    """The limits for an input: seconds, and additional bytes of mapped memory."""

    seconds: float
    memory: int


@dataclass(frozen=True)
class Result:
    """The result of an input; `peak` is the largest resident memory of its process, in KiB."""

    number: int
    outcome: Outcome
    reason: str = ""
    words: str = ""
    peak: int = 0


class BrokenPromiseError(AssertionError):
    """An input broke a promise; the message says which."""


class _TooSlowError(BaseException):
    """The time is up. Not an `Exception`, so that no decoder catches it as damage of the input."""


def random_of(surface: str, seed: int, number: int) -> Random:
    """The random generator of one input, independent of other inputs."""
    return Random(f"{surface}-{seed}-{number}")


def work(
    surface: str, make: Make, seed: int, numbers: range, base: Path, limits: Limits, to: Connection
) -> None:
    """Try the inputs `numbers` of a surface in this process, and send a `Result` for each."""
    scratch = prepare(base)
    os.environ["HOME"] = str(base / "canary")
    # Libraries may fill their own caches, which they make beside the folders of all surfaces.
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR"):
        os.environ[name] = str(base.parent / "caches")
    # What decoders written in C say, and the last words of a process that dies.
    os.dup2(os.open(log_of(base), os.O_WRONLY | os.O_CREAT), 2)
    limit = _mapped() + limits.memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, _ring)
    before = snapshot(base / "canary")
    to.send(None)  # ready
    for number in numbers:
        os.chdir(base)
        shutil.rmtree(scratch)
        scratch.mkdir()
        result = _try(number, make, random_of(surface, seed, number), scratch, limits.seconds)
        after = snapshot(base / "canary")
        if after != before or {path.name for path in base.iterdir()} != {"canary", "scratch"}:
            what = difference(before, after) or "something new beside the scratch folder"
            result = Result(number, "failed", f"touched what is not its own: {what}", result.words)
            _clear(base)
            prepare(base)
            before = snapshot(base / "canary")
        to.send(Result(**{**vars(result), "peak": _peak()}))


def log_of(base: Path) -> Path:
    """The file for the standard error of a worker."""
    return base.with_suffix(".log")


def prepare(base: Path) -> Path:
    """Make the folders in `base`; return the scratch folder. The canary becomes the home folder."""
    scratch, canary = base / "scratch", base / "canary"
    scratch.mkdir(parents=True, exist_ok=True)
    (canary / "folder").mkdir(parents=True)
    for name, content in (("secret.png", b"\x89PNG"), ("train.csv", b"filename,label\n")):
        (canary / name).write_bytes(content)
    for name in ("run.json", "best.pt", "part-0000000000-0000000001.parquet"):
        (canary / "folder" / name).write_bytes(name.encode() * 9)
    (canary / "link").symlink_to("secret.png")
    return scratch


def snapshot(folder: Path) -> dict[str, tuple[Any, ...]]:
    """By path, every file in `folder`: kind and rights, size, time, and a hash of its content."""
    found: dict[str, tuple[Any, ...]] = {}
    _look(str(folder), found)
    return found


def _look(folder: str, found: dict[str, tuple[Any, ...]]) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            content: object = None
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(entry.path)  # noqa: PTH115 - names may be no paths
            elif stat.S_ISREG(status.st_mode):
                with open(entry.path, "rb") as file:  # noqa: PTH123
                    content = hashlib.file_digest(file, "blake2b").digest()
            elif stat.S_ISDIR(status.st_mode):
                _look(entry.path, found)
            found[entry.path] = (status.st_mode, status.st_size, status.st_mtime_ns, content)


def difference(before: dict[str, tuple[Any, ...]], after: dict[str, tuple[Any, ...]]) -> str:
    """The first paths that were created, removed or changed."""
    changed = sorted(name for name in before.keys() | after if before.get(name) != after.get(name))
    return ", ".join(ascii(name) for name in changed[:3])


def run_command(main: Callable[[list[str]], int], arguments: list[str]) -> Outcome:
    """Call a command; return whether it `read` or `refused` its arguments.

    Raises `BrokenPromiseError` if it prints a traceback, or fails without a helpful sentence.
    """
    output = io.TextIOWrapper(io.BytesIO(), "utf-8")
    errors = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace")
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            status = main(arguments)
        except SystemExit as ended:  # as tyro does, after its own words
            status = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    said = [stream.detach().getvalue().decode() for stream in (output, errors)]
    if "Traceback" in "".join(said) or "out of memory" in said[1]:
        raise BrokenPromiseError(f"it printed {said[1][-500:]!r}")
    sentences = said[1].removesuffix("\n").split("\n")  # one for each folder of several
    if said[1].startswith("error: ") and not all(
        line.startswith("error: ") and line.isprintable() for line in sentences
    ):
        raise BrokenPromiseError(f"its error is no printable sentence: {said[1]!r}")
    if status and not "".join(said).strip():
        raise BrokenPromiseError(f"it ended with {status} and not a word")
    return "refused" if status else "read"


def _try(number: int, make: Make, random: Random, scratch: Path, seconds: float) -> Result:
    attempt = make(random, scratch)
    before = None if attempt.writes else snapshot(scratch)
    os.chdir(scratch)
    outcome: Outcome = "read"
    try:
        with _alarm(seconds):
            said = attempt.act()
        outcome = "refused" if said == "refused" else "read"
        reason = ""
    except GradflowError as error:
        reason = str(error)
        outcome = "refused" if reason and reason.isprintable() else "failed"
    except _TooSlowError as error:
        outcome, reason = "failed", f"{_place(error)}: took longer than {seconds} s"
    except BaseException as error:  # whatever it is, it is what is looked for
        outcome, reason = "failed", f"{_place(error)}: {type(error).__name__}: {str(error)!a}"
    if before is not None and (after := snapshot(scratch)) != before:
        outcome, reason = "failed", f"reading changed {difference(before, after)}"
    return Result(number, outcome, reason if outcome == "failed" else "", attempt.words)


def _place(error: BaseException) -> str:
    """The innermost place in gradflow where the error was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/gradflow/" in frame.filename]
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "the fuzzer"


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _ring(*_: object) -> NoReturn:
    raise _TooSlowError


def _clear(base: Path) -> None:
    os.chdir(base.parent)
    shutil.rmtree(base)
    base.mkdir()


def _mapped() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
