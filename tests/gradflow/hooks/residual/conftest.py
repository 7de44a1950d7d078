"""Rows of residual additions against autograd on two copies of each block's input."""

import copy

import pytest
import torch

import gradflow

COLUMNS = {
    "skip_gradient_norm": lambda s, b: s.norm(),
    "branch_gradient_norm": lambda s, b: b.norm(),
    "gradient_norm": lambda s, b: (s + b).norm(),
    "skip_branch_cosine": lambda s, b: (s * b).sum() / (s.norm() * b.norm()),
    "skip_share": lambda s, b: (s * (s + b)).sum() / (s + b).square().sum(),
}


def loss_of(output):
    """A loss that tells all outputs apart."""
    weights = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view_as(output)
    return (output.square() * weights).sum() + (output * weights.flip(0)).sum()


def forked_gradients(model, x, blocks):
    """The gradients at two copies of the input of each block, for its skip and its branch.

    A block has a method `add(skip, branch)`, which computes its output from the two copies. If x is
    not its input, its forward calls `fork` on x, which returns both.
    """
    copies = {}

    def fork_of(name):
        def fork(x):
            copies[name] = [x.clone() for _ in range(2)]
            for one in copies[name]:
                one.retain_grad()
            return copies[name]

        return fork

    def forward_of(block, fork):
        return lambda x: block.add(*fork(x))

    for name in blocks:
        block, fork = model.get_submodule(name), fork_of(name)
        if hasattr(block, "fork"):
            block.fork = fork
        else:
            block.forward = forward_of(block, fork)
    loss_of(model(x)).backward()
    return {name: [one.grad for one in pair] for name, pair in copies.items()}


def record(model, folder, x, steps=1):
    with gradflow.Tracer(model, folder) as tracer:
        for _ in range(steps):
            loss_of(model(x)).backward()
            tracer.step()
    return gradflow.open_run(folder)


@pytest.fixture
def check(tmp_path):
    """Record two steps of a model; compare each with the gradients at forked inputs.

    `rows` maps the name of each row to the name of its block.
    """

    def checked(model, x, rows, skip_type):
        model = model.double().train()
        expected = forked_gradients(copy.deepcopy(model), x, rows.values())
        run = record(model, tmp_path / "run", x, steps=2)
        for step in (0, 1):
            seen = run.junctions[run.junctions.step == step].set_index("layer")
            assert list(seen.index) == list(rows)
            assert set(seen.skip_type) == {skip_type}
            for layer, block in rows.items():
                skip, branch = expected[block]
                for column, formula in COLUMNS.items():
                    value = float(formula(skip, branch))
                    assert seen.loc[layer, column] == pytest.approx(value, rel=1e-9), column
                whole = float((skip + branch).norm())
                assert seen.loc[layer, "input_gradient_norm"] == pytest.approx(whole, rel=1e-9)
            assert (seen.residual_error < 1e-12).all()
        assert run.description["residual_additions"]["found"] == len(rows)
        return run

    return checked


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)

    def made(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return made
