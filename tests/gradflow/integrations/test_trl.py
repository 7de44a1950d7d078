"""What the callback of transformers records of trl's SFTTrainer, also with adapters of peft."""

import pandas as pd
import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, TrainerCallback

import gradflow
from gradflow.integrations.transformers import GradflowCallback

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")
peft = pytest.importorskip("peft")
tokenizers = pytest.importorskip("tokenizers")
pytestmark = pytest.mark.filterwarnings("ignore")

WORDS = ["<pad>", "<eos>", "the", "a", "cat", "dog", "sees", "hears"]
TEXTS = ["the cat sees a dog", "the dog hears", "a cat hears the dog", "a dog sees"] * 4
BATCH, STEPS, EPOCHS = 4, 4, 2


def language_model():
    torch.manual_seed(0)
    sizes = {"vocab_size": len(WORDS), "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2}
    none = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2LMHeadModel(GPT2Config(**sizes, **none, bos_token_id=1, eos_token_id=1))


def adapters():
    return peft.LoraConfig(
        r=2, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM"
    )


def tokenizer():
    split = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: place for place, word in enumerate(WORDS)}, "<pad>")
    )
    split.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=split, pad_token="<pad>", eos_token="<eos>")


class InOrder(trl.SFTTrainer):
    """Its batches come in the order of the data, as in a plain loop."""

    def _get_train_sampler(self, *args):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def make_trainer(folder, callbacks, *, lora=False, kind=InOrder, **options):
    texts = [f"{text} <eos>" for text in TEXTS]
    encoded = [tokenizer()(text)["input_ids"] for text in texts]
    options = {
        "num_train_epochs": EPOCHS, "per_device_train_batch_size": BATCH, "report_to": [],
        "disable_tqdm": True, "use_cpu": True, "save_strategy": "no", "bf16": False,
        "max_grad_norm": 0.05, "learning_rate": 0.01, "optim": "sgd",
        "lr_scheduler_type": "constant", **options,
    }  # fmt: skip
    return kind(
        language_model(),
        trl.SFTConfig(str(folder / "trainer"), **options),
        train_dataset=datasets.Dataset.from_dict({"input_ids": encoded}),
        processing_class=tokenizer(),
        callbacks=callbacks,
        peft_config=adapters() if lora else None,
    )


def batches():
    """The same texts, each batch padded to its longest."""
    encoded = [torch.tensor([WORDS.index(word) for word in text.split()] + [1]) for text in TEXTS]
    for place in range(STEPS):
        batch = encoded[BATCH * place : BATCH * (place + 1)]
        inputs = nn.utils.rnn.pad_sequence(batch, batch_first=True)
        mask = nn.utils.rnn.pad_sequence([torch.ones_like(one) for one in batch], batch_first=True)
        yield inputs, mask


def plain_loop(folder, weights, *, lora=False, accumulate=1):
    model = language_model()
    if lora:
        model = peft.get_peft_model(model, adapters())
    model.load_state_dict(weights)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    given = list(batches())
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        model.train()
        for _ in range(EPOCHS):
            for place, (inputs, mask) in enumerate(given, start=1):
                step = slice((place - 1) // accumulate * accumulate, place + (-place) % accumulate)
                scores = model(input_ids=inputs, attention_mask=mask).logits[:, :-1]
                targets = inputs[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
                loss = nn.functional.cross_entropy(
                    scores.flatten(0, 1), targets.flatten(), reduction="sum"
                )
                # trl divides by all words of a step, also the first of each text.
                (loss / sum(int(mask.sum()) for _, mask in given[step])).backward()
                if place % accumulate:
                    continue
                nn.utils.clip_grad_norm_(model.parameters(), 0.05)
                optimizer.step()
                optimizer.zero_grad()
            tracer.end_epoch()
    return model, gradflow.open_run(folder)


def assert_same_norms(run, wanted):
    for name, row, norms in (
        ("gradients", ["layer"], ["norm"]),
        ("activations", ["layer"], ["rms"]),
        ("parameters", ["parameter"], ["gradient_norm", "update_norm"]),
        ("steps", [], ["backward_gradient_norm", "gradient_norm", "clipping_factor"]),
    ):
        found, expected = (
            one.table(name).set_index(["step", *row])[norms].sort_index() for one in (run, wanted)
        )
        if row == ["layer"]:
            # trl takes the weights of the last layer for the loss, and never calls it: what is
            # around that gives out something else.
            layers = expected.index.get_level_values("layer").astype(str)
            expected = expected[~layers.str.endswith(("lm_head", "base_model", "base_model.model"))]
        assert len(expected) >= len(wanted.steps)
        # For adapters, trl makes the embedding's output need a gradient, which is more rows.
        found = found.loc[expected.index]
        pd.testing.assert_frame_equal(found, expected, rtol=1e-4, atol=1e-7, obj=name)
    assert run.epochs[["epoch", "step"]].equals(wanted.epochs[["epoch", "step"]])


@pytest.mark.parametrize(
    ("lora", "accumulate", "checkpointing"),
    [(False, 1, True), (False, 2, False), (True, 1, True), (True, 2, False)],
    ids=["recomputed", "accumulated", "adapters-recomputed", "adapters-accumulated"],
)
def test_rows_are_those_of_the_same_training_as_a_plain_loop(
    tmp_path, lora, accumulate, checkpointing
):
    trainer = make_trainer(
        tmp_path, [GradflowCallback(tmp_path / "run")], lora=lora,
        gradient_accumulation_steps=accumulate, gradient_checkpointing=checkpointing,
    )  # fmt: skip
    by_hand, wanted = plain_loop(
        tmp_path / "plain", trainer.model.state_dict(), lora=lora, accumulate=accumulate
    )
    trainer.train()
    run = gradflow.open_run(tmp_path / "run")
    assert run.description["status"] == "complete"
    assert "not_recorded" not in run.description
    assert_same_norms(run, wanted)
    assert (run.steps.clipping_factor < 1).any()
    for mine, theirs in zip(trainer.model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "adapters"])
def test_a_restart_goes_on_with_the_run_and_weights_are_those_without_the_callback(
    tmp_path, assert_same_run, assert_same_weights, lora
):
    def make(name, *others, traced=True):
        ours = [GradflowCallback(tmp_path / name)] if traced else []
        options = {
            "lora": lora,
            "save_strategy": "epoch",
            "kind": trl.SFTTrainer,
            "optim": "adamw_torch",
        }
        return make_trainer(tmp_path / name, [*ours, *others], **options)

    untraced, whole = make("untraced", traced=False), make("whole")
    untraced.train()
    whole.train()
    assert_same_weights(whole.model, untraced.model)

    class Stop(TrainerCallback):
        def on_step_begin(self, args, state, control, **given):
            if state.global_step == 6:
                raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        make("parted", Stop()).train()
    resumed = make("parted")
    resumed.train(resume_from_checkpoint=str(tmp_path / "parted" / "trainer" / "checkpoint-4"))
    assert_same_weights(resumed.model, whole.model)
    run = gradflow.open_run(tmp_path / "parted")
    assert_same_run(run, gradflow.open_run(tmp_path / "whole"))
    assert run.description["status"] == "complete"
    assert run.description["resumed"][0]["step"] == 4
    if lora:
        trained = {name for name, one in resumed.model.named_parameters() if one.requires_grad}
        rows = run.parameters
        assert set(rows[rows.gradient_norm.notna()].parameter) == trained
