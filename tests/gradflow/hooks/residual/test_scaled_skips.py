"""Residual additions with scaled skips, against autograd on two copies of the block's input."""

import copy

import pytest
import torch
from torch.nn import functional as F

import gradflow
from gradflow.models import build

BLOCKS = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1, 2)]
ALPHA = 0.5
IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TARGETS = torch.tensor([0, 1, 2])


def network(shortcut):
    made = build("resnet20", classes=3, shortcut=shortcut, skip_scale=ALPHA, seed=0)
    return made.double()


def forked(model):
    """The gradients at the two copies of every block's input that skip and branch read."""
    copies = {}

    def forward_of(name, block):
        def forward(x):
            skip, branch = x.clone(), x.clone()
            skip.retain_grad()
            branch.retain_grad()
            copies[name] = skip, branch
            out = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(branch)))))
            shortcut = skip if block.downsample is None else block.downsample(skip)
            return F.relu(out + ALPHA * shortcut)

        return forward

    for name in BLOCKS:
        block = model.get_submodule(name)
        block.forward = forward_of(name, block)
    F.cross_entropy(model(IMAGES), TARGETS).backward()
    return {name: (skip.grad, branch.grad) for name, (skip, branch) in copies.items()}


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_skip_and_branch_gradients_are_those_of_forked_inputs(tmp_path, shortcut):
    model = network(shortcut)
    wanted = forked(copy.deepcopy(model))
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        F.cross_entropy(model(IMAGES), TARGETS).backward()
        tracer.step()
    rows = gradflow.open_run(tmp_path / "run").junctions.set_index("layer")

    assert list(rows.index) == BLOCKS
    for name, (skip, branch) in wanted.items():
        both = skip + branch
        row = rows.loc[name]
        assert row.skip_gradient_norm == pytest.approx(float(skip.norm()), rel=1e-8)
        assert row.branch_gradient_norm == pytest.approx(float(branch.norm()), rel=1e-8)
        assert row.gradient_norm == pytest.approx(float(both.norm()), rel=1e-8)
        share = float((skip * both).sum() / both.square().sum())
        assert row.skip_share == pytest.approx(share, rel=1e-8)
    projected = {"layer2.0", "layer3.0"} if shortcut == "B" else set()
    assert set(rows.index[rows.skip_type == "projection"]) == projected
