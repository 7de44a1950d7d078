"""What the callback records of a Lightning training, beside the same training as a plain loop."""

import os
import signal
from importlib import import_module

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import gradflow
from gradflow.errors import RunError, TracingError
from gradflow.integrations.lightning import GradflowCallback

# Of the library's own: none of it is about what is recorded.
pytestmark = pytest.mark.filterwarnings("ignore")

BATCH, EPOCHS = 4, 3
LIBRARIES = ("lightning.pytorch", "pytorch_lightning")


def loss_of(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def make_module(network, library="lightning.pytorch", **changes):
    class Module(import_module(library).LightningModule):
        def __init__(self):
            super().__init__()
            self.layers = network

        def forward(self, x):
            return self.layers(x)

        def training_step(self, batch, batch_idx):
            loss = loss_of(self.layers, batch)  # a part of the module, and never the module
            self.log("train_loss", loss, on_epoch=True, on_step=False)
            return loss

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", loss_of(self.layers, batch))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    return type("Changed", (Module,), changes)()


def make_trainer(folder, callbacks, library="lightning.pytorch", **options):
    options = {"max_epochs": EPOCHS, "logger": False, "enable_checkpointing": False, **options}
    return import_module(library).Trainer(
        accelerator="cpu", devices=1, enable_progress_bar=False, enable_model_summary=False,
        callbacks=callbacks, default_root_dir=folder, **options,
    )  # fmt: skip


def plain_loop(module, folder, batches, *, accumulate=1, clip=None, epochs=EPOCHS, bf16=False):
    """The same training, written by hand."""
    optimizer = module.configure_optimizers()
    with gradflow.Tracer(module, folder, optimizer=optimizer) as tracer:
        for _ in range(epochs):
            module.train()
            for place, batch in enumerate(batches, start=1):
                tracer.begin_pass()
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    loss = loss_of(module.layers, batch) / accumulate
                tracer.log(loss=loss * accumulate)
                loss.backward()
                if place % accumulate and place < len(batches):
                    continue
                if clip:
                    nn.utils.clip_grad_norm_(module.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
            tracer.end_epoch()
    return gradflow.open_run(folder)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("trained", "by_hand"),
    [
        ({}, {}),
        ({"accumulate_grad_batches": 2}, {"accumulate": 2}),
        ({"accumulate_grad_batches": 4}, {"accumulate": 4}),  # does not divide the epoch
        ({"gradient_clip_val": 0.1}, {"clip": 0.1}),
        ({"precision": "bf16-mixed"}, {"bf16": True}),
    ],
    ids=["plain", "accumulated", "accumulated-with-rest", "clipped", "bf16"],
)
def test_rows_are_those_of_the_same_training_as_a_plain_loop(
    tmp_path, make_network, examples, assert_same_run, library, trained, by_hand
):
    batches = DataLoader(examples, BATCH)
    module = make_module(make_network(), library)
    torch.manual_seed(5)
    wanted = plain_loop(module, tmp_path / "plain", batches, **by_hand)
    module = make_module(make_network(), library)
    trainer = make_trainer(tmp_path, [GradflowCallback(tmp_path / "run")], library, **trained)
    torch.manual_seed(5)
    trainer.fit(module, batches)
    run = gradflow.open_run(tmp_path / "run")
    assert_same_run(run, wanted)
    assert run.description["status"] == "complete"
    if "gradient_clip_val" in trained:
        assert (run.steps.clipping_factor < 1).all()


@pytest.mark.parametrize("library", LIBRARIES)
def test_weights_are_bit_for_bit_those_without_the_callback(
    tmp_path, make_network, examples, assert_same_weights, library
):
    trained = []
    for callbacks in ([], [GradflowCallback(tmp_path / "run", histograms=True)]):
        module = make_module(make_network(), library)
        batches = DataLoader(examples, BATCH, shuffle=True)
        torch.manual_seed(5)
        trainer = make_trainer(tmp_path, callbacks, library, gradient_clip_val=0.5)
        trainer.fit(module, batches, DataLoader(examples, BATCH))
        trained.append(module)
    assert_same_weights(*trained)
    assert not any(module._forward_hooks for module in trained[1].modules())


def test_sanity_check_and_validation_are_no_steps_and_their_metrics_are_the_epochs(
    tmp_path, make_network, examples
):
    def on_train_epoch_end(self):
        self.log("logged/late", float(self.current_epoch))
        self.log("step", 7.0)  # which the table has already

    module = make_module(make_network(), on_train_epoch_end=on_train_epoch_end)
    trainer = make_trainer(tmp_path, [GradflowCallback(tmp_path / "run")], num_sanity_val_steps=2)
    trainer.fit(module, DataLoader(examples, BATCH), DataLoader(examples, BATCH))
    run = gradflow.open_run(tmp_path / "run")
    epochs = run.epochs
    assert epochs.epoch.tolist() == [1, 2, 3]
    assert epochs.step.tolist() == [5, 11, 17]
    assert epochs["logged/late"].tolist() == [0.0, 1.0, 2.0]
    assert epochs.val_loss.iloc[-1] == pytest.approx(float(trainer.callback_metrics["val_loss"]))
    assert epochs.train_loss.iloc[-1] == pytest.approx(
        float(trainer.callback_metrics["train_loss"])
    )
    assert run.activations.step.nunique() == 18
    assert set(run.activations.batch_size) == {BATCH}


class Adversaries:
    """Manual optimization of two networks, one of them at every second batch."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        first, second = self.optimizers()
        self.step_of(first, batch)
        if batch_idx % 2:
            self.step_of(second, batch)

    def step_of(self, optimizer, batch):
        optimizer.zero_grad()
        self.manual_backward(loss_of(self.layers, batch))
        optimizer.step()

    def configure_optimizers(self):
        return [
            torch.optim.SGD(self.layers[0].parameters(), lr=0.1),
            torch.optim.AdamW(self.layers[2].parameters(), lr=0.01),
        ]


def test_several_optimizers_by_hand_make_one_step_of_a_batch(
    tmp_path, make_network, examples, assert_same_run
):
    changes = {name: value for name, value in vars(Adversaries).items() if name[:2] != "__"}
    batches = DataLoader(examples, BATCH)
    module = make_module(make_network(), **changes)
    torch.manual_seed(5)
    optimizers = module.configure_optimizers()
    with gradflow.Tracer(module, tmp_path / "plain", optimizer=optimizers) as tracer:
        module.train()
        for place, batch in enumerate(batches):
            tracer.begin_pass()
            for optimizer in optimizers[: 1 + place % 2]:
                optimizer.zero_grad()
                loss = loss_of(module.layers, batch)
                tracer.log(loss=loss)
                loss.backward()
                optimizer.step()
        tracer.end_epoch()
    module = make_module(make_network(), **changes)
    torch.manual_seed(5)
    trainer = make_trainer(tmp_path, [GradflowCallback(tmp_path / "run")], max_epochs=1)
    trainer.fit(module, batches)
    run = gradflow.open_run(tmp_path / "run")
    assert_same_run(run, gradflow.open_run(tmp_path / "plain"))
    assert len(run.steps) == 6
    assert set(run.parameters.optimizer) == {"SGD", "AdamW", "none"}


def test_gradients_are_recorded_without_the_scale_and_skipped_steps_are_marked(
    tmp_path, make_network, examples
):
    plugins = import_module("lightning.pytorch.plugins")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    left = []

    def training_step(self, batch, batch_idx):
        loss = loss_of(self.layers, batch)
        return loss * float("inf") if batch_idx == 2 else loss

    def on_before_optimizer_step(self, optimizer):
        left.append({name: float(p.grad.norm()) for name, p in self.named_parameters()})

    changes = {f.__name__: f for f in (training_step, on_before_optimizer_step)}
    module = make_module(make_network(), **changes)
    precision = plugins.MixedPrecision("16-mixed", "cpu", scaler=scaler)
    trainer = make_trainer(
        tmp_path, [GradflowCallback(tmp_path / "run")], plugins=precision, max_epochs=1
    )
    trainer.fit(module, DataLoader(examples, BATCH))
    run = gradflow.open_run(tmp_path / "run")
    assert run.steps.skipped.tolist() == [False, False, True, False, False, False]
    assert run.steps.scale.tolist() == [1024.0] * 3 + [512.0] * 3
    assert len(left) == 6  # read once the scale was taken out, without a wait for the next step
    for step in (0, 1, 3, 4, 5):
        found = run.parameters[run.parameters.step == step].set_index("parameter").gradient_norm
        assert found.to_dict() == pytest.approx(left[step], rel=1e-5)


def checkpointed(folder, **options):
    callbacks = import_module("lightning.pytorch.callbacks")
    return callbacks.ModelCheckpoint(
        dirpath=folder, filename="{epoch}-{step}", save_top_k=-1, **options
    )


@pytest.mark.parametrize(
    "saved",
    [
        {},
        {"every_n_train_steps": 4},
        {"every_n_train_steps": 6},  # the last step of an epoch, before that has ended
        {"save_on_train_epoch_end": False},  # after validation, before the epoch has ended
    ],
    ids=["epoch", "within-epoch", "last-step", "validation"],
)
def test_a_restart_goes_on_with_the_run_of_its_checkpoint(
    tmp_path, make_network, examples, assert_same_run, assert_same_weights, saved
):
    class StopError(Exception):
        pass

    def stops(self, *args):
        if self.trainer.current_epoch == 2:
            raise StopError

    def fit(folder, *, checkpoint=None, **changes):
        network = make_network()
        network[1].inner[2].p = 0.0  # Lightning does not restore the random state
        module = make_module(network, **changes)
        callbacks = [GradflowCallback(folder), checkpointed(folder.parent / "kept", **saved)]
        trainer = make_trainer(
            tmp_path, callbacks, enable_checkpointing=True, num_sanity_val_steps=0
        )
        trainer.fit(
            module, DataLoader(examples, BATCH), DataLoader(examples, BATCH), ckpt_path=checkpoint
        )
        return module

    whole = fit(tmp_path / "whole")
    with pytest.raises(StopError):
        fit(tmp_path / "parted", on_train_batch_end=stops)
    parted = gradflow.open_run(tmp_path / "parted")
    assert parted.description["status"] == "failed"
    assert len(parted.steps) == 13
    checkpoint = max((tmp_path / "kept").glob("epoch=1*.ckpt"))
    resumed = fit(tmp_path / "parted", checkpoint=checkpoint)
    run = gradflow.open_run(tmp_path / "parted")
    assert run.description["status"] == "complete"
    assert len(run.description["resumed"]) == 1
    if saved != {"every_n_train_steps": 4}:
        # Lightning itself begins the epoch's batches anew after a checkpoint within one.
        assert_same_weights(resumed, whole)
        assert_same_run(run, gradflow.open_run(tmp_path / "whole"))
    assert run.epochs.epoch.tolist() == [1, 2, 3]
    assert run.steps.step.is_monotonic_increasing
    assert run.steps.step.is_unique


def test_the_same_trainer_goes_on_after_its_last_epoch(tmp_path, make_network, examples):
    module = make_module(make_network())
    trainer = make_trainer(tmp_path, [GradflowCallback(tmp_path / "run")], max_epochs=1)
    trainer.fit(module, DataLoader(examples, BATCH))
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, DataLoader(examples, BATCH))
    run = gradflow.open_run(tmp_path / "run")
    assert run.epochs.step.tolist() == [5, 11]
    assert len(run.steps) == 12


def test_a_restart_without_the_state_says_so(tmp_path, make_network, examples):
    batches = DataLoader(examples, BATCH)
    trainer = make_trainer(tmp_path, [], max_epochs=1)
    trainer.fit(make_module(make_network()), batches)
    trainer.save_checkpoint(tmp_path / "without.ckpt")
    trainer = make_trainer(tmp_path, [GradflowCallback(tmp_path / "run")], max_epochs=1)
    trainer.fit(make_module(make_network()), batches)
    trainer.save_checkpoint(tmp_path / "with.ckpt")
    rows = len(gradflow.open_run(tmp_path / "run").steps)

    def go_on(name, folder, **options):
        trainer = make_trainer(tmp_path, [GradflowCallback(folder, **options)], max_epochs=2)
        trainer.fit(make_module(make_network()), batches, ckpt_path=tmp_path / name)

    with pytest.raises(RunError, match=r"already holds a run.*checkpoint that has no state"):
        go_on("without.ckpt", tmp_path / "run")
    with pytest.raises(RunError, match=r"no folder.*give the folder of that run"):
        go_on("with.ckpt", tmp_path / "elsewhere")
    assert len(gradflow.open_run(tmp_path / "run").steps) == rows
    go_on("without.ckpt", tmp_path / "new")
    go_on("with.ckpt", tmp_path / "second", resume=False)
    for name in ("new", "second"):
        assert gradflow.open_run(tmp_path / name).epochs.step.tolist() == [5]


@pytest.mark.parametrize(
    ("error", "raised", "status"),
    [(ValueError("mine"), ValueError, "failed"), (KeyboardInterrupt(), SystemExit, "interrupted")],
    ids=["failure", "interruption"],
)
def test_a_training_that_fails_keeps_its_error_and_its_rows(
    tmp_path, make_network, examples, error, raised, status
):
    def fails(self, batch, batch_idx):
        if self.global_step == 8:
            raise error
        return loss_of(self.layers, batch)

    module = make_module(make_network(), training_step=fails)
    trainer = make_trainer(tmp_path, [GradflowCallback(tmp_path / "run")])
    with pytest.raises(raised) as caught:
        trainer.fit(module, DataLoader(examples, BATCH))
    if raised is ValueError:
        assert caught.value is error
    run = gradflow.open_run(tmp_path / "run")
    assert run.description["status"] == status
    assert run.steps.step.tolist() == list(range(8))
    assert not any(one._forward_hooks for one in module.modules())


def test_a_request_to_end_leaves_what_was_recorded(tmp_path, make_network, examples):
    def asks(self, batch, batch_idx):
        if self.global_step == 8:
            os.kill(os.getpid(), signal.SIGTERM)  # to which the Trainer itself listens
        return loss_of(self.layers, batch)

    module = make_module(make_network(), training_step=asks)
    trainer = make_trainer(tmp_path, [GradflowCallback(tmp_path / "run")])
    with pytest.raises(SystemExit):
        trainer.fit(module, DataLoader(examples, BATCH))
    run = gradflow.open_run(tmp_path / "run")
    assert run.description["status"] == "interrupted"
    assert run.steps.step.tolist() == list(range(9))


@pytest.mark.parametrize("library", LIBRARIES)
def test_each_library_takes_the_callback_for_one_of_its_own(tmp_path, library):
    callback = GradflowCallback(tmp_path / "run")
    assert isinstance(callback, import_module(library).Callback)
    trainer = make_trainer(tmp_path, callback, library)  # not in a list
    assert callback in trainer.callbacks


def test_options_that_the_callback_does_not_take_are_refused(tmp_path):
    with pytest.raises(TracingError, match=r"no option 'schedul'.*schedule"):
        GradflowCallback(tmp_path, schedul=3)
    with pytest.raises(TracingError, match="takes from the trainer"):
        GradflowCallback(tmp_path, optimizer=None)
