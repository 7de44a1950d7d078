"""Loops that call parts of the model one by one, and never the model itself."""

import pandas as pd
import pytest
import torch
from torch import nn

import gradflow


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Sequential(nn.Linear(6, 6), nn.Tanh()), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.body(x))


def train(folder, call, *, accumulate=1, optimizers=1, **options):
    model = Model()
    parts = [model.body, model.head] if optimizers == 2 else [model]
    given = [torch.optim.SGD(part.parameters(), lr=0.1) for part in parts]
    with gradflow.Tracer(model, folder, optimizer=given, **options) as tracer:
        for batch in range(6):
            inputs = torch.randn(5, 6, generator=torch.Generator().manual_seed(batch))
            (call(tracer, model, inputs).square().mean() / accumulate).backward()
            if (batch + 1) % accumulate == 0:
                for optimizer in given[: 1 + batch % 2]:
                    optimizer.step()
                model.zero_grad()
        tracer.end_epoch()
    return gradflow.open_run(folder)


def whole(tracer, model, inputs):
    return model(inputs)


def parts(tracer, model, inputs):
    tracer.begin_pass()
    return model.head(model.body(inputs))


@pytest.mark.parametrize(
    "options",
    [{}, {"accumulate": 3}, {"optimizers": 2}, {"schedule": 2}, {"accumulate": 2, "modes": "all"}],
    ids=str,
)
def test_a_pass_that_is_said_to_begin_is_one_of_the_whole_model(tmp_path, options):
    wanted = train(tmp_path / "whole", whole, **options)
    found = train(tmp_path / "parts", parts, **options)
    for name in ("layers", "activations", "gradients", "parameters", "steps"):
        assert len(wanted.table(name)) > 0
        pd.testing.assert_frame_equal(found.table(name), wanted.table(name), check_exact=True)


def test_a_pass_of_the_model_within_it_keeps_what_ran_before(tmp_path):
    def both(tracer, model, inputs):
        tracer.begin_pass()
        model.body(inputs)
        return model(inputs)

    assert set(train(tmp_path / "run", both).activations.layer) >= {"body.0", "body.1", "head"}


def test_it_says_nothing_in_evaluation(tmp_path):
    def evaluated(tracer, model, inputs):
        model.eval()
        tracer.begin_pass()
        model.head(model.body(inputs))
        model.train()
        return parts(tracer, model, inputs)

    assert len(train(tmp_path / "run", evaluated).activations) == 3 * 6
