"""Hands recorded rows to sinks, each in a thread of its own, so that none holds up the training."""

import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gradflow.errors import printable
from gradflow.sinks.given import as_sink
from gradflow.sinks.measurements import EpochEnds, StepValues, Tables, measurements
from gradflow.sinks.sink import Sink, SinkRun

# How many deliveries may wait for a sink; each has the rows of at most sixteen recorded steps, or
# about 10,000 rows. What does not fit is dropped.
MOST_WAITING = 64
# For so long, all sinks together, the end of a run waits until everything is written.
CLOSING_SECONDS = 15.0


class Delivery:
    """Delivers to one sink, in a thread that starts with the first call of `start`.

    Fields:
        failure: what the sink raised, after which it gets nothing more; or None.
        dropped: how many recorded steps were not delivered since too many were waiting.
        changed: whether there is something new for `summary`.
    """

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.failure: BaseException | None = None
        self.dropped = 0
        self.unfinished = False
        self.changed = True
        self._waiting: deque[Tables] = deque()
        self._condition = threading.Condition()
        self._closing = False
        self._is_attached = False
        self._ends = EpochEnds()
        self._thread: threading.Thread | None = None

    def attach(self) -> None:
        """Let the sink look up what it needs of this thread, once."""
        if self._is_attached:
            return
        self._is_attached = True
        try:
            self.sink.attach()
        except Exception as error:
            self._fail(error)

    def start(self, run: SinkRun) -> None:
        """Start the thread, which opens the sink; it starts only once."""
        self.attach()
        if self._thread is not None or self.failure is not None:
            return
        # A thread that hangs must not keep the program from ending.
        name = f"gradflow-{self.sink.kind}"
        self._thread = threading.Thread(target=self._run, args=(run,), name=name, daemon=True)
        self._thread.start()

    def put(self, tables: Tables) -> None:
        """Let `tables` be written, at once or never: returns without waiting for the sink."""
        if self.failure is not None:
            return
        with self._condition:
            if len(self._waiting) < MOST_WAITING:
                self._waiting.append(tables)
                self._condition.notify()
                return
        self.changed = self.changed or not self.dropped
        self.dropped += _steps_in(tables)

    def finish(self) -> None:
        """Let the thread end once everything is written."""
        with self._condition:
            self._closing = True
            self._condition.notify()

    def wait(self, seconds: float) -> None:
        """Wait until the thread has ended, or `seconds` are over."""
        if self._thread is not None:
            self._thread.join(max(0.0, seconds))
            self.unfinished = self._thread.is_alive()

    def summary(self) -> dict[str, Any]:
        """The sink's entry in `run.json`."""
        entry = self.sink.summary()
        if self.dropped:
            entry["dropped_steps"] = self.dropped
        if problem := self._problem():
            entry["problem"] = problem
        return entry

    def complaints(self) -> dict[str, str]:
        """What to warn of, by kind."""
        what = f"{self.sink.kind} ({self.sink.place})" if self.sink.place else self.sink.kind
        later = "the run folder has them"
        if self.sink.keeps:
            later += ", and `python -m gradflow.export` sends them afterwards"
        said = {}
        if self.failure is not None:
            reason = self._problem()
            said["failure"] = (
                f"nothing more is sent to {what}, and the training goes on: {reason}; {later}"
            )
        if self.unfinished:
            said["unfinished"] = f"{what} was still writing after the end, and is left; {later}"
        if self.dropped:
            said["dropped"] = (
                f"{what} is too slow, so numbers of some steps do not get there; {later}"
            )
        return said

    def _problem(self) -> str:
        if self.failure is not None:
            return printable(f"{type(self.failure).__name__}: {self.failure}")[:500]
        return "still writing when the run ended" if self.unfinished else ""

    def _run(self, run: SinkRun) -> None:
        try:
            self.sink.open(run)
            self.changed = True
            while (tables := self._next()) is not None:
                self._write(measurements(tables, self.sink.choice))
                for alert in tables.get("alerts") or ():
                    self._tell(alert)
            for values in self._ends.rest():
                self.sink.take(values)
            self.sink.close()
        except BaseException as error:
            self._fail(error)

    def _next(self) -> Tables | None:
        """The next tables, or None at the end."""
        with self._condition:
            while not self._waiting and not self._closing:
                self._condition.wait()
            return self._waiting.popleft() if self._waiting else None

    def _write(self, found: list[StepValues]) -> None:
        for one in found:
            for values in self._ends.add(one) if self.sink.every == "epoch" else [one]:
                self.sink.take(values)
        self.sink.flush()

    def _tell(self, alert: Any) -> None:
        # Under the last step of its transfer: a library may take steps in order only.
        self.sink.tell(alert.noticed, alert.condition, alert.sentence, begins=alert.begins)
        self.sink.flush()

    def _fail(self, error: BaseException) -> None:
        self.failure = error
        self.changed = True
        with self._condition:
            self._waiting.clear()


