"""Models and uses that cannot be traced raise an error that says so."""

import threading

import pytest
import torch
from torch import nn

import gradflow
from gradflow.errors import TracingError
from gradflow.hooks.refusals import refuse_in_processes


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


def test_options_that_need_one_process_are_refused_with_several():
    with pytest.raises(TracingError, match="not joined over processes"):
        refuse_in_processes(histograms=True, budget=False)
    with pytest.raises(TracingError, match="a schedule of steps"):
        refuse_in_processes(histograms=False, budget=True)


def test_a_forward_pass_in_another_thread_is_refused(tmp_path):
    model, errors = network(), []

    def run():
        try:
            model(torch.ones(2, 3))
        except TracingError as error:
            errors.append(str(error))

    with gradflow.Tracer(model, tmp_path / "run"):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert len(errors) == 1
    assert "another thread" in errors[0]


@pytest.mark.parametrize("compile_it", [lambda m: m.compile(), lambda m: m[0].compile()])
def test_a_model_compiled_in_place_is_refused(tmp_path, compile_it):
    model = network()
    compile_it(model)
    with pytest.raises(TracingError, match=r"compiled.*before torch\.compile"):
        gradflow.Tracer(model, tmp_path / "run")


# torch.compile looks at `grad` of tensors wherever it goes from one piece to the next.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("schedule", [1, 2])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_model_compiled_after_the_tracer_is_recorded_right(tmp_path, schedule, in_place):
    plain, model = network(), network()
    with gradflow.Tracer(plain, tmp_path / "plain", schedule=schedule) as tracer:
        train(plain, plain, tracer)
    torch.compiler.reset()
    with gradflow.Tracer(model, tmp_path / "run", schedule=schedule) as tracer:
        compiled = model if in_place else torch.compile(model, backend="eager")
        if in_place:
            model.compile(backend="eager")
        train(compiled, model, tracer)
    run, expected = (gradflow.open_run(tmp_path / name) for name in ("run", "plain"))
    for table in ("activations", "gradients"):
        mine, theirs = getattr(run, table), getattr(expected, table)
        assert list(mine.layer) == list(theirs.layer)
        assert list(mine.norm) == pytest.approx(list(theirs.norm), rel=1e-5)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_a_model_that_ran_compiled_before_fails_after_the_first_step_if_strict(tmp_path):
    model = network()
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager")
    compiled(torch.ones(2, 3)).sum().backward()
    with (
        gradflow.Tracer(model, tmp_path / "run", strict=True) as tracer,
        pytest.raises(TracingError, match=r"no layer was observed.*torch\.compile"),
    ):
        train(compiled, model, tracer)


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


def test_layers_that_were_never_reached_are_named_in_the_run(tmp_path):
    model = network()
    model.append(nn.ModuleList([nn.Linear(2, 2)]))
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        train(model[:3], model, tracer)
    assert gradflow.open_run(tmp_path / "run").description["unreached_layers"] == ["3.0"]


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
