"""How many launches and allocations the reduction of a network's tensors takes, without a GPU.

In place of Triton's launcher stands one that counts; operations of torch are counted as they are
dispatched.
"""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import gradflow
from gradflow.hooks.layers import channel_axis
from gradflow.hooks.reduction.cuda import checked, groups
from gradflow.models import build

pytest.importorskip("triton")

from gradflow.hooks.reduction.cuda import kernels, launches

# Operations that allocate, and those that start work on a device; views do neither.
ALLOCATIONS = {"empty", "zeros", "_to_copy", "clone", "new_empty"}
VIEWS = {
    "detach",
    "view",
    "split",
    "split_with_sizes",
    "unbind",
    "permute",
    "select",
    "alias",
    "lift_fresh",
}


class Operations(TorchDispatchMode):
    """Counts the operations of torch by name."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def launched(monkeypatch):
    """The names of the kernels that would have been launched; tensors seem to be on a GPU."""
    names: list[str] = []
    monkeypatch.setattr(launches, "launch", lambda kernel, *_: names.append(kernel.__name__))
    monkeypatch.setattr(checked, "kernels", lambda _: launches)
    monkeypatch.setattr(checked, "work_in_groups", lambda _: True)
    monkeypatch.setattr(checked, "counts_magnitudes", lambda _: True)
    monkeypatch.setattr(groups, "_is_on_gpu", lambda x: True)
    return names


@pytest.fixture(scope="module")
def outputs():
    """The outputs of resnet34's layers, and as many gradients."""
    model, items = build("resnet34", classes=5, seed=0), []
    for _, module, _ in gradflow.hooks.layers.observed_modules(model):
        module.register_forward_hook(
            lambda module, _, out: items.append((out.detach(), channel_axis(module, out), False))
        )
    model(torch.zeros(2, 3, 32, 32))
    return items * 2


@pytest.mark.parametrize("histogram", [False, True])
def test_a_network_takes_far_fewer_launches_and_allocations_than_it_has_tensors(
    launched, outputs, histogram
):
    items = [(x, axis, histogram) for x, axis, _ in outputs]
    tables = -(-len(items) // kernels.ROWS)
    with Operations() as operations:
        found = groups.reduce_on_device(items)
    allocated = sum(operations.seen[name] for name in ALLOCATIONS)
    work = sum(count for name, count in operations.seen.items() if name not in VIEWS | ALLOCATIONS)
    copies, zeros = operations.seen["_to_copy"], operations.seen["zeros"]
    print(
        f"{len(items)} tensors: {len(launched)} launches of kernels, {tables} copies of tables, "
        f"{zeros} of zeros, {allocated} allocations; {dict(operations.seen)}"
    )
    assert len(found) == len(items) > 200
    # The last layer's output and its gradient have channels side by side, all others in runs.
    assert len(launched) == 2 * tables + 2
    assert copies <= tables
    assert work == 0
    assert allocated <= (5 if histogram else 4) * tables
    assert len(launched) + tables + zeros < 30 + len(items) // 4


def test_a_tensor_alone_takes_two_launches(launched):
    with torch.no_grad():
        launches.reduce(torch.zeros(2, 3, 4), 1)
    assert launched == ["reduce_one", "merge_one"]


class Compiled:
    """What Triton makes of a kernel: it is launched directly."""

    def __init__(self, error=None):
        self.launches, self.error = [], error

    def __getitem__(self, grid):
        def run(*arguments):
            if self.error is not None:
                raise self.error
            self.launches.append((grid, arguments))

        return run


class Kernel:
    """A kernel with Triton's own way to a launch, which compiles it first."""

    def __init__(self, compiled):
        self.compiled, self.dispatched = compiled, []

    def __getitem__(self, grid):
        def run(*arguments, **options):
            self.dispatched.append((grid, arguments))
            return self.compiled

        return run


@pytest.fixture
def nothing_kept(monkeypatch):
    monkeypatch.setattr(launches, "_kept", {})
    monkeypatch.setattr(launches, "_keeps", [True])


@pytest.mark.parametrize("takes_constants", [False, True])
def test_from_the_second_launch_on_a_kernel_is_launched_directly(
    takes_constants, nothing_kept, monkeypatch
):
    monkeypatch.setattr(launches, "_TAKES_CONSTANTS", takes_constants)
    kernel, x = Kernel(Compiled()), torch.zeros(2)
    for programs in (5, 6, 7):
        launches.launch(kernel, programs, (x, 3), (1024, False))
    constants = (1024, False) if takes_constants else ()
    assert kernel.dispatched == [((5,), (x, 3, 1024, False))]
    assert kernel.compiled.launches == [
        ((programs, 1, 1), (x, 3, *constants)) for programs in (6, 7)
    ]


@pytest.mark.parametrize("other", [torch.zeros(2).double(), None])
def test_another_type_or_constant_compiles_another_kernel(nothing_kept, other):
    kernel, x = Kernel(Compiled()), torch.zeros(2)
    launches.launch(kernel, 1, (x,), (1,))
    launches.launch(kernel, 1, (x if other is None else other,), (1 if other is not None else 2,))
    assert len(kernel.dispatched) == 2
    assert not kernel.compiled.launches


@pytest.mark.parametrize("error", [TypeError("function takes 9 arguments"), AttributeError("run")])
def test_where_tritons_internals_differ_its_own_way_is_taken(nothing_kept, error):
    kernel, x = Kernel(Compiled(error)), torch.zeros(2)
    for programs in (5, 6, 7):
        launches.launch(kernel, programs, (x,), ())
    assert [grid for grid, _ in kernel.dispatched] == [(5,), (6,), (7,)]


def test_in_the_interpreter_nothing_is_kept(nothing_kept):
    kernel = Kernel(None)
    for _ in range(2):
        launches.launch(kernel, 1, (torch.zeros(2),), ())
    assert len(kernel.dispatched) == 2


@pytest.mark.parametrize("axis", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("shape", [(24, 64, 48, 48), (24, 48, 48, 64), (8, 1, 1, 50_257), (1,) * 4])
def test_programs_cover_each_element_once(shape, axis):
    plan = launches.layout(shape, axis)
    channels = 1 if axis is None else shape[axis]
    assert plan.channels == channels
    assert plan.size * channels == torch.Size(shape).numel()
    # The tiles of all parts cover a channel; the last part has a tile of its own.
    assert plan.parts * plan.steps * plan.block >= plan.size
    assert (plan.parts - 1) * plan.steps * plan.block < plan.size
    assert plan.blocks * plan.beside >= channels > (plan.blocks - 1) * plan.beside
    assert plan.programs == plan.parts * plan.blocks <= max(2 * launches._PROGRAMS, plan.blocks)
