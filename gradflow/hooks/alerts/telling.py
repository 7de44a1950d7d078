"""Whom alerts are told to: warnings, logging, functions, sinks, `run.json`; and the stop."""

import logging
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from gradflow.errors import TracingError
from gradflow.hooks.alerts.alert import Alert, AlertWarning
from gradflow.hooks.alerts.watch import Watch
from gradflow.hooks.alerts.windows import Columns

Way = Literal["warn", "log", "raise"] | Callable[[Alert], Any]
Alerts = Way | Sequence[Way] | None

_WORDS = ("warn", "log", "raise")
_MOST_KEPT = 500  # in `run.json`
_logger = logging.getLogger("gradflow")


class Telling:
    """Lets a `Watch` look at each transfer, and tells what it finds.

    Whatever goes wrong here is reported once, and the training goes on.

    Args:
        alerts: one or several ways to tell.
        layers: as `Watch` takes it.
        report: says once that something is not recorded; it takes a kind and a message.
        tells: whether this process tells; of several, one does. All of them stop.
        moving, turns: as `Watch` takes them.

    Fields:
        describe: sets entries of `run.json`.
        stopping: the first alert for which the training is to stop, if it is to; else None.

    Raises `TracingError` for a way that is none.
    """

    def __init__(
        self,
        alerts: Alerts,
        layers: Callable[[], Mapping[str, Sequence[Any]]],
        report: Callable[[str, str], None],
        *,
        tells: bool = True,
        moving: bool = False,
        turns: int = 1,
    ) -> None:
        several = isinstance(alerts, Iterable) and not isinstance(alerts, str)
        self._ways: list[Any] = list(alerts) if several else [alerts]  # type: ignore[arg-type]
        for way in self._ways:
            if way not in _WORDS and not callable(way):
                words = ", ".join(f'"{word}"' for word in _WORDS)
                raise TracingError(
                    f"alerts= is one or several of {words} and functions of an alert, not {way!r}"
                )
        self._watch = Watch(layers, moving=moving, turns=turns)
        self._report = report
        self._tells = tells
        self._told: list[dict[str, Any]] = []
        self.describe: Callable[..., None] = lambda **entries: None
        self.stopping: Alert | None = None

    def look(self, tables: Mapping[str, Columns]) -> list[Alert]:
        """Look at the rows of a transfer, and tell what begins and ends; return it."""
        try:
            found = self._watch.look(tables)
        except Exception as error:
            self._report("alerts", f"conditions could not be looked at: {_what(error)}")
            return []
        if not found:
            return []
        if "raise" in self._ways and self.stopping is None:
            self.stopping = next((one for one in found if one.begins), None)
        if self._tells:
            self._told = [*self._told, *(one.as_dict() for one in found)][-_MOST_KEPT:]
            self.describe(alerts=self._told)
            for alert in found:
                self._tell(alert)
        return found

    def raise_if_stopping(self) -> None:
        """Raise `TracingError` with the alert for which the training is to stop."""
        if self.stopping is not None:
            alert, self.stopping = self.stopping, None
            raise TracingError(
                f"stopped by an alert: {alert.sentence}; what was recorded up to here is in the "
                "run folder"
            )

    def warn_if_stopping(self) -> None:
        """Say what the training would have been stopped for, had it not ended before."""
        if self.stopping is not None and self._tells:
            sentence, self.stopping = self.stopping.sentence, None
            warnings.warn(f"gradflow, at the end of the training: {sentence}", AlertWarning, 2)

    def _tell(self, alert: Alert) -> None:
        for way in self._ways:
            if way == "warn":
                warnings.warn(f"gradflow: {alert.sentence}", AlertWarning, stacklevel=2)
            elif way == "log":
                level = logging.WARNING if alert.begins else logging.INFO
                _logger.log(level, "%s", alert.sentence)
            elif callable(way):
                try:
                    way(alert)
                except Exception as error:
                    self._report(
                        "alert function", f"the function given as alerts= failed: {_what(error)}"
                    )

    def state_dict(self) -> dict[str, Any]:
        """Return what was told and what holds."""
        return {"told": [dict(one) for one in self._told], **self._watch.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._told = [dict(one) for one in state.get("told", [])]
        self._watch.load_state_dict(state)
        if self._tells and self._told:
            self.describe(alerts=self._told)


def _what(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
