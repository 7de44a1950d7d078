"""What a callback's sinks are given, also when the training is interrupted and goes on."""

import gc
from pathlib import Path

import pytest

import gradflow

accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
pytestmark = pytest.mark.filterwarnings("ignore")
# ruff: noqa: PLC0415 - each trainer loads its own library
LAYER = "gradflow/gradient_norm/"


def by_lightning(tmp_path, sinks, make_network, examples):
    """Stops in the third epoch, after the checkpoint of the second, and goes on."""
    from test_lightning import DataLoader, GradflowCallback, make_module, make_trainer

    def fit(checkpoint=None, **changes):
        module = make_module(make_network(), **changes)
        callbacks = [GradflowCallback(tmp_path / "run", sinks=sinks)]
        trainer = make_trainer(tmp_path, callbacks, max_epochs=3 if checkpoint or changes else 2)
        trainer.fit(module, DataLoader(examples, 4), ckpt_path=checkpoint)

    def on_train_epoch_end(self):
        if self.trainer.current_epoch == 1:
            self.trainer.save_checkpoint(tmp_path / "kept.ckpt")

    def on_train_batch_end(self, *args):
        if self.trainer.global_step == 14:
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fit(on_train_epoch_end=on_train_epoch_end, on_train_batch_end=on_train_batch_end)
    return lambda: fit(tmp_path / "kept.ckpt")


def by_transformers(tmp_path, sinks, *_):
    """The same, where an epoch has four steps."""
    from test_transformers import GradflowCallback, StopAt, make_trainer

    def make(*others):
        callbacks = [GradflowCallback(tmp_path / "run", sinks=sinks), *others]
        return make_trainer(tmp_path, callbacks, save_strategy="epoch")

    with pytest.raises(ValueError, match="mine"):
        make(StopAt(10)).train()
    return lambda: make().train(resume_from_checkpoint=str(tmp_path / "trainer" / "checkpoint-8"))


@pytest.mark.parametrize("train", [by_lightning, by_transformers])
def test_sinks_get_each_step_once_though_the_training_stops_and_goes_on(
    tmp_path, make_network, examples, monkeypatch, train
):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    seen = []

    def note(name, value, step):
        seen.append((name, step, value))

    goes_on = train(tmp_path, [note, gradflow.sinks.TensorBoard()], make_network, examples)
    gc.collect()  # of a Trainer that tells nobody of its error
    before = list(seen)
    goes_on()
    after = seen[len(before) :]
    run = gradflow.open_run(tmp_path / "run")
    resumed = run.description["resumed"][0]["step"]
    norms = {(f"{LAYER}{row.layer}", row.step): row.norm for row in run.gradients.itertuples()}
    assert {step for _, step, _ in before} >= set(range(resumed))
    assert min(step for _, step, _ in after) == resumed
    for part in (before, after):
        assert len({(name, step) for name, step, _ in part}) == len(part)  # nothing twice
    # Steps that were recorded again have come again: what counts is what came last.
    last = {(name, step): value for name, step, value in seen if name.startswith(LAYER)}
    assert last == pytest.approx(norms)
    assert [one["kind"] for one in run.description["sinks"]] == ["function", "TensorBoard"]

    events = accumulators.EventAccumulator(
        str(tmp_path / "run" / "tensorboard"), size_guidance={"scalars": 0}
    )
    events.Reload()
    read = {
        (name, one.step): one.value
        for name in events.Tags()["scalars"]
        if name.startswith(LAYER)
        for one in events.Scalars(name)
    }
    assert read == pytest.approx(norms)
    assert sum(len(events.Scalars(name)) for name in {name for name, _ in norms}) == len(norms)
