"""One training from its draw to the answer of the health check, as a line of results."""

import random
import tempfile
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from answers import ask
from healthy import KINDS
from planted import BUGS, FAULTS, bugs_of, maker
from planted.fault import Fault
from planted.truth import Truth
from training import Training, train

HEALTHY = "healthy"
# Healthy kinds of which the probes are asked too, so that their conditions may give false alarms.
PROBED = {"perceptron, digits": ("noise_scale", "shattering"), "resnet": ("shattering",)}


@dataclass(frozen=True)
class Trial:
    """Which training: seed, kind, fault (or `HEALTHY`), and the number among those alike."""

    seed: int
    kind: str
    fault: str
    index: int

    @property
    def key(self) -> str:
        """Unique; everything is drawn from it."""
        return f"{self.seed}/{self.kind}/{self.fault}/{self.index}"


def trials(seed: int, kinds: list[str], faults: list[str], healthy: int, ill: int) -> list[Trial]:
    """All trainings of a benchmark, in an order in which its first ones are a fair sample."""
    made = []
    for index in range(max(healthy, ill)):
        made += [Trial(seed, kind, HEALTHY, index) for kind in kinds if index < healthy]
        for key in faults:
            own = [one for one in FAULTS[key].kinds if one in kinds or one not in KINDS]
            if own and index < round(ill * FAULTS[key].share):
                made.append(Trial(seed, own[index % len(own)], key, index))
    return made


def mutants(seed: int, kinds: list[str], variants: int) -> list[Trial]:
    """`variants` scripts of each kind, each with its bugs, one at a time."""
    made = []
    for index in range(variants):
        for kind in kinds:
            torch.manual_seed(seed)
            script = maker(kind)(random.Random(f"{seed}/{kind}/script/{index}"))
            made += [Trial(seed, kind, bug, index) for bug in bugs_of(script, index)]
    return made


def prepared(trial: Trial) -> tuple[Training, Fault | None, Truth | None]:
    """Draw a training, and plant its fault; every call gives the same one."""
    fault = FAULTS.get(trial.fault) or BUGS.get(trial.fault)
    # All bugs of a script are planted into the same one.
    same = "script" if trial.fault in BUGS else trial.fault
    draw = random.Random(f"{trial.seed}/{trial.kind}/{same}/{trial.index}")
    torch.manual_seed(zlib.crc32(trial.key.encode()))
    training = maker(trial.kind)(draw)
    if fault is None:
        training.probes = PROBED.get(trial.kind, ())
    return training, fault, None if fault is None else fault.plant(training, draw)


def undone(losses: list[float]) -> bool:
    """Whether the loss, once below a tenth of that of the start, was twice that again.

    What spikes so, as a plain recurrent network of ReLUs may, is not healthy.
    """
    start = sorted(losses[:3])[1]
    first = next((step for step, one in enumerate(losses) if one < start / 10), len(losses))
    return any(one > 2 * start for one in losses[first:])


def run_trial(trial: Trial) -> dict[str, Any]:
    """Draw, train and ask; a line of results."""
    torch.set_num_threads(1)
    began = time.process_time()
    training, fault, truth = prepared(trial)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        outcome = train(training, folder)
        names = [name for name, _ in training.model.named_modules()]
        given = ask(folder, names)
    # What overfits by the way is not healthy, either.
    generalizes = not outcome.held or outcome.held[-1] <= 1.1 * min(outcome.held)
    learnt = outcome.share <= training.learns and generalizes and not undone(outcome.losses)
    kept = learnt if fault is None else fault.holds(training, outcome)
    return {
        **asdict(trial),
        "words": ", ".join(one for one in training.words if one),
        "steps": training.steps,
        "share": round(outcome.share, 3),
        "kept": kept,
        "truth": None
        if truth is None
        else {**asdict(truth), "effects": sorted(truth.effects), "layers": list(truth.layers)},
        "answers": given.as_json(),
        "losses": zlib.crc32(repr(outcome.losses).encode()),
        "seconds": round(time.process_time() - began, 2),
    }
