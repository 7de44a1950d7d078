"""Batch norms: their running statistics beside the statistics of the batches that they saw.

A batch norm in training mode moves its running statistics toward those of the batch. So a step's
batch statistics follow from the running ones before and after it, and nothing has to be read but
two numbers a channel. Evaluation uses the running ones, which lag behind the weights: how far is
what this instrument tells, at the end of each epoch.

Axis letters: C channels of all batch norms of a device, K recorded steps, B batch norms.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer

from gradflow.hooks.instruments.instrument import Instrument
from gradflow.hooks.recording.records import StepRecord
from gradflow.hooks.wrappers import named_modules

# The statistics of the present weights are the mean over so many recorded batches: enough to tell
# their noise, and few enough for the weights not to have moved far.
MOST_BATCHES = 8

_BatchNorm = nn.modules.batchnorm._BatchNorm


class RunningStatistics(Instrument):
    """Fills the table `running_statistics` at the end of each epoch, if `model` has batch norms.

    With several processes, the rows are of the process that writes: its buffers are those saved.
    """

    key = "running_statistics"
    several_processes = True

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._groups: list[_Group] | None = None
        self._has_begun = False
        self._waiting: Mapping[str, Any] = {}

    def begin_step(self, record: StepRecord | None) -> None:
        """A step begins."""
        self._has_begun = False

    def forward_begins(self, record: StepRecord) -> None:
        """Keep the running statistics, before the first pass of the step changes them."""
        if self._has_begun:
            return
        self._has_begun = True
        for group in self._known_groups():
            group.begin()

    def end_step(self, record: StepRecord) -> None:
        """Take the batch's statistics from what has become of them."""
        if self._has_begun:
            for group in self._known_groups():
                group.end()
        self._has_begun = False

    def end_epoch(self) -> dict[str, dict[str, list[Any]]]:
        """Return the rows of the table; waits for the device."""
        rows = [row for group in self._known_groups() for row in group.rows()]
        if not rows:
            return {}
        return {"running_statistics": {name: [row[name] for row in rows] for name in rows[0]}}

    def model_has_changed(self) -> None:
        """Look the batch norms up again."""
        self._groups = None

    def state_dict(self) -> dict[str, Any]:
        """Return the statistics of the last batches, by device."""
        # Those of an earlier tracer wait for the first recorded step.
        return dict(self._waiting) | {one.key: one.state_dict() for one in self._groups or ()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them, once the batch norms have been looked up."""
        self._waiting = state

    def _known_groups(self) -> "list[_Group]":
        if self._groups is None or not all(group.is_current() for group in self._groups):
            self._groups = list(_groups(self._model))
            for group in self._groups:
                group.load_state_dict(self._waiting.get(group.key, {}))
            self._waiting = {}
            if any(_is_waiting_for_its_size(one) for _, one in _batch_norms(self._model)):
                groups, self._groups = self._groups, None  # look again in the next pass
                return groups
        return self._groups


@dataclass(frozen=True)
class _Batch:
    """The mean and the unbiased variance of one step's batch, each [C].

    Fields:
        weight: what the running statistics then gave to this step, [B].
        passes: how many passes the running statistics had then seen, [B].
    """

    mean: Tensor
    variance: Tensor
    weight: Tensor
    passes: Tensor


class _Group:
    """The batch norms of one device, whose statistics are read together."""

    def __init__(self, modules: Mapping[str, _BatchNorm], device: torch.device) -> None:
        self.key = " ".join([str(device), *modules])
        self._device = device
        self._modules = modules
        self._batches: deque[_Batch] = deque(maxlen=MOST_BATCHES)
        self._before: tuple[Tensor, Tensor, Tensor] | None = None
        self._type = torch.float32 if device.type == "mps" else torch.float64
        channels = [one.num_features for one in modules.values()]
        self._sizes = torch.tensor(channels, device=device)
        self._module_of_channel = torch.arange(len(channels), device=device).repeat_interleave(
            self._sizes, output_size=sum(channels)
        )

    def is_current(self) -> bool:
        """Whether all of them still have statistics, where they were."""
        buffers = [module._buffers for module in self._modules.values()]
        return all(
            (one := of_module.get(name)) is not None and one.device == self._device
            for of_module in buffers
            for name in ("running_mean", "running_var", "num_batches_tracked")
        )

    @torch.no_grad()
    def begin(self) -> None:
        self._before = self._read()

    @torch.no_grad()
    def end(self) -> None:
        if self._before is None:
            return
        (mean, variance, passes), self._before = self._before, None
        mean_now, variance_now, passes_now = self._read()
        weight = self._weights(passes_now - passes, passes_now)
        share = weight[self._module_of_channel]
        self._batches.append(
            _Batch(
                mean + (mean_now - mean) / share,
                variance + (variance_now - variance) / share,
                weight,
                passes_now,
            )
        )

    def _read(self) -> tuple[Tensor, Tensor, Tensor]:
        """The running mean and variance, each [C], and the number of passes, [B]."""
        statistics = [_statistics(module) for module in self._modules.values()]
        mean, variance, passes = zip(*statistics, strict=True)
        wide = self._type
        return torch.cat(mean).to(wide), torch.cat(variance).to(wide), torch.stack(passes).to(wide)

    def _weights(self, new: Tensor, total: Tensor) -> Tensor:
        """What the running statistics give to the last `new` of `total` passes; nan for nothing.

        Of those that have been reset since, `new` is negative.
        """
        momenta = _momenta(self._modules.values(), new)
        weight = torch.where(momenta.isnan(), new / total, 1 - (1 - momenta) ** new.clamp_min(0))
        return torch.where(weight > 0, weight, torch.nan)

    @torch.no_grad()
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the table, without the epoch."""
        values = self._values().cpu().tolist()
        passes = self._read()[2].long().tolist()
        named = zip(self._modules.items(), passes, self._are_new(), values, strict=True)
        return [
            {
                "layer": name,
                "mode": "training" if module.training else "evaluation",
                "momentum": module.momentum,
                "passes": seen,
                "channels": module.num_features,
                "is_new": new,
                "batches": int(numbers[0]),
                **_known_values(int(numbers[0]), numbers[1:]),
            }
            for (name, module), seen, new, numbers in named
        ]

    def _are_new(self) -> list[bool]:
        """Whether each has the statistics that a layer is made with: mean 0 and variance 1."""
        statistics = [_statistics(module) for module in self._modules.values()]
        new = [(mean == 0).all() & (variance == 1).all() for mean, variance, _ in statistics]
        found: list[bool] = torch.stack(new).tolist()
        return found

    def _values(self) -> Tensor:
        """The number of batches, then `_VALUES`, for each module: [B, 1 + values]."""
        running_mean, running_variance, now = self._read()
        if not self._batches:
            empty = running_mean.new_full((len(self._modules), 1 + len(_VALUES)), torch.nan)
            empty[:, 0] = 0
            return empty
        means = torch.stack([one.mean for one in self._batches])
        variances = torch.stack([one.variance for one in self._batches])
        weights = torch.stack([one.weight for one in self._batches])
        ages = now - torch.stack([one.passes for one in self._batches])
        seen = ~weights.isnan()
        count = seen.sum(0)
        momenta = _momenta(self._modules.values(), now)
        share = torch.where(momenta.isnan(), weights, weights * (1 - momenta) ** ages)
        overlap = share.nansum(0)  # what the running statistics now give to these batches
        own = torch.where(momenta.isnan(), 1 / now, momenta / (2 - momenta))
        # Var(running) + Var(mean of K) - 2 Cov, in variances of one batch.
        noise = own + 1 / count - 2 * overlap / count
        eps = self._eps(running_mean)
        variance = variances.nanmean(0)
        scale = variance + eps
        shift = (running_mean - means.nanmean(0)) / scale.sqrt()
        ratio = ((running_variance + eps) / scale).log()
        scatter = _sample_variance(means) / scale
        scatter_of_variance = _sample_variance(variances) / scale**2
        columns = [self._rms(one) for one in (shift**2, ratio**2, scatter, scatter_of_variance)]
        expected = [one * noise.clamp_min(0).sqrt() for one in columns[2:]]
        return torch.stack([count.to(self._type), *columns, *expected], 1)

    def _eps(self, like: Tensor) -> Tensor:
        eps = like.new_tensor([one.eps for one in self._modules.values()])
        return eps[self._module_of_channel]

    def _rms(self, squares: Tensor) -> Tensor:
        """The root of the mean of `squares` [C] over the channels of each module: [B]."""
        sums = squares.new_zeros(len(self._sizes))
        return (sums.index_add_(0, self._module_of_channel, squares) / self._sizes).sqrt()

    def state_dict(self) -> dict[str, Any]:
        return {"batches": [tuple(vars(one).values()) for one in self._batches]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        device = self._sizes.device
        for numbers in state.get("batches", ()):
            self._batches.append(_Batch(*(one.to(device) for one in numbers)))


_SHIFTS = ("mean_shift", "variance_shift")
_NOISES = ("mean_scatter", "variance_scatter", "expected_mean_shift", "expected_variance_shift")
_VALUES = (*_SHIFTS, *_NOISES)


def _known_values(batches: int, numbers: Sequence[float]) -> dict[str, float | None]:
    """The values by name; missing are shifts without a batch, and noises without two of them."""
    needed = dict.fromkeys(_SHIFTS, 1) | dict.fromkeys(_NOISES, 2)
    named = zip(_VALUES, numbers, strict=True)
    return {name: value if batches >= needed[name] else None for name, value in named}


def _batch_norms(model: nn.Module) -> Iterator[tuple[str, _BatchNorm]]:
    """Yield each batch norm that keeps running statistics once, with its name."""
    seen: set[int] = set()
    for name, module in named_modules(model):
        # A module can be told to keep none after it has been made.
        if (
            isinstance(module, _BatchNorm)
            and module.track_running_stats
            and all(one is not None for one in _statistics(module))
            and id(module) not in seen
        ):
            seen.add(id(module))
            yield name or type(module).__name__, module


def _statistics(module: _BatchNorm) -> tuple[Tensor, Tensor, Tensor]:
    buffers: Any = (module.running_mean, module.running_var, module.num_batches_tracked)
    return buffers  # type: ignore[no-any-return]


def _is_waiting_for_its_size(module: _BatchNorm) -> bool:
    return isinstance(module.running_mean, UninitializedBuffer)


def _groups(model: nn.Module) -> Iterator[_Group]:
    by_device: dict[torch.device, dict[str, _BatchNorm]] = {}
    for name, module in _batch_norms(model):
        if not _is_waiting_for_its_size(module):
            by_device.setdefault(_statistics(module)[0].device, {})[name] = module
    for device, modules in by_device.items():
        yield _Group(modules, device)


def _momenta(modules: Iterable[_BatchNorm], like: Tensor) -> Tensor:
    """The momentum of each module, nan for a plain average over all passes."""
    return like.new_tensor([torch.nan if m.momentum is None else m.momentum for m in modules])


def _sample_variance(x: Tensor) -> Tensor:
    """The sample variance over the steps, leaving out those of nan: [K, C] to [C]."""
    known = (~x.isnan()).sum(0)
    squares = (x - x.nanmean(0)).square().nansum(0)
    return torch.where(known > 1, squares / (known - 1), torch.nan)
