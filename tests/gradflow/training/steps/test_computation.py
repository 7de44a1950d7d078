"""Trainings in each precision, compiled, and with channels last: what is computed and recorded."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from gradflow.errors import ConfigurationError, TrainingError
from gradflow.train_and_trace import main
from gradflow.training import loop
from gradflow.training.configuration import Configuration
from gradflow.training.optimizer_state import restore_scaler
from gradflow.training.steps.computation import Computation, computation_of, exact

CPU = torch.device("cpu")


def computation(**options):
    return computation_of(Configuration(**options), CPU)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))


def images():
    return torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_in_float32_nothing_is_done_to_the_logits():
    model, x = network(), images()
    assert torch.equal(computation().forward(model, x), model(x))


@pytest.mark.parametrize(("precision", "kind"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_autocast_computes_in_the_type_and_returns_float32(precision, kind):
    model, x, seen = network(), images(), []
    model[0].register_forward_hook(lambda *given: seen.append(given[-1].dtype))
    logits = computation(precision=precision).forward(model, x)
    assert seen == [kind]
    assert logits.dtype == torch.float32
    weights = [layer.weight.to(kind) for layer in (model[0], model[3])]
    hidden = F.conv2d(x.to(kind), weights[0], model[0].bias.to(kind)).relu().flatten(1)
    expected = F.linear(hidden, weights[1], model[3].bias.to(kind))
    assert torch.equal(logits, expected.float())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_channels_last_lays_out_weights_and_images():
    own = computation(channels_last=True)
    model, seen = own.place(network()), []
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    model[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].stride()))
    torch.testing.assert_close(own.forward(model, images()), network()(images()))
    assert seen == [(192, 1, 24, 3)]


def test_tf32_means_nothing_on_the_cpu_and_says_so():
    own = computation(precision="tf32")
    assert own.precision == "float32"
    assert own.description()["note"] == "tf32 means nothing on the cpu: float32 is used"


def test_a_precision_that_the_device_lacks_is_refused():
    with pytest.raises(ConfigurationError, match="--precision bf16 needs the device cpu or cuda"):
        computation_of(Configuration(precision="bf16"), torch.device("mps"))


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_torchs_settings_hold_during_the_training_and_are_put_back(precision):
    def settings():
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    before, allowed = settings(), precision == "tf32"
    with Computation(CPU, precision, False, False).running():
        assert settings() == (allowed, allowed)
        with exact():
            assert settings() == (False, False)
        assert settings() == (allowed, allowed)
    assert settings() == before


def test_a_network_that_cannot_be_compiled_costs_one_sentence():
    def broken(graph, inputs):
        raise ValueError("no compiler here")

    own = computation(compile=True)
    with pytest.raises(TrainingError, match="cannot be compiled on this machine"), own.running():
        torch.compile(network(), backend=broken)(images())
    with pytest.raises(RuntimeError, match="another"), own.running():
        raise RuntimeError("another")


@pytest.mark.parametrize(
    "state", [{"scale": s} for s in (-1.0, math.inf, math.nan, 0.0, "x", 3)]
    + [{"_growth_tracker": c} for c in (-1, 10**9, 1.5, True, None)],
)  # fmt: skip
def test_a_scale_that_no_training_has_is_refused(state):
    scaler = torch.amp.GradScaler("cpu")
    with pytest.raises(ValueError, match=r"present loss scale|positive number"):
        restore_scaler(scaler, {**scaler.state_dict(), **state})


OPTIONS = ["--models", "resnet20", "--epochs", "2", "--batch-size", "8", "--device", "cpu"]
OPTIONS += ["--probes", "loss_slice", "--trace-every", "1"]


def trained(images, folder, *options):
    assert main([*OPTIONS, "--data", str(images), "--out", str(folder), *options]) == 0
    (run,) = gradflow.open_experiment(folder).runs
    return run


@pytest.fixture(scope="module")
def float32(images, tmp_path_factory):
    return trained(images, tmp_path_factory.mktemp("float32") / "x")


# fp16 takes some 20 times as long on most CPUs.
@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp16", marks=pytest.mark.slow)])
def test_a_training_in_lower_precision_records_nearly_the_same(
    precision, images, float32, tmp_path
):
    run = trained(images, tmp_path / "x", "--precision", precision)
    assert run.description["computation"]["precision"] == precision
    first = [each.gradients[each.gradients.step == 0].set_index("layer") for each in (float32, run)]
    ratio = (first[1].norm / first[0].norm.reindex(first[1].index)).to_numpy()
    # 8 bits of mantissa, and 20 layers: the gradients are those of the unscaled loss.
    assert np.isfinite(ratio).all()
    assert abs(np.log(ratio)).max() < 0.2
    assert not np.array_equal(ratio, np.ones_like(ratio))
    scales = run.steps.scale.dropna()
    assert len(scales) == (6 if precision == "fp16" else 0)
    # The probe measures the trained weights, in float32.
    assert np.isfinite(run.table("loss_slice").loss).all()


def test_channels_last_and_compilation_are_recorded_and_train_alike(images, float32, tmp_path):
    run = trained(images, tmp_path / "x", "--channels-last", "--compile")
    used = run.description["computation"]
    assert (used["memory_format"], used["compiled"]) == ("channels_last", True)
    first = [each.gradients[each.gradients.step == 0].set_index("layer") for each in (float32, run)]
    np.testing.assert_allclose(first[1].norm, first[0].norm.reindex(first[1].index), rtol=1e-3)


@pytest.mark.slow
def test_steps_that_are_not_recorded_run_compiled(images, float32, tmp_path, monkeypatch):
    compiled, compile_it = [], torch.compile

    def backend(graph, inputs):
        def run(*given):
            compiled.append(len(given[-1]))
            return graph(*given)

        return run

    # The default backend needs a C compiler, and minutes.
    monkeypatch.setattr(torch, "compile", lambda *x, **how: compile_it(*x, **how, backend=backend))
    run = trained(images, tmp_path / "x", "--compile", "--trace-every", "3")
    assert list(run.steps.step) == [0, 3]
    assert len(compiled) == 4
    assert run.epochs.train_loss.equals(float32.epochs.train_loss)


@pytest.mark.slow
def test_a_resumed_training_goes_on_with_its_loss_scale(images, tmp_path, monkeypatch):
    fp16 = ["--precision", "fp16", "--epochs", "3", "--no-recalibrate"]

    def scaler(_):
        return torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)

    monkeypatch.setattr(Computation, "scaler", scaler)
    whole = trained(images, tmp_path / "whole", *fp16)
    evaluate, calls = loop.evaluate, []

    def interrupt(*given):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(*given)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", interrupt)
        given = [*OPTIONS, *fp16, "--data", str(images), "--out", str(tmp_path / "half")]
        assert main(given) == 130
    assert main(["--resume", str(tmp_path / "half")]) == 0
    (half,) = gradflow.open_experiment(tmp_path / "half").runs
    for table in ("gradients", "parameters", "steps", "predictions"):
        assert half.table(table).equals(whole.table(table)), table
    assert half.steps.scale.tolist() == [4, 4, 8, 8, 16, 16, 32, 32, 64]


@pytest.mark.parametrize("option", [["--precision", "bf16"], ["--compile"], ["--channels-last"]])
def test_a_resumed_training_keeps_what_it_computes_with(option, float32, capsys):
    folder = float32.folder.parent
    assert main(["--resume", str(folder), *option]) == 1
    assert f"leave out {option[0]}" in " ".join(capsys.readouterr().err.split())
    assert main(["--resume", str(folder), "--processes", "2"]) == 0


def test_run_json_says_where_the_images_were(float32):
    content = json.loads((float32.folder / "run.json").read_text())
    assert content["images"]["placement"] == {
        "device": "cpu", "bytes": 24 * 3 * 16 * 16, "free_bytes": None
    }  # fmt: skip
    assert content["computation"] == {
        "precision": "float32", "memory_format": "contiguous", "compiled": False,
        "loss_scaling": False,
    }  # fmt: skip
