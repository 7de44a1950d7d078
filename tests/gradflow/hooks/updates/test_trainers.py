"""Loops of other libraries hand the tracer their wrapped optimizer, beside the norms by hand."""

import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

import gradflow

BATCHES, BATCH = 6, 4
# Of the libraries' own: none of it is about what is recorded.
pytestmark = pytest.mark.filterwarnings("ignore")


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def examples():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(BATCHES * BATCH, 4, generator=generator)
    return TensorDataset(inputs, torch.randint(0, 3, inputs.shape[:1], generator=generator))


def test_loop_after_accelerators_prepare_with_accumulation_and_clipping(tmp_path):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    model, optimizer, batches = accelerator.prepare(model, optimizer, DataLoader(examples(), BATCH))
    expected, left = [], []
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        for inputs, targets in batches:
            with accelerator.accumulate(model):
                accelerator.backward(nn.functional.cross_entropy(model(inputs), targets))
                if accelerator.sync_gradients:
                    left.append({n: float(p.grad.norm()) for n, p in model.named_parameters()})
                    accelerator.clip_grad_norm_(model.parameters(), 0.1)
                    expected.append({n: float(p.grad.norm()) for n, p in model.named_parameters()})
                optimizer.step()
                optimizer.zero_grad()
        tracer.end_epoch()
    rows = gradflow.open_run(tmp_path / "run").parameters
    assert rows.step.nunique() == len(expected) == BATCHES // 2
    for step, norms in enumerate(expected):
        found = rows[rows.step == step].set_index("parameter")
        assert found.gradient_norm.to_dict() == pytest.approx(norms, rel=1e-5)
        assert found.backward_gradient_norm.to_dict() == pytest.approx(left[step], rel=1e-5)
    assert set(rows.optimizer) == {"AdamW"}
    assert (rows.update_norm > 0).all()


class Traced(TrainerCallback):
    """What a user writes to trace a Trainer: enter, end epochs, leave."""

    def __init__(self, folder, **options):
        self.folder, self.options = folder, options

    def on_train_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
        self.tracer = gradflow.Tracer(model, self.folder, optimizer=optimizer, **self.options)
        self.tracer.__enter__()

    def on_epoch_end(self, args, state, control, **kwargs):
        self.tracer.end_epoch()

    def on_train_end(self, args, state, control, **kwargs):
        self.tracer.__exit__(None, None, None)


def train_bert(folder, options=None, **arguments):
    """The run of a small BERT that a Trainer has trained for two epochs of four steps."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    model = BertForSequenceClassification(
        BertConfig(**sizes, num_attention_heads=2, max_position_embeddings=16)
    )
    data = [
        {"input_ids": torch.randint(0, 50, (8,)), "labels": torch.tensor(place % 2)}
        for place in range(16)
    ]
    given = TrainingArguments(
        str(folder.parent / "trainer"), num_train_epochs=2, per_device_train_batch_size=4,
        report_to=[], disable_tqdm=True, use_cpu=True, save_strategy="no", max_grad_norm=0.2,
        **arguments,
    )  # fmt: skip
    callback = Traced(folder, **(options or {}))
    Trainer(model, given, train_dataset=data, callbacks=[callback]).train()
    return gradflow.open_run(folder), model


def test_every_parameter_of_a_trainer_has_its_gradient_in_every_step(tmp_path):
    run, model = train_bert(tmp_path / "run")
    assert list(run.epochs.step) == [3, 7]
    rows = run.parameters
    assert set(rows.parameter) == {name for name, _ in model.named_parameters()}
    assert (rows.groupby("parameter").step.nunique() == 8).all()
    assert rows.gradient_norm.notna().all()
    # The Trainer clips the total norm, in some steps.
    steps = run.steps
    assert (steps.backward_gradient_norm > 0.2).any()
    clipped = steps.backward_gradient_norm.clip(upper=0.2).tolist()
    assert steps.gradient_norm.tolist() == pytest.approx(clipped, rel=1e-5)
    # Weight decay for matrices, none for biases and norms: two groups, as Trainer makes them.
    assert set(rows.group) == {0, 1}
    assert rows.learning_rate.iloc[0] > rows.learning_rate.iloc[-1] > 0
    # Two residual additions in each of two blocks.
    assert len(run.junctions) == 4 * 8


def test_a_trainer_that_compiles_the_model_is_recorded_as_one_that_does_not(tmp_path, monkeypatch):
    # Trainer leaves its choice in the environment and in accelerate's state, which the next test
    # must not find.
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "no")
    torch.compiler.reset()
    options = {"schedule": 3}
    plain, _ = train_bert(tmp_path / "plain", options)
    run, _ = train_bert(
        tmp_path / "run", options, torch_compile=True, torch_compile_backend="aot_eager"
    )
    torch.compiler.reset()
    AcceleratorState._reset_state(reset_partial_state=True)
    for table in ("layers", "activations", "gradients", "junctions", "parameters"):
        mine, theirs = getattr(run, table), getattr(plain, table)
        assert len(mine) > 0
        pd.testing.assert_frame_equal(mine, theirs, rtol=1e-3, atol=1e-6)
    assert sorted(run.activations.step.unique()) == [0, 3, 6]


def test_lightning_measures_what_its_closure_leaves_after_clipping(tmp_path):
    lightning = pytest.importorskip("lightning")
    left, received = [], []

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layers = network()

        def training_step(self, batch):
            return nn.functional.cross_entropy(self.layers(batch[0]), batch[1])

        def on_after_backward(self):
            left.append({n: float(p.grad.norm()) for n, p in self.layers.named_parameters()})

        def configure_gradient_clipping(self, optimizer, *args, **kwargs):
            super().configure_gradient_clipping(optimizer, *args, **kwargs)
            received.append({n: float(p.grad.norm()) for n, p in self.layers.named_parameters()})

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=0.01)

    class Traced(lightning.Callback):
        def on_train_start(self, trainer, module):
            self.tracer = gradflow.Tracer(
                module.layers, tmp_path / "run", optimizer=module.optimizers()
            )
            self.tracer.__enter__()

        def on_train_end(self, trainer, module):
            self.tracer.__exit__(None, None, None)

    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=0.1,
        callbacks=[Traced()], default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(Module(), DataLoader(examples(), BATCH))
    rows = gradflow.open_run(tmp_path / "run").parameters
    assert rows.step.nunique() == len(left) == len(received) == BATCHES
    for step in range(BATCHES):
        found = rows[rows.step == step].set_index("parameter")
        assert found.backward_gradient_norm.to_dict() == pytest.approx(left[step], rel=1e-5)
        assert found.gradient_norm.to_dict() == pytest.approx(received[step], rel=1e-5)
    assert (rows.update_norm > 0).all()