class Deliveries:
    """Delivers to several sinks, and says what becomes of it.

    Args:
        sinks: one or several: sinks, Lightning loggers, functions `(name, value, step)`.

    Raises `ConfigurationError` if one of them is something else.
    """

    def __init__(self, sinks: Any) -> None:
        several = isinstance(sinks, Iterable) and not hasattr(sinks, "log_metrics")
        self._deliveries = [Delivery(as_sink(one)) for one in (sinks if several else [sinks])]
        self._said: set[tuple[int, str]] = set()
        self._describe: Callable[..., None] = lambda **entries: None
        self._exported: list[Mapping[str, Any]] = []  # what the command `export` wrote before

    def add(self, sink: Any) -> None:
        """Deliver to one more sink, which is attached now, from the next call of `start` on."""
        self._deliveries.append(Delivery(as_sink(sink)))
        self._deliveries[-1].attach()

    def start(
        self,
        folder: Path,
        description: Mapping[str, Any],
        first_step: int,
        describe: Callable[..., None],
        earlier: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """Open the sinks that are not open for the run in `folder`.

        `describe` sets entries of `run.json`. The steps before `first_step` were written by an
        earlier process, to sinks whose entries are `earlier`.
        """
        self._describe = describe
        earlier = list(earlier)
        self._exported = [entry for entry in earlier if entry.get("exported")]
        left = [entry for entry in earlier if not entry.get("exported")]
        for delivery in self._deliveries:
            # The first of its kind that no other goes on with.
            kind = delivery.sink.kind
            before = next((entry for entry in left if entry.get("kind") == kind), None)
            if before is not None:
                left.remove(before)
            delivery.start(SinkRun(folder, description, first_step, before or {}))
        self._tell()

    def put(self, tables: Tables) -> None:
        """Let the rows of `tables` be written to all sinks; they must not be changed afterwards."""
        for delivery in self._deliveries:
            delivery.put(tables)
        self._tell()

    def close(self) -> None:
        """Wait for a limited time until everything is written, and close the sinks."""
        for delivery in self._deliveries:
            delivery.finish()
        end = time.monotonic() + CLOSING_SECONDS
        for delivery in self._deliveries:
            delivery.wait(end - time.monotonic())
            delivery.changed = True
        self._tell()

    def _tell(self) -> None:
        """Write what has changed into the run, and warn of each problem once."""
        if not any(delivery.changed for delivery in self._deliveries):
            return
        for delivery in self._deliveries:
            delivery.changed = False
        kept = [delivery.summary() for delivery in self._deliveries if delivery.sink.keeps]
        if kept or self._exported:
            self._describe(sinks=[*kept, *self._exported])
        for place, delivery in enumerate(self._deliveries):
            for kind, message in delivery.complaints().items():
                if (place, kind) not in self._said:
                    self._said.add((place, kind))
                    warnings.warn(f"gradflow: {message} (see docs/howto/sinks.md)", stacklevel=4)


def _steps_in(tables: Tables) -> int:
    columns = tables.get("steps") or next(iter(tables.values()))
    return len(np.unique(np.ma.getdata(columns["step"])))
