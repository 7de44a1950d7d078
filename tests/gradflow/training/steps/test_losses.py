"""Losses are read when they are due, and an accelerator is waited for at an epoch's end only."""

import sys

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gradflow.train_and_trace import main
from gradflow.training import loop
from gradflow.training.steps import losses
from gradflow.training.steps.losses import EpochLosses

# Operations whose result a program knows only once the device has computed their input.
WAITING = {
    "_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal",
    "is_nonzero", "item",
}  # fmt: skip
# Where values are looked at that are in main memory on any device, and the tracer's means for the
# CPU: files, with a function or all of them.
ELSEWHERE = [
    ("torch/optim/", "_get_value"),  # Adam's counts of its updates
    ("data/batches.py", "_augmented_batches"),  # positions of images
    (
        "on_device/augmentation.py",
        "",
    ),  # random numbers; test_placement shows that no image is looked at
    ("hooks/reduction/cpu.py", ""),
    ("hooks/reduction/groups.py", ""),
    ("deferred/reductions.py", "_are_same"),  # only of tensors on the CPU
    ("hooks/updates/measures/many.py", ""),
    ("measures/previous_gradients.py", "check_after_step"),  # only if norms are numbers
]


class Waits(TorchDispatchMode):
    """Collects where a program waits for values, in the steps of the training loop."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, str]] = []
        self.step = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in WAITING:
            self.note(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))

    def note(self, name):
        frame = sys._getframe(1)
        while frame is not None:
            code = frame.f_code
            if any(file in code.co_filename and f in code.co_name for file, f in ELSEWHERE):
                return
            frame = frame.f_back
        self.found.append((self.step, name))


@pytest.fixture
def waits(monkeypatch):
    """Where the loop waits, with the losses read as on an accelerator."""
    monkeypatch.setattr(losses, "works_behind", lambda _: True)
    mode, train_epoch, add = Waits(), loop._train_epoch, EpochLosses.add
    for name in ("tolist", "cpu", "numpy"):
        original = getattr(Tensor, name)

        def noted(tensor, *given, original=original, name=name, **options):
            if tensor.numel() and inside:
                mode.note(name)
            return original(tensor, *given, **options)

        monkeypatch.setattr(Tensor, name, noted)
    inside = []

    def count(self, *given):
        mode.step += 1
        return add(self, *given)

    def watched(*given):
        mode.step = 0
        inside.append(1)
        with mode:
            result = train_epoch(*given)
        inside.clear()
        return result

    monkeypatch.setattr(EpochLosses, "add", count)
    monkeypatch.setattr(loop, "_train_epoch", watched)
    return mode


@pytest.mark.parametrize(
    ("behind", "read"),
    [(True, [(10, 10), (20, 10), (25, 5)]), (False, [(i, 1) for i in range(1, 26)])],
)
def test_every_loss_is_read_once_and_means_are_over_images(behind, read, monkeypatch):
    monkeypatch.setattr(losses, "works_behind", lambda _: behind)
    known = EpochLosses(torch.device("cpu"), steps=25)
    generator = torch.Generator().manual_seed(0)
    given, hits, images, readings = [], 0, 0, []
    for step in range(1, 26):
        count = 1 + step % 3
        logits = torch.randn(count, 4, generator=generator)
        loss, targets = logits.square().mean(), torch.arange(count)
        given.append((float(loss), count))
        hits += sum(row.index(max(row)) == i for i, row in enumerate(logits.tolist()))
        images += count
        reading = known.add(loss, logits, targets)
        if reading is not None:
            readings.append(reading)
            mean = sum(value * n for value, n in given) / images
            assert (reading.loss, reading.accuracy) == pytest.approx((mean, hits / images))
    assert [(reading.step, len(reading.losses)) for reading in readings] == read
    assert [x for reading in readings for x in reading.losses] == [value for value, _ in given]


def command(images, folder, *options):
    given = ["--models", "resnet20", "--epochs", "2", "--batch-size", "4", "--device", "cpu"]
    given += ["--trace-every", "1", "--probes", "none", "--no-recalibrate", "--data", str(images)]
    return [*given, "--out", str(folder), *options]


def test_no_step_but_the_last_waits_for_the_device(images, tmp_path, waits):
    assert main(command(images, tmp_path / "x")) == 0
    # 19 images, of which the last three are a batch; two epochs.
    assert waits.found == [(5, "tolist")] * 2


@pytest.mark.slow  # shows that the test above can fail
def test_a_wait_would_be_found(images, tmp_path, waits):
    main(command(images, tmp_path / "x", "--on-nonfinite", "skip"))
    assert {step for step, name in waits.found if name == "_local_scalar_dense"} == {1, 2, 3, 4, 5}
