"""The methods section: how the experiment was trained, recorded and measured."""

import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from analyses.wording.numbers import number, percent
from analyses.wording.phrases import listing, plural
from gradflow.runs.reading.run import Experiment, Run
from reports.document.summary import training_line, verbatim
from reports.elements import HeadedParagraph

_COMMAND = "To train this again"
HEADINGS = (
    "Training", "Images and split", "Computation", "Recording", "Cost of recording",
    "Software and device", _COMMAND,
)  # fmt: skip
# Entries of the configuration that are not options of `train_and_trace`.
_NOT_OPTIONS = ("optimizer", "out")


def methods_of(experiment: Experiment) -> tuple[HeadedParagraph, ...]:
    """Paragraphs on training, images, recording and its cost, software and device."""
    texts = (
        training_line(experiment),
        " ".join(_each_once(map(_split_text, experiment.runs))),
        " ".join(_each_once(map(_computation_text, experiment.runs))),
        " ".join(_each_once(map(_recording_text, experiment.runs))),
        _cost_text(experiment),
        " ".join(_each_once(map(_device_text, experiment.runs))),
        "\n".join(_each_once(map(_command, experiment.runs))),
    )
    return tuple(
        HeadedParagraph(heading, text, is_command=heading == _COMMAND)
        for heading, text in zip(HEADINGS, texts, strict=True)
        if text
    )


def _each_once(texts: Iterable[str]) -> Iterator[str]:
    return (text for text in dict.fromkeys(texts) if text)


def _split_text(run: Run) -> str:
    images = run.description.get("images")
    if not isinstance(images, Mapping) or not {"all", "training", "validation"} <= images.keys():
        return ""
    text = (
        f"Of {plural(int(images['all']), 'image')}, {images.get('distinct', images['all']):,} of "
        f"them distinct, {images['training']:,} train and {images['validation']:,} validate, "
    )
    if images.get("own_split") is True:
        text += "as the data themselves are split."
    else:
        text += (
            "drawn class by class with the run's seed; all copies of an image are in the same "
            "subset."
        )
    if conflicts := len(images.get("under_several_labels") or []):
        text += f" {plural(conflicts, 'image')} appeared under several labels."
    return text


def _computation_text(run: Run) -> str:
    """Precision, layout in memory and compilation, as far as they are not the usual ones."""
    found = run.description.get("computation")
    if not isinstance(found, Mapping):
        return ""
    parts = []
    if found.get("precision") not in (None, "float32"):
        scaled = " with a scaled loss" if found.get("loss_scaling") is True else ""
        parts.append(f"precision {verbatim(found['precision'])}{scaled}")
    if found.get("memory_format") == "channels_last":
        parts.append("images and weights with the channels last in memory")
    if found.get("compiled") is True:
        parts.append("steps that are not recorded compiled")
    text = listing(parts)
    return f"{text[:1].upper()}{text[1:]}." if parts else ""


def _recording_text(run: Run) -> str:
    tracing = run.description.get("tracing")
    if not isinstance(tracing, Mapping) or "schedule" not in tracing:
        return ""
    recorded = len(run.steps)
    steps = int(run.epochs["step"].max()) + 1 if len(run.epochs) else 0
    counted = f" ({recorded:,} of {steps:,} steps)" if recorded and steps else ""
    text = f"Recorded: {verbatim(tracing['schedule'])}{counted}."
    for name, what in (("layer", "layers' outputs"), ("parameter", "parameters")):
        if f"{name}_gradients" in tracing:
            text += f" Gradients of {what}: {verbatim(tracing[f'{name}_gradients'])}."
    return text


def _cost_text(experiment: Experiment) -> str:
    """How much longer recorded steps took than other steps, and the time of the probes."""
    sentences = []
    for network in experiment.networks:
        runs = experiment.of_network(network)
        ratios = np.concatenate([_step_ratios(run) for run in runs])
        if len(ratios):
            sentences.append(
                f"a recorded step of {network} took {number(float(np.median(ratios)))} times as "
                f"long as the others (median over {plural(len(ratios), 'epoch')}, "
                f"{number(float(ratios.min()))} to {number(float(ratios.max()))})"
            )
        if (share := _probe_share(runs)) is not None:
            sentences.append(f"probes at the ends of epochs took {percent(share)} on top")
    if not any("recorded step" in sentence for sentence in sentences):
        sentences.append("how much longer recorded steps took was not measured in these runs")
    return f"{listing(sentences)[0].upper()}{listing(sentences)[1:]}."


def _step_ratios(run: Run) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """For each epoch, the median time of recorded steps divided by that of the other steps."""
    names = ("recorded_step_seconds", "other_step_seconds")
    if not set(names) <= set(run.epochs.columns):
        return np.empty(0)
    recorded, others = (run.epochs[name].to_numpy(dtype=float) for name in names)
    known = (recorded > 0) & (others > 0)
    return np.asarray(recorded[known] / others[known])


def _probe_share(runs: list[Run]) -> float | None:
    """The probes' seconds divided by the epochs' seconds; None if either is unknown."""
    costs = sum(run.table("probe_costs")["seconds"].sum() for run in runs)
    seconds = sum(run.epochs["seconds"].sum() for run in runs if "seconds" in run.epochs)
    return float(costs / seconds) if costs > 0 and seconds > 0 else None


def _device_text(run: Run) -> str:
    versions = run.description.get("versions")
    parts = [f"{name} {version}" for name, version in _pairs(versions)]
    if device := run.description.get("device"):
        threads = run.description.get("threads")
        of = f" with {plural(threads, 'thread')}" if isinstance(threads, int) else ""
        parts.append(f"device {device}{of}")
    return f"{', '.join(parts)}." if parts else ""


def _pairs(versions: Any) -> list[tuple[str, Any]]:
    return list(versions.items()) if isinstance(versions, Mapping) else []


def _command(run: Run) -> str:
    """The training command with every option of the run."""
    if not run.is_of_command:
        return ""  # recorded in the user's own training loop
    words = ["python", "-m", "gradflow.train_and_trace"]
    for name, value in run.configuration.items():
        if name in _NOT_OPTIONS or value is None:
            continue
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words.append(f"--{option}")
            words += [str(one) for one in (value if isinstance(value, list) else [value])]
    return shlex.join(words)
