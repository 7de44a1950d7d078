"""The mode in which a model is trained, whatever it is evaluated in meanwhile."""

import pytest
import torch
from torch import nn

from gradflow import Tracer
from gradflow.runs.reading.run import open_run


def modes(folder, *, trained_in: bool, evaluates: str, **options) -> list[str]:
    """Train two optimizers, of which the second steps in every third step; return the column."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.1), nn.Linear(4, 2))
    first, second = (torch.optim.SGD(model[place].parameters(), 0.1) for place in (0, 2))
    with Tracer(model, folder, optimizer=[first, second], **options) as tracer:
        for step in range(6):
            model.train(trained_in)
            model(torch.ones(2, 3)).square().mean().backward()
            if evaluates == "before the update":
                evaluate(model)
            first.step()
            if step % 3 == 0:
                second.step()
            model.zero_grad()
            if evaluates == "after the update":
                evaluate(model)
            if step % 3 == 2:
                tracer.end_epoch()
    return open_run(folder).steps["mode"].tolist()


def evaluate(model: nn.Module) -> None:
    model.train(not model.training)
    with torch.no_grad():
        model(torch.ones(2, 3))


@pytest.mark.parametrize("evaluates", ["never", "before the update", "after the update"])
@pytest.mark.parametrize(
    ("trained_in", "recorded"), [(True, "training"), (True, "all"), (False, "all")]
)
def test_it_is_that_of_the_passes_that_train(tmp_path, trained_in, recorded, evaluates):
    found = modes(tmp_path, trained_in=trained_in, evaluates=evaluates, modes=recorded)
    assert found == ["training" if trained_in else "evaluation"] * 6


@pytest.mark.filterwarnings("ignore:gradflow. no layer was observed")
def test_without_a_backward_pass_it_is_that_at_the_end(tmp_path):
    model = nn.Linear(3, 2)
    with Tracer(model, tmp_path) as tracer:
        for is_training in (True, False):
            model.train(is_training)
            tracer.step()
        tracer.end_epoch()
    assert open_run(tmp_path).steps["mode"].tolist() == ["training", "evaluation"]
