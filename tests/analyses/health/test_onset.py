"""Did the first updates make the gradient vanish? From made numbers, and a post-norm network."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from analyses.health.onset import onset_cause
from analyses.health.question import all_findings

PLACES = ["blocks.0", "blocks.1", "blocks.2"]


class Recorded:
    """A run of which the updates and the order of layers are known."""

    def __init__(self, last_role):
        inner = [f"{one}.last" for one in PLACES]
        names = [name for pair in zip(inner, PLACES, strict=True) for name in pair]
        self.layers = pd.DataFrame({"layer": names, "role": [last_role, "block"] * 3})
        rows = [
            (step, f"{place}.weight", 1e-2 if step < 4 else small)
            for step in range(40)
            for place, small in zip(PLACES, (1e-5, 1e-4, 1e-3), strict=True)
        ]
        self.parameters = pd.DataFrame(rows, columns=["step", "parameter", "update_to_weight"])


def ask(factors, last_role="normalization"):
    index = pd.MultiIndex.from_product([[1], range(len(factors))], names=["epoch", "step"])
    return onset_cause(Recorded(last_role), pd.Series(factors, index=index), 1e-2, PLACES)


def test_it_names_the_step_and_the_updates_before_and_after():
    said = ask(np.r_[1.1, 0.3, 0.1, 0.05, np.full(36, 1e-4)])
    assert said == (
        "In step 0 it still reached blocks.0 (factor 1.1), from step 4 on it does not: the first "
        "updates of about 0.01 of the weights each have closed the way, not the initialization. "
        "By the end, updates are 1.0e-5 at blocks.0 and 0.001 at blocks.2. The blocks normalize "
        "behind their additions (post-norm), where this is known."
    )


def test_it_says_nothing_of_post_norm_where_blocks_end_in_something_else():
    assert "post-norm" not in ask(np.r_[1.1, np.full(39, 1e-4)], "linear")


def test_what_vanishes_from_the_start_has_another_cause():
    assert not ask(np.full(40, 1e-4))
    assert not ask(np.r_[0.05, np.full(39, 1e-4)])
    assert not ask(np.full(40, 0.5))


class Blocks(nn.Module):
    """Deep transformer blocks over vectors, normalized behind the additions."""

    def __init__(self, *, pre: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 64, 0.0, batch_first=True, norm_first=pre)
        self.words = nn.Embedding(30, 16)
        self.blocks = nn.TransformerEncoder(layer, 18, enable_nested_tensor=False)
        self.head = nn.Linear(16, 30)

    def forward(self, x):
        return self.head(self.blocks(self.words(x)))


@pytest.mark.slow
@pytest.mark.parametrize("pre", [False, True])
def test_a_deep_post_norm_transformer_without_warm_up(tmp_path, pre):
    torch.manual_seed(0)
    model = Blocks(pre=pre)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        for _ in range(40):
            tokens = torch.randint(30, (8, 13))
            out = model(tokens[:, :-1])
            loss = F.cross_entropy(out.flatten(0, 1), tokens[:, 1:].flatten())
            tracer.log(loss=loss)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    found = {one.topic: one for one in all_findings(gradflow.open_experiment(tmp_path / "run"))}
    vanishing = found["vanishing"]
    assert vanishing.verdict.value == ("contradicted" if pre else "supported")
    if not pre:
        assert "not the initialization" in vanishing.meaning
        assert "(post-norm)" in vanishing.meaning
        assert vanishing.next_step.startswith("Warm the learning rate up")
