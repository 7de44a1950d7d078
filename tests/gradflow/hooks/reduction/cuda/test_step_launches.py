"""How many launches a recorded step takes more on CUDA than an untraced one, without a GPU.

In place of Triton's launcher stands one that counts. Operations of torch are counted as they are
dispatched, each by the launches that it takes on CUDA; those of an untraced step are subtracted.
"""

import copy
import math
from collections import Counter

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import gradflow
from gradflow.hooks.reduction import cpu, fused
from gradflow.hooks.reduction.cuda import checked, groups
from gradflow.hooks.reduction.deferred import reductions
from gradflow.models import build

pytest.importorskip("triton")

from gradflow.hooks.reduction.cuda import launches, products

IMAGES, SIZE = 1, 96
# The launches of the training that is measured on GPUs have 24 images: groups hold as many tensors.
OF_24 = 24 // IMAGES
WITHOUT_LAUNCH = {
    *("detach", "view", "_unsafe_view", "split", "split_with_sizes", "unbind", "permute", "select"),
    *("alias", "lift_fresh", "expand", "t", "transpose", "as_strided", "slice", "unsqueeze"),
    *("squeeze", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
    *(
        "_to_dlpack",
        "reshape",
        "_reshape_alias",
        "view_as_real",
        "is_pinned",
        "_local_scalar_dense",
    ),
}
# Of `torch._foreach_*` by the lists that it reads and writes: how many tensors a launch takes.
MOST_TENSORS, MOST_CHUNKS, CHUNK = {1: 110, 2: 64, 3: 48}, 320, 65536
LISTS = {"mul": 3, "sub": 3, "copy_": 2, "clamp_min_": 1, "norm": 1}


def of_list(name, tensors):
    chunks = sum(math.ceil(one.numel() / CHUNK) for one in tensors)
    most = MOST_TENSORS[LISTS[name]]
    found = max(math.ceil(len(tensors) / most), math.ceil(chunks / MOST_CHUNKS))
    # Norms of chunks are written to zeros, and added up.
    return found + 2 if name == "norm" else found


class Launches(TorchDispatchMode):
    """Counts the launches of torch's operations, by name."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name.startswith("_foreach_"):
            self.seen[name] += of_list(name.removeprefix("_foreach_"), args[0])
        elif name in ("stack", "cat"):
            self.seen[name] += math.ceil(len(args[0]) / 128)
        elif name not in WITHOUT_LAUNCH:
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def launched(monkeypatch):
    """The names of the kernels that would have been launched; tensors seem to be on a GPU."""
    names = []

    def launch(kernel, programs, arguments, constants):
        names.append(kernel.__name__)
        for one in arguments[1:]:
            if isinstance(one, torch.Tensor) and one.dtype is torch.float64:
                one.numpy().fill(1.0)  # not counted; memory that nothing was written to may be nan

    monkeypatch.setattr(launches, "launch", launch)
    monkeypatch.setattr(checked, "kernels", lambda _: launches)
    monkeypatch.setattr(checked, "work_in_groups", lambda _: True)
    monkeypatch.setattr(checked, "products", lambda _: products)
    monkeypatch.setattr(fused, "_on_gpu", lambda x: True)
    monkeypatch.setattr(groups, "_is_on_gpu", lambda x: x.layout is torch.strided)
    monkeypatch.setattr(groups, "is_in_order", lambda x: True)
    # The stand-in writes other numbers, so that those of the first step would differ.
    monkeypatch.setattr(reductions, "_are_same", lambda *_: True)
    monkeypatch.setattr(groups, "products_differ", lambda *_: torch.tensor(False))
    for module in ("loops_module", "addresses_module", "threads_module"):
        monkeypatch.setattr(cpu, module, lambda: None)
    monkeypatch.setattr(reductions, "MOST_BYTES", reductions.MOST_BYTES // OF_24)
    return names


def step(model, optimizer, x, y):
    with Launches() as found:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    return found.seen


def test_a_recorded_step_takes_at_most_thirty_launches_more_than_tensors(launched, tmp_path):
    torch.manual_seed(0)
    model = build("resnet34", classes=5, seed=0)
    twin = copy.deepcopy(model)
    x, y = torch.randn(IMAGES, 3, SIZE, SIZE), torch.randint(5, (IMAGES,))
    plain = step(twin, torch.optim.SGD(twin.parameters(), lr=1e-3), x, y)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        for _ in range(3):
            launched.clear()
            traced = step(model, optimizer, x, y)
            record = tracer.store._records[-1]
    observed = len(record.activations) + len(record.gradients)
    more = traced - plain
    kernels, operations = Counter(launched), sum(more.values())
    # Each group has a table, which is copied to the device.
    copies = kernels["merge_group"] + kernels["multiply_group"]
    total = len(launched) + copies + operations
    print(f"{observed} tensors: {total} launches, {copies} of them copies of tables, of kernels")
    print(f"{dict(kernels)}, of torch {operations}: {dict(more)}")
    assert len(record.junctions) == 16
    assert observed > 200
    assert all(0 < kernels[name] <= 20 for name in ("merge_group", "multiply_group"))
    assert total <= observed + 30
