"""Layers that are split over processes are recorded as in one process, or left out and named."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import gradflow
from gradflow.errors import TracingError
from gradflow.hooks.processes.layouts import UNKNOWN, WHOLE, Layout, Layouts
from gradflow.hooks.reduction.parts import Part

SCRIPT = Path(__file__).with_name("parallel_training.py")
# Earlier torch shards on CUDA alone: its all-gather asks for what streams of the CPU do not have.
SHARDS_ON_THE_CPU = hasattr(torch.cpu.Stream, "record_event")
LEFT_OUT = ("1.attention.v_act", "2.attention.v_act")  # on a view of what is split


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    training = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(training)
    folder = tmp_path_factory.mktemp("single") / "run"
    training.train(training.make_model(), folder)
    return gradflow.open_run(folder)


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("layers", 2),
        pytest.param("layers", 4, marks=pytest.mark.slow),
        ("sequence", 2),
        ("distributed", 2),
        pytest.param(
            "fsdp",
            4,
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(not SHARDS_ON_THE_CPU, reason="torch shards on CUDA alone"),
            ],
        ),
    ],
)
def test_split_layers_are_recorded_as_in_one_process(
    launch, single, assert_same_rows, tmp_path, kind, count
):
    result = launch(SCRIPT, tmp_path / "run", kind, count)
    assert result.returncode == 0, result.stderr
    run = gradflow.open_run(tmp_path / "run")
    left_out = () if kind == "distributed" else LEFT_OUT
    assert_same_rows(run, single, only=lambda name: name not in left_out)
    said = run.description.get("not_recorded", [])
    assert len(said) == bool(left_out)
    assert all("1.attention.v_act, 2.attention.v_act are left out" in one for one in said)
    shapes = [
        dict(zip(one.layers.layer, one.layers["shape"], strict=True)) for one in (run, single)
    ]
    assert all(shapes[0][name] == shapes[1][name] for name in shapes[1] if name not in left_out)


def test_a_parameter_that_should_be_the_same_everywhere_and_is_not_is_left_out(launch, tmp_path):
    result = launch(SCRIPT, tmp_path / "run", "apart")
    assert result.returncode == 0, result.stderr
    run = gradflow.open_run(tmp_path / "run")
    (said,) = [one for one in run.description["not_recorded"] if "should have the same" in one]
    assert "1.attention.k_norm.weight" in said
    assert "1.attention.k_norm.weight" not in set(run.parameters.parameter)
    assert "1.attention.q.weight" in set(run.parameters.parameter)


@pytest.fixture
def mesh():
    """A mesh of two processes of which there is only this one: nothing is exchanged."""
    fake = pytest.importorskip("torch.testing._internal.distributed.fake_pg")
    from torch.distributed.device_mesh import init_device_mesh  # noqa: PLC0415

    torch.distributed.init_process_group("fake", store=fake.FakeStore(), rank=0, world_size=2)
    try:
        yield init_device_mesh("cpu", (2,))
    finally:
        torch.distributed.destroy_process_group()


@pytest.fixture
def made(mesh):
    """Makes a local tensor [4, 6] of a DTensor that is split along `axis`, or whole."""
    from torch.distributed.tensor import DTensor, Replicate, Shard  # noqa: PLC0415

    def make(axis):
        placement = Replicate() if axis is None else Shard(axis)
        local = torch.randn(4, 6, requires_grad=True)
        return DTensor.from_local(local, mesh, [placement]) * 2

    return make


COLUMNS = Layout(1, (4, 12))


@pytest.mark.parametrize(
    ("operation", "layout"),
    [
        (lambda x: x, COLUMNS),
        (F.relu, COLUMNS),
        (lambda x: F.silu(x) * torch.tanh(x) + 1, COLUMNS),
        (lambda x: F.dropout(x, 0.5, training=True) / 3, COLUMNS),
        (lambda x: x.double().clone(), COLUMNS),
        # Of these nothing tells how they are split, if at all.
        (lambda x: x.sum(1), UNKNOWN),
        (lambda x: x.t(), UNKNOWN),
        (lambda x: x.unflatten(1, (2, 3)), UNKNOWN),
        (lambda x: x.softmax(1), UNKNOWN),
        (lambda x: x + x.sum(0), UNKNOWN),
        (lambda x: x * nn.Parameter(torch.ones(4, 6)), UNKNOWN),
        (lambda x: F.relu(x.t()), UNKNOWN),
        (lambda x: checkpoint(F.relu, x, use_reentrant=True), UNKNOWN),
    ],
)
def test_operations_by_element_keep_the_layout_of_a_local_tensor(made, operation, layout):
    assert Layouts(2).of(operation(made(1).to_local())) == layout


def test_a_part_is_named_by_the_axis_that_is_split(made):
    layouts = Layouts(2)
    columns, rows, whole = (layouts.of(made(axis)) for axis in (1, 0, None))
    assert [columns.part(1), rows.part(1), whole.part(1)] == [
        Part.CHANNELS,
        Part.BATCH,
        Part.WHOLE,
    ]
    assert columns.part(0) is Part.POSITIONS
    assert UNKNOWN.part(1) is Part.UNKNOWN


def test_tensors_split_in_different_ways_are_of_unknown_layout(made):
    columns, rows = made(1).to_local(), made(0).to_local()
    assert Layouts(2).of(columns + rows) == UNKNOWN
    assert Layouts(2).of(columns + made(None).to_local()) == UNKNOWN


def test_what_is_made_of_nothing_split_is_whole(made):
    x, linear = torch.randn(4, 6), nn.Linear(6, 3)
    assert Layouts(2).of(linear(x)) == WHOLE
    assert Layouts(2).of(linear(made(None).to_local()).softmax(1)) == WHOLE
    # An input that has gradients may be a part, as that of a checkpointed segment.
    assert Layouts(2).of(linear(x.requires_grad_())) == UNKNOWN
    with torch.no_grad():
        assert Layouts(2).of(linear(x)) == UNKNOWN


def test_a_pending_sum_is_of_unknown_layout(mesh):
    from torch.distributed.tensor import DTensor, Partial  # noqa: PLC0415

    summand = DTensor.from_local(torch.ones(4, 6), mesh, [Partial()])
    assert Layouts(2).of(summand) == UNKNOWN
    assert Layouts(2).of_gradient(summand, WHOLE) == UNKNOWN


def test_a_function_written_by_hand_may_split_or_gather(made):
    class Half(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x[:, :3].clone()

        @staticmethod
        def backward(ctx, gradient):
            return F.pad(gradient, (0, 3))

    assert Layouts(2).of(Half.apply(made(None).to_local())) == UNKNOWN


def test_a_single_process_looks_at_no_graph():
    layouts = Layouts(1)
    assert layouts.of(torch.randn(3, requires_grad=True) * 2) is WHOLE
    assert layouts._of_nodes == {}


@pytest.mark.filterwarnings("ignore:DTensor random operators:UserWarning")
def test_split_parameters_in_a_wrapper_that_knows_whole_ones_are_refused(mesh):
    from torch.distributed.tensor import Shard, distribute_tensor  # noqa: PLC0415

    model = nn.Linear(4, 4, bias=False)
    wrapped = nn.parallel.DistributedDataParallel(model)
    model.weight = nn.Parameter(distribute_tensor(model.weight.detach(), mesh, [Shard(0)]))
    with pytest.raises(TracingError, match="parameters are split over processes"):
        gradflow.Tracer(wrapped, "never-written")
