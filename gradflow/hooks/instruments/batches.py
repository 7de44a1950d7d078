"""Which batch a step was trained on, and the random state that it began with."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradflow.hooks.compilation import is_capturing
from gradflow.hooks.instruments.instrument import Instrument
from gradflow.hooks.observation.hook import Hook
from gradflow.hooks.recording.records import Columns, StepRecord

INDICES = "indices"  # the key in `StepRecord.further` of what `Tracer.log(batch=...)` was given
# So many elements are looked at together: they take 32 MiB more while they are.
_AT_ONCE = 1 << 22


def batch_hash(*inputs: Any, **named: Any) -> str:
    """The hash of a batch as it stands in the table `spikes`; arguments as the model gets them.

    Sixteen hexadecimal digits of BLAKE2b over type, shape and two sums of the elements' bits, the
    second one weighted by place, of each tensor in the arguments. The same on every device. Of a
    quantized tensor they are its whole numbers.

    Raises `TypeError` for a tensor of the device meta, which has no elements.
    """
    found = [_sums(tensor) for tensor in _tensors((inputs, named))]
    return _digest([(kind, sums.tolist()) for kind, sums in found])


class Batches(Instrument):
    """Notes a hash of the inputs of each forward pass, and torch's random state before the first.

    Both stay on their devices until the records are transferred; see the table `spikes`.

    Fields:
        record: that of the step under way; None if it is not recorded.
    """

    key = "batches"

    def __init__(self, model: nn.Module) -> None:
        self.record: StepRecord | None = None
        self._model = model
        self._device = next((one.device for one in model.parameters()), torch.device("cpu"))
        self._handle: Any = None
        self._begins = False

    def begin_step(self, record: StepRecord | None) -> None:
        """Follow the calls of the model while a step is recorded."""
        self.record, self._begins = record, False
        if record is None:
            self.detach()
        elif self._handle is None:
            entered = Hook(self, self._enter)
            self._handle = self._model.register_forward_pre_hook(entered, with_kwargs=True)

    def forward_begins(self, record: StepRecord) -> None:
        """Keep the random state before the first forward pass of the step."""
        self._begins = True
        if self.key not in record.further and not is_capturing():
            on_device = None
            if self._device.type == "cuda":
                on_device = torch.cuda.get_rng_state(self._device)
            record.further[self.key] = {"cpu": torch.get_rng_state(), "device": on_device}

    def columns(self, records: Sequence[StepRecord]) -> Mapping[str, Columns]:
        """The rows of the table `spikes`, of every step: those around a spike are kept."""
        rows = [_row(record, record.further.get(self.key, {})) for record in records]
        made: Columns = {
            "epoch": np.ma.array([record.epoch for record in records]),
            "step": np.ma.array([record.step for record in records]),
            "spike": np.ma.masked_all(len(records), int),
            "quantity": np.ma.array([""] * len(records), dtype=object),
            "spreads": np.ma.masked_all(len(records), float),
        }
        for name in ("batch_hash", "batch", "random_state", "device_random_state"):
            values = np.empty(len(rows), dtype=object)
            values[:] = [row[name] for row in rows]
            made[name] = np.ma.array(values, mask=[row[name] is None for row in rows])
        return {"spikes": made}

    def detach(self) -> None:
        """Take off the hook."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _enter(self, _: nn.Module, inputs: Any, named: Any) -> None:
        # Passes that are not recorded, such as those of an evaluation, do not begin.
        record, begins, self._begins = self.record, self._begins, False
        if record is None or not begins or is_capturing():
            return
        try:
            found = [_sums(tensor) for tensor in _tensors((inputs, named))]
        except Exception:  # tensors without memory of their own: the batch has no hash
            return
        record.further.setdefault(self.key, {}).setdefault("inputs", []).extend(found)


def kept_indices(indices: Any) -> Any:
    """A copy of what `Tracer.log(batch=...)` was given; a loop may fill it anew for the next batch.

    A tensor stays on its device.
    """
    if isinstance(indices, Tensor):
        return indices.detach().clone()
    return list(indices) if isinstance(indices, Iterable) else [indices]


def _row(record: StepRecord, noted: Mapping[str, Any]) -> dict[str, Any]:
    inputs, on_device = noted.get("inputs"), noted.get("device")
    return {
        "batch_hash": _hash_of(inputs) if inputs else None,
        "batch": _indices(record.further.get(INDICES)),
        "random_state": noted["cpu"].numpy().tobytes() if "cpu" in noted else None,
        "device_random_state": None if on_device is None else on_device.numpy().tobytes(),
    }


def _hash_of(inputs: Sequence[tuple[str, Tensor]]) -> str | None:
    """The hash of sums that are read only here; None if they stand for no memory."""
    try:
        return _digest([(kind, sums.tolist()) for kind, sums in inputs])
    except RuntimeError:  # of fake tensors
        return None


def _indices(given: Sequence[Any] | None) -> list[int] | None:
    """The indices that were given for all passes of a step; None without, or if they are none."""
    if given is None:
        return None
    try:
        return [int(one) for part in given for one in torch.as_tensor(part).reshape(-1).tolist()]
    except (TypeError, ValueError, RuntimeError):
        return None


def _tensors(given: Any) -> Iterator[Tensor]:
    """The tensors in tuples, lists, mappings and dataclasses, in order."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, Mapping):
        for entry in given.values():
            yield from _tensors(entry)
    elif isinstance(given, tuple | list):
        for entry in given:
            yield from _tensors(entry)
    elif is_dataclass(given) and not isinstance(given, type):
        for one in fields(given):
            yield from _tensors(getattr(given, one.name))


@torch.no_grad()
def _sums(tensor: Tensor) -> tuple[str, Tensor]:
    """Type and shape as a word, and [2] the sum of the elements' bits and that by place."""
    kind = f"{tensor.dtype} {list(tensor.shape)}"
    flat = tensor.detach()
    if flat.is_meta:
        raise TypeError("a tensor of the device meta has no elements to hash")
    if flat.is_quantized:
        flat = flat.int_repr()  # no other type may look at its memory
    flat = flat.resolve_conj().resolve_neg()
    if flat.is_complex():
        flat = torch.view_as_real(flat)
    flat = flat.contiguous().reshape(-1)
    words = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[flat.element_size()]
    bits = flat.view(words)
    total = torch.zeros(2, dtype=torch.int64, device=bits.device)
    for start in range(0, len(bits), _AT_ONCE):
        part = bits[start : start + _AT_ONCE].long()
        places = torch.arange(start + 1, start + 1 + len(part), device=part.device)
        total += torch.stack([part.sum(), (part * places).sum()])  # both modulo 2^64
    return kind, total


def _digest(found: Sequence[tuple[str, Sequence[int]]]) -> str:
    text = ";".join(f"{kind} {sums[0]} {sums[1]}" for kind, sums in found)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
