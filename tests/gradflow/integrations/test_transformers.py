"""What the callback records of a Trainer's training, beside the same training as a plain loop."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

import gradflow
from gradflow.errors import RunError, TracingError
from gradflow.integrations.transformers import GradflowCallback

# Of the library's own: none of it is about what is recorded.
pytestmark = pytest.mark.filterwarnings("ignore")

EPOCHS, STEPS = 3, 4


def bert(dropout=0.1):
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout,
    }  # fmt: skip
    return BertForSequenceClassification(
        BertConfig(**sizes, num_attention_heads=2, max_position_embeddings=16)
    )


def sentences(count=16):
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "input_ids": torch.randint(0, 50, (8,), generator=generator),
            "labels": torch.tensor(place % 2),
        }
        for place in range(count)
    ]


class InOrder(Trainer):
    """Its batches come in the order of the data, as in a plain loop."""

    def _get_train_sampler(self, *args):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def make_trainer(folder, callbacks, model=None, kind=InOrder, data=None, **options):
    options = {
        "num_train_epochs": EPOCHS, "per_device_train_batch_size": 4, "report_to": [],
        "disable_tqdm": True, "use_cpu": True, "save_strategy": "no", **options,
    }  # fmt: skip
    return kind(
        model or bert(),
        TrainingArguments(str(folder / "trainer"), **options),
        train_dataset=data or sentences(),
        eval_dataset=sentences(),
        callbacks=callbacks,
    )


def plain_loop(folder, *, accumulate=1, clip=1.0, bf16=False):
    model = bert(dropout=0.0)
    trained = make_trainer(folder.parent, [], model)
    optimizer = trained.create_optimizer()
    steps = EPOCHS * STEPS // accumulate
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (steps - step) / steps)
    data = sentences()
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        for _ in range(EPOCHS):
            for place in range(STEPS):
                batch = data[4 * place : 4 * place + 4]
                given = {name: torch.stack([one[name] for one in batch]) for name in batch[0]}
                model.train()
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    loss = model(**given).loss / accumulate
                loss.backward()
                if (place + 1) % accumulate:
                    continue
                nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                rates.step()
                optimizer.zero_grad()
            tracer.end_epoch()
    return gradflow.open_run(folder)


@pytest.mark.parametrize(
    ("trained", "by_hand"),
    [
        ({}, {}),
        ({"gradient_accumulation_steps": 2}, {"accumulate": 2}),
        ({"max_grad_norm": 0.1}, {"clip": 0.1}),
        ({"bf16": True}, {"bf16": True}),
    ],
    ids=["plain", "accumulated", "clipped", "bf16"],
)
def test_rows_are_those_of_the_same_training_as_a_plain_loop(
    tmp_path, assert_same_run, trained, by_hand
):
    wanted = plain_loop(tmp_path / "plain", **by_hand)
    model = bert(dropout=0.0)
    model.accepts_loss_kwargs = False  # the Trainer divides the loss by the number of batches
    trainer = make_trainer(tmp_path, [GradflowCallback(tmp_path / "run")], model, **trained)
    trainer.train()
    run = gradflow.open_run(tmp_path / "run")
    assert run.description["status"] == "complete"
    assert_same_run(run, wanted, rtol=1e-5)
    if "max_grad_norm" in trained:
        assert (run.steps.clipping_factor < 1).any()


def test_weights_are_bit_for_bit_those_without_the_callback(tmp_path, assert_same_weights):
    trained = []
    for callbacks in ([], [GradflowCallback(tmp_path / "run", histograms=True)]):
        trainer = make_trainer(tmp_path, callbacks, kind=Trainer, eval_strategy="epoch")
        trainer.train()
        trained.append(trainer.model)
    assert_same_weights(*trained)
    assert not any(module._forward_hooks for module in trained[1].modules())


def test_metrics_of_an_epoch_are_its_loss_and_those_of_the_evaluation_after_it(tmp_path):
    trainer = make_trainer(
        tmp_path, [GradflowCallback(tmp_path / "run")], eval_strategy="epoch",
        logging_strategy="epoch",
    )  # fmt: skip
    trainer.train()
    epochs = gradflow.open_run(tmp_path / "run").epochs
    assert set(epochs.columns) == {"epoch", "step", "train_loss", "val_loss"}
    assert epochs.step.tolist() == [3, 7, 11]
    logged = trainer.state.log_history
    for ours, theirs in (("train_loss", "loss"), ("val_loss", "eval_loss")):
        wanted = [one[theirs] for one in logged if theirs in one]
        assert epochs[ours].tolist() == pytest.approx(wanted, rel=1e-6)
    trainer.evaluate()  # after the training, it belongs to no epoch


def test_epochs_may_be_numbers_of_steps(tmp_path):
    callback = GradflowCallback(tmp_path / "run", every_steps=3, schedule=2)
    trainer = make_trainer(tmp_path, [callback], max_steps=7, eval_strategy="steps", eval_steps=3)
    trainer.train()
    run = gradflow.open_run(tmp_path / "run")
    assert run.epochs.step.tolist() == [2, 5]
    assert run.epochs.val_loss.notna().all()
    assert run.steps.step.tolist() == [0, 2, 4, 6]


class StopAt(TrainerCallback):
    """Fails at a step, as what a user does there may."""

    def __init__(self, step, error=None):
        self.step = step
        self.error = error or ValueError("mine")

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise self.error


@pytest.mark.parametrize(
    ("saved", "checkpoint"),
    [
        pytest.param(
            {"save_strategy": "epoch"}, "checkpoint-8", id="epoch", marks=pytest.mark.slow
        ),
        pytest.param(
            {"save_strategy": "steps", "save_steps": 3}, "checkpoint-6", id="within-epoch"
        ),
        pytest.param(
            {"save_strategy": "steps", "save_steps": 4},
            "checkpoint-8",
            id="last-step",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_restart_goes_on_with_the_run_of_its_checkpoint(
    tmp_path, assert_same_run, assert_same_weights, saved, checkpoint
):
    def make(name, *others):
        callbacks = [GradflowCallback(tmp_path / name), *others]
        return make_trainer(tmp_path / name, callbacks, kind=Trainer, **saved)

    whole = make("whole")
    whole.train()
    with pytest.raises(ValueError, match="mine"):
        make("parted", StopAt(10)).train()
    resumed = make("parted")
    resumed.train(resume_from_checkpoint=str(tmp_path / "parted" / "trainer" / checkpoint))
    assert_same_weights(resumed.model, whole.model)
    run = gradflow.open_run(tmp_path / "parted")
    assert_same_run(run, gradflow.open_run(tmp_path / "whole"))
    assert run.description["status"] == "complete"
    assert len(run.description["resumed"]) == 1
    assert run.epochs.step.tolist() == [3, 7, 11]


def test_a_trainer_that_failed_goes_on_by_itself(tmp_path):
    stops = StopAt(10)
    callbacks = [GradflowCallback(tmp_path / "run"), stops]
    trainer = make_trainer(tmp_path, callbacks, save_strategy="epoch")
    with pytest.raises(ValueError, match="mine"):
        trainer.train()
    stops.step = None
    trainer.train(resume_from_checkpoint=True)
    run = gradflow.open_run(tmp_path / "run")
    assert run.epochs.step.tolist() == [3, 7, 11]
    assert run.steps.step.tolist() == list(range(12))
    assert run.description["resumed"][0]["step"] == 8


def test_a_checkpoint_elsewhere_is_named_and_one_without_state_says_so(tmp_path):
    options = {"save_strategy": "epoch"}
    first = make_trainer(
        tmp_path, [GradflowCallback(tmp_path / "run")], num_train_epochs=1, **options
    )
    first.train()
    moved = tmp_path / "moved"
    (tmp_path / "trainer" / "checkpoint-4").rename(moved)

    def go_on(folder, **more):
        callback = GradflowCallback(folder, **more)
        make_trainer(tmp_path, [callback], **options).train(resume_from_checkpoint=str(moved))

    with pytest.raises(RunError, match=r"already holds a run.*no state of gradflow"):
        go_on(tmp_path / "run")
    with pytest.raises(RunError, match=r"no folder.*give the folder of that run"):
        go_on(tmp_path / "other", checkpoint=moved)
    go_on(tmp_path / "run", checkpoint=moved)
    assert gradflow.open_run(tmp_path / "run").epochs.step.tolist() == [3, 7, 11]


def test_a_training_that_fails_keeps_its_error_and_its_rows(tmp_path):
    error = ValueError("mine")
    with (
        pytest.raises(ValueError, match="mine") as caught,
        GradflowCallback(tmp_path / "run") as ours,
    ):
        make_trainer(tmp_path, [ours, StopAt(6, error)]).train()
    assert caught.value is error
    run = gradflow.open_run(tmp_path / "run")
    assert run.description["status"] == "failed"
    assert run.steps.step.tolist() == list(range(6))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        pytest.param("ValueError('mine')", "failed", marks=pytest.mark.slow),
        ("KeyboardInterrupt()", "interrupted"),
    ],
)
def test_a_program_that_ends_by_an_error_leaves_a_run_that_reads(tmp_path, error, status):
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\nimport test_transformers as here\n"
        f"folder = Path({str(tmp_path)!r})\n"
        f"callbacks = [here.GradflowCallback(folder / 'run'), here.StopAt(6, {error})]\n"
        "here.make_trainer(folder, callbacks).train()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1].startswith(error[:9])
    run = gradflow.open_run(tmp_path / "run")
    assert run.description["status"] == status
    assert run.steps.step.tolist() == list(range(6))


@pytest.mark.slow
def test_a_search_for_the_batch_size_starts_the_run_over(tmp_path):
    class OutOfMemoryOnce(TrainerCallback):
        tries = 0

        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 2 and not self.tries:
                self.tries += 1
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    callbacks = [GradflowCallback(tmp_path / "run"), OutOfMemoryOnce()]
    trainer = make_trainer(tmp_path, callbacks, auto_find_batch_size=True, num_train_epochs=1)
    trainer.train()
    run = gradflow.open_run(tmp_path / "run")
    assert trainer.state.global_step > 4  # smaller batches
    assert len(run.steps) == trainer.state.global_step
    assert run.description["status"] == "complete"


def test_a_second_training_into_the_same_folder_is_refused(tmp_path):
    trainer = make_trainer(tmp_path, [GradflowCallback(tmp_path / "run")], num_train_epochs=1)
    trainer.train()
    with pytest.raises(RunError, match="already holds a run"):
        trainer.train()


def test_a_sequence_to_sequence_trainer_is_recorded(tmp_path):
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
            decoder_start_token_id=0,
        )
    )  # fmt: skip
    data = [{"input_ids": one["input_ids"], "labels": one["input_ids"]} for one in sentences(8)]
    arguments = Seq2SeqTrainingArguments(
        str(tmp_path), num_train_epochs=2, per_device_train_batch_size=4, report_to=[],
        disable_tqdm=True, use_cpu=True, save_strategy="no", predict_with_generate=True,
        eval_strategy="epoch",
    )  # fmt: skip
    callback = GradflowCallback(tmp_path / "run")
    Seq2SeqTrainer(
        model, arguments, train_dataset=data, eval_dataset=data, callbacks=[callback]
    ).train()
    run = gradflow.open_run(tmp_path / "run")
    assert len(run.steps) == 4
    assert set(run.parameters.parameter) == {name for name, _ in model.named_parameters()}
    assert run.epochs.val_loss.notna().all()


def test_low_rank_adapters_alone_are_trained_and_recorded(tmp_path):
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    )
    model = peft.get_peft_model(
        model, peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    )
    data = [{"input_ids": one["input_ids"], "labels": one["input_ids"]} for one in sentences()]
    trainer = make_trainer(
        tmp_path, [GradflowCallback(tmp_path / "run")], model, data=data, num_train_epochs=1
    )
    trainer.train()
    rows = gradflow.open_run(tmp_path / "run").parameters
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    assert len(trained) == 4
    with_gradients = rows[rows.gradient_norm.notna()]
    assert set(with_gradients.parameter) == trained
    assert len(with_gradients) == 4 * 4


@pytest.mark.parametrize("steps", [0, -1, 2.5, True])
def test_epochs_of_no_steps_are_refused(tmp_path, steps):
    with pytest.raises(TracingError, match="every_steps= is a number of steps"):
        GradflowCallback(tmp_path, every_steps=steps)
