"""What the callback records of a training by Ultralytics, beside what the optimizer receives."""

import os

import pytest
import torch

import gradflow

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def yolo(tmp_path_factory):
    """Makes a detector; its settings are written to a folder of the tests."""
    os.environ.setdefault("YOLO_CONFIG_DIR", str(tmp_path_factory.mktemp("settings")))
    os.environ.setdefault("YOLO_OFFLINE", "true")
    return pytest.importorskip("ultralytics").YOLO


@pytest.fixture(scope="module")
def data(yolo, tmp_path_factory):
    """Eight images with a square each."""
    pillow = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("squares")
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for place in range(8):
        image = pillow.new("RGB", (64, 64), (20 * place, 40, 60))
        image.paste((220, 220, 220), (16, 16, 48, 48))
        image.save(folder / "images" / f"{place}.png")
        (folder / "labels" / f"{place}.txt").write_text("0 0.5 0.5 0.5 0.5")
    described = folder / "squares.yaml"
    described.write_text(f"path: {folder}\ntrain: images\nval: images\nnames: [square]")
    return described


def callback(folder, **options):
    from gradflow.integrations.ultralytics import GradflowCallback  # noqa: PLC0415

    return GradflowCallback(folder, **options)


def received(trainer, found):
    """Note the norms of the gradients at each step of the trainer's optimizer."""

    def note(*_):
        parameters = trainer.model.named_parameters()
        found.append({name: float(p.grad.norm()) for name, p in parameters if p.grad is not None})

    trainer.optimizer.register_step_pre_hook(note)


def train(model, data, folder, **options):
    options = {"epochs": 3, "batch": 2, "nbs": 4, "optimizer": "SGD", "warmup_epochs": 0, **options}
    model.train(
        data=str(data), imgsz=64, device="cpu", workers=0, plots=False, verbose=False,
        project=str(folder), exist_ok=True, **options,
    )  # fmt: skip
    return model.trainer


@pytest.fixture(scope="module")
def trained(yolo, data, tmp_path_factory):
    """The same training without the callback and with it: trainers, run, and norms by hand."""
    folder, norms, steps = tmp_path_factory.mktemp("trained"), [], set()
    plain = train(yolo("yolov8n.yaml"), data, folder / "plain", warmup_epochs=1)
    model = yolo("yolov8n.yaml")
    callback(folder / "run", sinks=[lambda name, value, step: steps.add(step)]).attach(model)
    model.add_callback("on_train_start", lambda trainer: received(trainer, norms))
    traced = train(model, data, folder / "traced", warmup_epochs=1)
    run = gradflow.open_run(folder / "run")
    assert steps == set(run.steps.step)
    return plain, traced, run, norms


def test_weights_and_their_average_are_bit_for_bit_those_without_the_callback(
    trained, assert_same_weights
):
    plain, traced, _, _ = trained
    assert_same_weights(traced.model, plain.model)
    assert_same_weights(traced.ema.ema, plain.ema.ema)
    assert not any(module._forward_hooks for module in traced.model.modules())


def test_norms_are_those_that_the_optimizer_receives_after_warm_up_and_clipping(trained):
    _, _, run, norms = trained
    assert run.description["status"] == "complete"
    assert "not_recorded" not in run.description
    assert len(norms) == len(run.steps)
    assert (run.steps.clipping_factor < 1).any()
    for step, wanted in enumerate(norms):
        rows = run.parameters[run.parameters.step == step].set_index("parameter")
        found = rows.gradient_norm.dropna().to_dict()
        assert found == pytest.approx(wanted, rel=1e-4, abs=1e-9)


def test_an_epoch_has_its_losses_and_those_of_its_validation(trained):
    _, traced, run, _ = trained
    assert run.epochs.epoch.tolist() == [1, 2, 3]  # and none of the validation after the training
    assert run.epochs.step.iloc[-1] == len(run.steps) - 1
    for name in ("box_loss", "cls_loss", "dfl_loss"):
        wanted = traced.label_loss_items(traced.tloss)[f"train/{name}"]
        assert run.epochs[f"train_{name}"].iloc[-1] == pytest.approx(float(wanted))
        assert run.epochs[f"val_{name}"].nunique() == 3
    assert "metrics/mAP50(B)" in run.epochs


def test_an_epoch_without_validation_has_no_metrics_of_an_earlier_one(yolo, data, tmp_path):
    model = yolo("yolov8n.yaml")
    callback(tmp_path / "run").attach(model)
    train(model, data, tmp_path, val=False, epochs=2)
    epochs = gradflow.open_run(tmp_path / "run").epochs
    assert epochs.val_box_loss.isna().tolist() == [True, False]
    assert epochs.train_box_loss.notna().all()


def test_gradients_are_recorded_of_a_whole_accumulation_and_without_the_scale(yolo, data, tmp_path):
    norms = []

    def scaled(trainer):
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        received(trainer, norms)

    model = yolo("yolov8n.yaml")
    model.add_callback("on_train_start", scaled)
    callback(tmp_path / "run").attach(model)
    train(model, data, tmp_path, epochs=1)
    run = gradflow.open_run(tmp_path / "run")
    assert set(run.steps.scale) == {1024.0}
    assert len(norms) == len(run.steps) == 2  # of 4 batches
    for step, wanted in enumerate(norms):
        rows = run.parameters[run.parameters.step == step].set_index("parameter")
        assert rows.gradient_norm.dropna().to_dict() == pytest.approx(wanted, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("mine"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_a_training_that_fails_keeps_its_error_and_goes_on_with_its_run(
    yolo, data, tmp_path, error, status
):
    def fails(trainer):
        if trainer.epoch == 2:
            raise error

    model = yolo("yolov8n.yaml")
    ours = callback(tmp_path / "run")
    ours.attach(model)
    model.add_callback("on_train_batch_end", fails)
    with pytest.raises(type(error)) as caught, ours:
        train(model, data, tmp_path)
    assert caught.value is error
    run = gradflow.open_run(tmp_path / "run")
    assert run.description["status"] == status
    assert run.epochs.step.tolist() == [1, 3]
    assert run.steps.step.tolist()[:4] == [0, 1, 2, 3]
    assert not any(module._forward_hooks for module in model.trainer.model.modules())

    last = model.trainer.last
    resumed = yolo(str(last))
    callback(tmp_path / "run").attach(resumed)
    resumed.train(resume=True)
    run = gradflow.open_run(tmp_path / "run")
    assert run.description["status"] == "complete"
    assert run.description["resumed"][0]["step"] == 4
    assert run.steps.step.tolist() == list(range(6))
    assert run.epochs.step.tolist() == [1, 3, 5]
