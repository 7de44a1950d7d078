"""Models and uses that cannot be traced raise an error that says so."""

import re

import pytest
import torch
from torch import nn

import gradflow
from gradflow.errors import TracingError
from gradflow.hooks.refusals import refuse_old_torch


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def train(run_model, model, tracer, steps=4):
    for step in range(steps):
        model.zero_grad()
        x = torch.randn(2, 3, generator=torch.Generator().manual_seed(step))
        run_model(x).square().sum().backward()
        tracer.step()


@pytest.mark.parametrize("wrap", [lambda m: m, nn.Sequential])
def test_data_parallel_is_refused_wherever_it_stands(tmp_path, wrap):
    with pytest.raises(TracingError, match=r"DataParallel.*trace the module inside it"):
        gradflow.Tracer(wrap(nn.DataParallel(network())), tmp_path / "run")


def test_a_wrapper_of_several_processes_is_seen_through_but_not_inside_another(tmp_path):
    distributed = pytest.importorskip("torch.distributed")
    if not distributed.is_available():
        pytest.skip("this torch has no distributed package")
    store = distributed.HashStore()
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(network())
        with pytest.raises(TracingError, match="wrapped as a whole"):
            gradflow.Tracer(nn.Sequential(wrapped), tmp_path / "run")
        with gradflow.Tracer(wrapped, tmp_path / "run") as tracer:
            train(wrapped, wrapped, tracer, steps=1)
        assert list(gradflow.open_run(tmp_path / "run").gradients.layer) == ["2", "1", "0"]
    finally:
        distributed.destroy_process_group()


def test_a_model_sharded_the_older_way_is_refused(tmp_path):
    # The class alone tells: to shard for good takes several devices.
    class FullyShardedDataParallel(nn.Sequential):
        pass

    with pytest.raises(TracingError, match="sharded by FullyShardedDataParallel"):
        gradflow.Tracer(FullyShardedDataParallel(nn.Linear(2, 2)), tmp_path / "run")


def deepspeed_class(name, *bases):
    """A stand-in for a class of DeepSpeed, which takes a GPU to install."""
    return type(name, bases, {"__module__": "deepspeed.runtime.engine"})


@pytest.mark.parametrize("engine", ["DeepSpeedEngine", "PipelineEngine"])
@pytest.mark.parametrize("inside", [False, True])
def test_an_engine_of_deepspeed_is_refused_wherever_it_stands(tmp_path, engine, inside):
    base = deepspeed_class("DeepSpeedEngine", nn.Module)
    model = (base if engine == "DeepSpeedEngine" else deepspeed_class(engine, base))()
    model.module = network()
    with pytest.raises(
        TracingError, match=rf"{engine} of DeepSpeed.*not in \.grad.*docs/reference/tracer"
    ):
        gradflow.Tracer(nn.Sequential(model) if inside else model, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("mark", ["ds_id", "_hp_mapping"])
def test_the_module_inside_such_an_engine_is_refused_too(tmp_path, mark):
    model = network()
    setattr(model[2].bias, mark, None)
    with pytest.raises(TracingError, match=r"parameter 2\.bias is a partition of DeepSpeed"):
        gradflow.Tracer(model, tmp_path / "run")


@pytest.mark.parametrize("name", ["DeepSpeedZeroOptimizer", "DeepSpeedZeroOptimizer_Stage3"])
@pytest.mark.parametrize("depth", [0, 1])
def test_an_optimizer_of_deepspeed_is_refused_also_in_a_wrapper(tmp_path, name, depth):
    model = network()
    inner = torch.optim.SGD(model.parameters())
    zero = deepspeed_class(name, object)()
    zero.optimizer, zero.param_groups = inner, inner.param_groups
    given = zero
    for _ in range(depth):  # accelerate's, for one
        wrapper = type("DeepSpeedOptimizerWrapper", (), {})()
        wrapper.optimizer, given = given, wrapper
    message = f"the optimizer is a {name} of DeepSpeed"
    with pytest.raises(TracingError, match=message):
        gradflow.Tracer(model, tmp_path / "run", optimizer=[given])
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        with pytest.raises(TracingError, match=message):
            tracer.use_optimizer(given)
        train(model, model, tracer, steps=1)


@pytest.mark.parametrize("version", ["1.13.1", "2.5.1+cu124", "2.5.0a0+git1234"])
def test_a_torch_that_is_too_old_is_refused_by_name(version):
    with pytest.raises(TracingError, match=rf"torch {re.escape(version)} .* needs 2\.6 or newer"):
        refuse_old_torch(version)


@pytest.mark.parametrize("version", ["2.6.0", "2.15.0+cpu", "3.0.0.dev20270101", torch.__version__])
def test_a_newer_torch_is_not_refused(version):
    refuse_old_torch(version)


def test_what_is_no_module_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(TracingError, match=r"of type function: give the tracer the torch"):
        gradflow.Tracer(network, tmp_path / "run")


def test_every_refusal_names_the_page_on_what_can_be_traced(tmp_path):
    with pytest.raises(TracingError, match=r"\(see docs/reference/tracer\.md\)$"):
        gradflow.Tracer(nn.DataParallel(network()), tmp_path / "run")


def test_a_step_in_which_nothing_was_observed_is_an_error_if_strict(tmp_path):
    model = network().eval()
    with (
        gradflow.Tracer(model, tmp_path / "run", strict=True) as tracer,
        pytest.raises(TracingError, match=r"no layer was observed in step 0.*model\.train"),
    ):
        train(model, model, tracer)


def test_a_training_in_which_nothing_is_observed_goes_on_and_says_so_once(tmp_path):
    model = network().eval()
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        with pytest.warns(UserWarning, match=r"gradflow: no layer was observed in step 0"):
            train(model, model, tracer)
        train(model, model, tracer)  # another warning would be an error
    run = gradflow.open_run(tmp_path / "run")
    assert len(run.steps) > 1
    assert len(run.parameters) > 0
    (said,) = run.description["not_recorded"]
    assert said.startswith("no layer was observed in step 0")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*torch.jit.*")
@pytest.mark.parametrize(
    "convert", [torch.jit.script, lambda m: torch.jit.trace(m, torch.ones(2, 3))]
)
@pytest.mark.parametrize("inside", [False, True])
def test_models_made_by_torch_jit_are_refused_in_a_sentence(tmp_path, convert, inside):
    made = convert(network())
    model = nn.Sequential(made) if inside else made
    with pytest.raises(TracingError, match=r"torch\.jit.*give the tracer the Python module"):
        gradflow.Tracer(model, tmp_path / "run")
    assert not (tmp_path / "run").exists()
