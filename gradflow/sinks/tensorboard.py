"""Writes event files of TensorBoard, without torch."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from gradflow.errors import ConfigurationError
from gradflow.sinks.libraries import load, require
from gradflow.sinks.measurements import Magnitudes
from gradflow.sinks.sink import Sink, SinkRun


class TensorBoard(Sink):
    """Writes scalars and histograms of magnitudes for TensorBoard.

        gradflow.sinks.TensorBoard("logs/mine", quantities=["gradient_norm/layer1.*", "step_*"])

    Takes also what `Sink` takes.

    Args:
        folder: where the event files are written; by default the folder `tensorboard` within the
            run folder.

    Raises `ConfigurationError` if tensorboard is missing or too old.
    """

    kind: ClassVar[str] = "TensorBoard"

    def __init__(self, folder: str | Path | None = None, **options: Any) -> None:
        super().__init__(**options)
        require("tensorboard", "2.18")
        self._folder = None if folder is None else Path(folder)
        self.place = "" if folder is None else str(folder)
        self._writer: Any = None
        self._proto: Any = None

    def open(self, run: SinkRun) -> None:
        """Begin an event file, which takes the place of all steps from the first to come on."""
        folder = self._folder or run.folder / "tensorboard"
        self.place = str(folder)
        self.where = {"path": run.relative(folder)}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"the folder {folder} cannot be made: {error.strerror or error}"
            ) from error
        _wait_for_a_later_name(folder)
        self._writer = load("tensorboard.summary.writer.event_file_writer").EventFileWriter(
            str(folder), filename_suffix=".gradflow"
        )
        self._events = load("tensorboard.compat.proto.event_pb2")
        self._summaries = load("tensorboard.compat.proto.summary_pb2")
        self._tensors = load("tensorboard.compat.proto.tensor_pb2")
        if run.first_step:
            start = self._events.SessionLog(status=self._events.SessionLog.START)
            self._add(step=run.first_step, session_log=start)

    def write(
        self, step: int, scalars: Mapping[str, float], histograms: Mapping[str, Magnitudes]
    ) -> None:
        """Write one event with all values of the step; histograms are over log2 of magnitudes."""
        value = self._summaries.Summary.Value
        values = [value(tag=name, simple_value=number) for name, number in scalars.items()]
        values += [
            value(tag=name, histo=self._histogram(one))
            for name, one in histograms.items()
            if one.counts
        ]
        self._add(step=step, summary=self._summaries.Summary(value=values))

    def tell(self, step: int, condition: str, text: str, *, begins: bool) -> None:
        """Write the sentence among the texts, and the number beside the curves."""
        super().tell(step, condition, text, begins=begins)
        plugin = self._summaries.SummaryMetadata.PluginData(plugin_name="text")
        sentence = self._summaries.Summary.Value(
            tag=self.named(f"alert/{condition}/text"),
            metadata=self._summaries.SummaryMetadata(plugin_data=plugin),
            tensor=self._tensors.TensorProto(dtype="DT_STRING", string_val=[text.encode()]),
        )
        self._add(step=step, summary=self._summaries.Summary(value=[sentence]))

    def flush(self) -> None:
        """Write what waits to the disk."""
        self._writer.flush()

    def close(self) -> None:
        """End the event file."""
        self._writer.close()

    def _add(self, **content: Any) -> None:
        self._writer.add_event(self._events.Event(wall_time=time.time(), **content))

    def _histogram(self, magnitudes: Magnitudes) -> Any:
        edges, counts = magnitudes.edges, magnitudes.counts
        # Within a bin the positions are unknown: sums are those of its middle.
        middles = [edge + 0.5 for edge in edges[:-1]]
        return self._summaries.HistogramProto(
            min=edges[0],
            max=edges[-1],
            num=sum(counts),
            sum=sum(c * m for c, m in zip(counts, middles, strict=True)),
            sum_squares=sum(c * m * m for c, m in zip(counts, middles, strict=True)),
            # The first bucket ends where the magnitudes begin, and is empty.
            bucket_limit=edges,
            bucket=[0, *counts],
        )


def _wait_for_a_later_name(folder: Path) -> None:
    """Wait, less than a second, until a file begun now comes last in the order of names.

    TensorBoard reads the files of a folder in that order, and a name has the second and then
    numbers that are not padded: of two files begun in one second, 9 comes after 10.
    """
    while any(folder.glob(f"*tfevents.{int(time.time()):010d}.*")):
        time.sleep(0.02)
