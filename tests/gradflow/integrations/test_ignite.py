"""What the handler records of an Engine's training, beside the same training as a plain loop."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import gradflow
from gradflow.errors import RunError

engines = pytest.importorskip("ignite.engine")
pytestmark = pytest.mark.filterwarnings("ignore")


def make(network, tmp_path, *, fails_at=None, error=None, accumulate=1, bf16=False):
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    batches = []

    def update(engine, batch):
        if engine.state.iteration == fails_at:
            raise error
        network.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = nn.functional.cross_entropy(network(batch[0]), batch[1]) / accumulate
        loss.backward()
        batches.append(batch)
        if len(batches) % accumulate:
            return loss.item()
        nn.utils.clip_grad_norm_(network.parameters(), 0.3)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    trainer = engines.Engine(update)

    @trainer.on(engines.Events.EPOCH_COMPLETED)
    def measure(engine):
        engine.state.metrics["val_loss"] = float(engine.state.epoch)

    return trainer, optimizer


def handler(folder, **options):
    from gradflow.integrations.ignite import GradflowHandler  # noqa: PLC0415

    return GradflowHandler(folder, **options)


@pytest.mark.parametrize(
    "how", [{}, {"accumulate": 2}, {"bf16": True}], ids=["plain", "accumulated", "bf16"]
)
def test_rows_and_weights_are_those_of_a_plain_loop(
    tmp_path, make_network, examples, assert_same_run, assert_same_weights, noting, how
):
    by_hand, network, untraced = make_network(), make_network(), make_network()
    batches = DataLoader(examples, 4)
    trainer, optimizer = make(by_hand, tmp_path, **how)
    torch.manual_seed(5)
    with gradflow.Tracer(by_hand, tmp_path / "plain", optimizer=optimizer) as tracer:
        for _ in range(2):
            for batch in batches:
                trainer._process_function(trainer, batch)
            tracer.end_epoch()
    trainer, optimizer = make(network, tmp_path, **how)
    handler(tmp_path / "run", sinks=[noting]).attach(trainer, network, optimizer)
    trainer.add_event_handler(engines.Events.STARTED, lambda: torch.manual_seed(5))
    trainer.run(batches, max_epochs=2)
    run = gradflow.open_run(tmp_path / "run")
    assert run.epochs.val_loss.tolist() == [1.0, 2.0]
    assert run.description["status"] == "complete"
    trainer, _ = make(untraced, tmp_path, **how)
    trainer.add_event_handler(engines.Events.STARTED, lambda: torch.manual_seed(5))
    trainer.run(batches, max_epochs=2)
    assert_same_weights(network, untraced)
    assert len(run.steps) == 12 // how.get("accumulate", 1)
    assert ("gradflow/step_gradient_norm", len(run.steps) - 1) in noting.seen
    assert_same_run(run, gradflow.open_run(tmp_path / "plain"))


def test_a_restart_goes_on_with_the_run(tmp_path, make_network, examples, assert_same_run):
    handlers = pytest.importorskip("ignite.handlers")

    def train(folder, *, until, checkpoint=None, traced=True, **failing):
        network = make_network()
        network[1].inner[2].p = 0.0
        trainer, optimizer = make(network, tmp_path, **failing)
        ours = handler(folder)
        ours.attach(trainer, network, optimizer)
        kept = {"network": network, "optimizer": optimizer, "trainer": trainer, "gradflow": ours}
        saver = handlers.DiskSaver(folder.parent / f"{folder.name}-kept", require_empty=False)
        trainer.add_event_handler(
            engines.Events.EPOCH_COMPLETED, handlers.Checkpoint(kept, saver, n_saved=None)
        )
        if checkpoint is not None:
            handlers.Checkpoint.load_objects(kept, torch.load(checkpoint, weights_only=True))
        trainer.run(DataLoader(examples, 4), max_epochs=until)

    train(tmp_path / "whole", until=3)
    with pytest.raises(ValueError, match="mine"):
        train(tmp_path / "run", until=3, fails_at=16, error=ValueError("mine"))
    checkpoint = next((tmp_path / "run-kept").glob("*_12.pt"))
    train(tmp_path / "run", until=3, checkpoint=checkpoint)
    run = gradflow.open_run(tmp_path / "run")
    assert_same_run(run, gradflow.open_run(tmp_path / "whole"))
    assert run.epochs.val_loss.tolist() == [1.0, 2.0, 3.0]
    assert len(run.description["resumed"]) == 1
    with pytest.raises(RunError, match="no folder"):
        train(tmp_path / "elsewhere", until=3, checkpoint=checkpoint)


@pytest.mark.parametrize("handled", [False, True])
def test_an_error_stays_with_whom_it_was(tmp_path, make_network, examples, handled):
    network, error, seen = make_network(), ValueError("mine"), []
    trainer, optimizer = make(network, tmp_path, fails_at=8, error=error)
    handler(tmp_path / "run").attach(trainer, network, optimizer)
    if handled:
        trainer.add_event_handler(engines.Events.EXCEPTION_RAISED, lambda _, e: seen.append(e))
        trainer.run(DataLoader(examples, 4), max_epochs=2)
    else:
        with pytest.raises(ValueError, match="mine") as caught:
            trainer.run(DataLoader(examples, 4), max_epochs=2)
        seen.append(caught.value)
    assert seen == [error]
    run = gradflow.open_run(tmp_path / "run")
    assert run.description["status"] == "failed"
    assert len(run.steps) == 7


def test_an_interruption_stays_one(tmp_path, make_network, examples):
    network = make_network()
    trainer, optimizer = make(network, tmp_path, fails_at=8, error=KeyboardInterrupt())
    handler(tmp_path / "run").attach(trainer, network, optimizer)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(DataLoader(examples, 4), max_epochs=2)
    run = gradflow.open_run(tmp_path / "run")
    assert run.description["status"] == "interrupted"
    assert len(run.steps) == 7
