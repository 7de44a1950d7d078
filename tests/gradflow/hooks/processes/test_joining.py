"""Several processes on one machine record what a single process would."""

import importlib.util
from pathlib import Path

import pytest
import torch

import gradflow
from gradflow.hooks.processes import joining
from gradflow.hooks.processes.places import Place
from gradflow.hooks.recording.records import JunctionRecord, StepRecord
from gradflow.hooks.reduction.fused import moments

SCRIPT = Path(__file__).with_name("distributed_training.py")


def load(script):
    spec = importlib.util.spec_from_file_location(script.stem, script)
    training = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(training)
    return training


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    training = load(SCRIPT)
    folder = tmp_path_factory.mktemp("single") / "run"
    training.train(training.make_model(), folder, slice(None))
    return gradflow.open_run(folder)


# Earlier torch shards on CUDA alone: its all-gather asks for what streams of the CPU do not have.
SHARDS_ON_THE_CPU = hasattr(torch.cpu.Stream, "record_event")
shards = pytest.mark.skipif(not SHARDS_ON_THE_CPU, reason="torch shards on CUDA alone")
REPLICATES = "torch.distributed._composable.replicate_with_fsdp"
replicates = pytest.mark.skipif(
    importlib.util.find_spec(REPLICATES) is None, reason="this torch has another replicate alone"
)


@pytest.fixture(
    scope="module",
    params=[
        ("ddp", 2),
        ("static", 2),
        ("accumulated", 2),
        ("zero", 2),
        ("replicate", 2),
        pytest.param(("replicate_by_fsdp", 2), marks=(shards, replicates)),
        pytest.param(("fsdp", 2), marks=shards),
        pytest.param(("hsdp", 4), marks=shards),
        pytest.param(("some", 5), marks=shards),
    ],
    ids=lambda kind: kind[0],
)
def joint(request, launch, tmp_path_factory):
    """The folder of a run of several processes, and what their launcher says of them."""
    folder = tmp_path_factory.mktemp("joint") / "run"
    return folder, launch(SCRIPT, folder, *request.param)


def test_several_processes_record_what_one_does(joint, single, assert_same_rows):
    folder, result = joint
    assert result.returncode == 0, result.stderr
    run = gradflow.open_run(folder)
    assert run.description["status"] == "complete"
    assert "not_recorded" not in run.description
    assert_same_rows(run, single)


def test_the_total_norm_is_that_of_the_averaged_gradient_before_and_after_clipping(joint):
    folder, result = joint
    assert result.returncode == 0, result.stderr
    steps, clipped_to = gradflow.open_run(folder).steps, load(SCRIPT).CLIPPED_TO
    assert (steps.backward_gradient_norm > 2 * clipped_to).all()
    assert steps.gradient_norm.tolist() == pytest.approx([clipped_to] * len(steps), rel=1e-4)


def test_one_process_writes_and_all_end(joint):
    folder, result = joint
    assert result.returncode == 0, result.stderr
    assert [path.name for path in folder.parent.iterdir()] == ["run"]
    parts = sorted(path.name for path in (folder / "gradients").iterdir())
    assert parts == ["part-0000000000-0000000001.parquet", "part-0000000002-0000000002.parquet"]


def test_processes_that_run_different_layers_go_on_and_say_what_is_missing(launch, tmp_path):
    result = launch(SCRIPT, tmp_path / "run", "uneven")
    assert result.returncode == 0, result.stderr
    run = gradflow.open_run(tmp_path / "run")
    (said,) = run.description["not_recorded"]
    assert "observed different layers or steps up to step 1" in said
    assert len(run.gradients) == 0
    assert list(run.epochs.epoch) == [1, 2]


def test_a_process_that_dies_leaves_a_readable_run(launch, tmp_path):
    result = launch(SCRIPT, tmp_path / "run", "dies")
    assert result.returncode != 0
    run = gradflow.open_run(tmp_path / "run")
    assert list(run.epochs.epoch) == [1]
    assert sorted(set(run.gradients.step)) == [0, 1]


def test_a_budget_records_the_same_steps_in_all_processes(launch, tmp_path):
    result = launch(SCRIPT, tmp_path / "run", "budget")
    assert result.returncode == 0, result.stderr
    run = gradflow.open_run(tmp_path / "run")
    # If they had recorded other steps, their records could not have been joined.
    assert "not_recorded" not in run.description
    assert list(run.steps.step[:2]) == [0, 4]
    assert len(run.steps) == run.description["budget"]["recorded_steps"] > 2


@pytest.fixture
def two_alike(monkeypatch):
    """A `Processes` of two that record the same; its `calls` are the collectives."""
    calls = []

    def all_reduce(tensor, *_):
        calls.append("all_reduce")

    def all_gather(everyone, tensor, *_):
        calls.append("all_gather")
        for rank, one in enumerate(everyone):
            one.copy_(tensor)
            one[:, 0] = rank  # each has a share of the batch

    monkeypatch.setattr(joining.dist, "all_reduce", all_reduce)
    monkeypatch.setattr(joining.dist, "all_gather", all_gather)
    processes = joining.Processes(torch.nn.Linear(1, 1))
    processes.place = Place(count=2, data_count=2)
    processes._counts = {f"sharded{index}": True for index in range(300)}
    processes.calls = calls
    return processes


def record_of(layers, parameters, step=0):
    record = StepRecord(1, step, histograms=True, loss_share=0.5)
    generator = torch.Generator().manual_seed(step)
    for index in range(layers):
        x = torch.randn(4, 3, generator=generator)
        record.activations[f"layer{index}"] = moments(x, 1, histogram=True)
        record.gradients[f"layer{index}"] = moments(x, 1, histogram=True)
        record.junctions[f"layer{index}"] = JunctionRecord(
            "identity", moments(x, 1), moments(x, 1), torch.rand(7, generator=generator).double()
        )
    for index in range(parameters):
        norms = {"weight_norm": 3.0, "gradient_norm": torch.tensor(2.0)}
        record.parameters[f"sharded{index}"] = norms
    return record


@pytest.mark.parametrize(("layers", "parameters"), [(1, 1), (40, 300), (0, 5), (5, 0)])
def test_a_transfer_takes_two_collectives_whatever_it_holds(two_alike, layers, parameters):
    records = [record_of(layers, parameters, step) for step in range(16)]
    assert two_alike.join(records) == records
    assert two_alike.calls == ["all_reduce", "all_gather"]


def test_what_would_not_fit_in_memory_at_once_is_exchanged_in_pieces(two_alike, monkeypatch):
    monkeypatch.setattr(joining, "_LARGEST_EXCHANGE", 1)
    records = two_alike.join([record_of(2, 3, step) for step in range(4)])
    assert two_alike.calls == ["all_reduce"] + 4 * ["all_gather"]
    for step, record in enumerate(records):
        alone = record_of(2, 3, step)
        for layer in ("layer0", "layer1"):
            found, one = record.activations[layer], alone.activations[layer]
            assert torch.as_tensor(found.values[:3]) == pytest.approx(2 * one.values[:3])
            assert (found.elements, found.batch_size) == (24, 8)
            assert torch.equal(found.magnitudes, 2 * one.magnitudes)
            products = alone.junctions[layer].products
            assert record.junctions[layer].products == pytest.approx(products / 2)
        # Two shards of the same norm.
        assert record.parameters["sharded1"]["weight_norm"] == pytest.approx(18**0.5)
        assert record.parameters["sharded1"]["gradient_norm"] == pytest.approx(8**0.5)
