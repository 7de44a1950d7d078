"""Epochs shorter than a step: their rows are kept, and the training goes on."""

import pytest
import torch
from torch import nn

import gradflow
from gradflow.errors import TracingError
from gradflow.runs.integrity.check import check_run


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3))


def train(folder, epochs, batches, accumulate, *, state=None, seen=0):
    """Epochs of so many batches; an update after every `accumulate`-th of them."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    count = seen
    with gradflow.Tracer(model, folder, optimizer=optimizer, resume=state) as tracer:
        for epoch in epochs:
            for _ in range(batches):
                model(torch.ones(2, 4)).square().mean().backward()
                count += 1
                if count % accumulate == 0:
                    optimizer.step()
                    optimizer.zero_grad()
            rows = {"image": [0, 1], "target": [0, 1], "prediction": [0, epoch % 2]}
            tracer.write_table("predictions", rows | {"probability": [0.5, 0.75]})
            tracer.end_epoch(train_loss=float(epoch), **({"late": 1.0} if epoch > 2 else {}))
        state = tracer.state_dict()
    return state


def test_epochs_within_an_accumulation_are_kept_with_the_step_they_belong_to(tmp_path):
    with pytest.warns(UserWarning, match="epoch 1 has no steps"):
        train(tmp_path / "run", range(1, 8), batches=2, accumulate=5)
    run = gradflow.open_run(tmp_path / "run")
    # Updates after 5 and 10 of 14 batches: in epochs 3 and 5. Others belong to the step under way.
    assert run.epochs.epoch.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert run.epochs.step.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert run.epochs.train_loss.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert run.epochs.late.isna().tolist() == [True, True, *[False] * 5]
    assert run.predictions.epoch.tolist() == [e for e in range(1, 8) for _ in range(2)]
    assert run.predictions.prediction.tolist() == [v for e in range(1, 8) for v in (0, e % 2)]
    # Each of the two steps is of the epoch in which it ended, and has its five batches.
    assert run.gradients.epoch.tolist() == [3, 5]
    assert run.gradients.batch_size.tolist() == [10, 10]
    assert len(run.description["not_recorded"]) == 1
    assert not check_run(tmp_path / "run").findings


def test_rows_that_wait_are_in_the_state_and_come_back_with_it(tmp_path):
    with pytest.warns(UserWarning, match="has no steps"):
        state = train(tmp_path / "run", range(1, 5), batches=1, accumulate=3)
    torch.save(state, tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    with pytest.warns(UserWarning, match="has no steps"):
        train(tmp_path / "run", range(5, 8), batches=1, accumulate=3, state=loaded, seen=4)
    run = gradflow.open_run(tmp_path / "run")
    assert run.epochs.epoch.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert run.epochs.train_loss.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert run.predictions.epoch.tolist() == [e for e in range(1, 8) for _ in range(2)]


def test_tracer_that_is_told_of_no_step_keeps_the_epochs_all_the_same(tmp_path):
    model = network()
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        with pytest.warns(UserWarning, match=r"give the tracer the optimizer"):
            tracer.end_epoch(train_loss=1.0)
        tracer.end_epoch(train_loss=0.5)
    epochs = gradflow.open_run(tmp_path / "run").epochs
    assert epochs.train_loss.tolist() == [1.0, 0.5]


@pytest.mark.parametrize("use", ["end_epoch", "write_table"])
def test_tracer_that_is_not_entered_says_so(tmp_path, use):
    tracer = gradflow.Tracer(network(), tmp_path / "run")
    with pytest.raises(TracingError, match="not running"):
        tracer.end_epoch() if use == "end_epoch" else tracer.write_table("images", {"image": [0]})
    assert not (tmp_path / "run").exists()
