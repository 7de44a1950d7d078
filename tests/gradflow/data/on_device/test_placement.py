"""Images are put on the training's device once, if they take little enough of what is free."""

import pytest
import torch

from gradflow.data import ImageData, evaluation_batches, training_batches
from gradflow.data.on_device import placement
from gradflow.data.on_device.placement import Placement, placed

# A device without values, on which the same operations run as on an accelerator.
ELSEWHERE = torch.device("meta")


def data_set():
    return ImageData(
        images=torch.zeros(10, 1, 8, 8, dtype=torch.uint8),
        labels=torch.arange(10) % 2,
        classes=("a", "b"),
        names=tuple(map(str, range(10))),
        fingerprints=tuple(map(str, range(10))),
        flips=True,
    )


@pytest.mark.parametrize(
    ("free", "device"), [(2560, "meta"), (2559, "cpu"), (None, "cpu"), (0, "cpu")]
)
def test_images_are_placed_if_a_quarter_of_the_free_memory_holds_them(free, device, monkeypatch):
    monkeypatch.setattr(placement, "_free_bytes", lambda _: free)
    data, found = placed(data_set(), ELSEWHERE)
    assert found == Placement(device, 640, free)
    assert data.images.device.type == device
    assert data.labels.device.type == "cpu"


def test_images_of_a_training_on_the_cpu_stay_where_they_are():
    data = data_set()
    same, found = placed(data, torch.device("cpu"))
    assert same is data
    assert found == Placement("cpu", 640, None)


@pytest.mark.parametrize("free", [2560, 0])
def test_batches_are_made_on_the_trainings_device(free, monkeypatch):
    monkeypatch.setattr(placement, "_free_bytes", lambda _: free)
    data, _ = placed(data_set(), ELSEWHERE)
    options = {"batch_size": 4, "device": ELSEWHERE}
    batches = [
        *training_batches(data, torch.arange(10), seed=0, epoch=1, augment=True, **options),
        *evaluation_batches(data, torch.arange(10), **options),
    ]
    assert [len(batch.images) for batch in batches] == [4, 4, 2, 4, 4, 2]
    for batch in batches:
        assert batch.images.shape[1:] == (3, 8, 8)
        assert {value.device.type for value in vars(batch).values()} == {"meta"}
