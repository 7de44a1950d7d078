"""The losses and hits of an epoch's steps, brought from the device without waiting for it."""

from dataclasses import dataclass

import torch
from torch import Tensor

# On the CPU every step's loss is looked at. An accelerator works behind the program: after so many
# steps what is known is sent on its way, and looked at once it has arrived.
STEPS_BETWEEN_READINGS = 10


@dataclass(frozen=True)
class Reading:
    """What is known after `step` steps of the epoch.

    Fields:
        step: counted from 1.
        losses: those of the steps since the last reading, the last one that of `step`.
        loss, accuracy: the means over all images of the steps.
    """

    step: int
    losses: list[float]
    loss: float
    accuracy: float


class EpochLosses:
    """The losses and hits of the steps of one epoch on `device`."""

    def __init__(self, device: torch.device, steps: int) -> None:
        self._is_behind = works_behind(device)
        # Other accelerators do not tell when values have arrived: they are read at the end only.
        self._can_send = device.type in ("cuda", "cpu")
        self._last = steps
        self._loss_sum = torch.zeros((), device=device)
        self._correct = torch.zeros((), device=device)
        self._losses: list[Tensor] = []
        self._images = 0
        self._step = 0
        self._sent: _Sent | None = None

    @property
    def steps(self) -> int:
        """How many steps were added."""
        return self._step

    def add(self, loss: Tensor, logits: Tensor, targets: Tensor) -> Reading | None:
        """Count a step with the mean `loss` over its images; what is newly known, if anything.

        At the end of the epoch everything is known, for which the device is waited for.
        """
        self._step += 1
        self._images += len(targets)
        self._losses.append(loss.detach())
        self._loss_sum += loss.detach() * len(targets)
        self._correct += (logits.detach().argmax(1) == targets).sum()
        if not self._is_behind or self._step == self._last:
            return self._taken(self._send())
        if self._sent is None and self._losses[STEPS_BETWEEN_READINGS - 1 :] and self._can_send:
            self._sent = self._send()
        if self._sent is None or not self._sent.has_arrived():
            return None
        return self._taken(self._sent)

    def _send(self) -> "_Sent":
        values = torch.stack([*self._losses, self._loss_sum, self._correct])
        return _Sent(values, self._step, self._images)

    def _taken(self, sent: "_Sent") -> Reading:
        reading, self._sent = sent.reading(), None
        del self._losses[: len(reading.losses)]
        return reading


class _Sent:
    """Values on their way from the device to main memory."""

    def __init__(self, values: Tensor, step: int, images: int) -> None:
        self._step, self._images = step, images
        self._values = values.to("cpu", non_blocking=values.is_cuda)
        self._event = torch.cuda.Event() if values.is_cuda else None
        if self._event is not None:
            self._event.record()

    def has_arrived(self) -> bool:
        """Whether `reading` would not wait."""
        return self._event is None or self._event.query()

    def reading(self) -> Reading:
        """The values, once they have arrived."""
        if self._event is not None:
            self._event.synchronize()
        *losses, loss_sum, correct = self._values.tolist()
        return Reading(self._step, losses, loss_sum / self._images, correct / self._images)


def works_behind(device: torch.device) -> bool:
    """Whether `device` computes while the program goes on."""
    return device.type != "cpu"
