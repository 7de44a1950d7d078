"""Nested tensors are observed by their values, beside loops over the sequences and autograd."""

import pytest
import torch
from torch import nn

import gradflow
from gradflow.hooks.reduction.fused import moments
from gradflow.hooks.reduction.statistics.from_moments import to_statistics

LENGTHS = (3, 5, 2)
# torch calls nested tensors a prototype, once per process.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The PyTorch API of nested tensors is in prototype stage"
)


class Block(nn.Module):
    """x + MLP(norm(x))."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.gelu, self.down = nn.Linear(width, 8), nn.GELU(), nn.Linear(8, width)

    def forward(self, x):
        return x + self.down(self.gelu(self.up(self.norm(x))))


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), Block(4), nn.Linear(4, 2))


def sequences():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(length, 3, generator=generator) for length in LENGTHS]


def by_sequence(network):
    """Outputs and gradients of every module in a loop over the sequences: [sum of lengths, C]."""
    kept = {}

    def keep(name):
        def hook(module, args, output):
            output.retain_grad()
            kept.setdefault(name, []).append(output)

        return hook

    handles = [m.register_forward_hook(keep(name)) for name, m in network.named_modules() if name]
    sum(network(x).pow(2).sum() for x in sequences()).backward()
    for handle in handles:
        handle.remove()
    network.zero_grad()
    return {
        name: (torch.cat(list(outputs)).detach(), torch.cat([x.grad for x in outputs]))
        for name, outputs in kept.items()
    }


def loss_of(output):
    return sum(x.pow(2).sum() for x in output.unbind())


@pytest.mark.parametrize("layout", [torch.jagged, torch.strided], ids=str)
def test_layers_have_the_statistics_of_all_sequences_together(tmp_path, layout):
    network = model()
    expected = by_sequence(network)
    x = torch.nested.nested_tensor(sequences(), layout=layout)
    with gradflow.Tracer(network, tmp_path / "run", histograms=True) as tracer:
        loss_of(network(x)).backward()
        tracer.step()
    run = gradflow.open_run(tmp_path / "run")
    for table, index in (("activations", 0), ("gradients", 1)):
        rows = run.table(table).set_index("layer")
        assert set(rows.index) == set(expected)
        assert set(rows.batch_size) == {len(LENGTHS)}
        for name, tensors in expected.items():
            values = tensors[index].double()
            row = rows.loc[name]
            assert row["norm"] == pytest.approx(float(values.norm()), rel=1e-5), name
            assert row["std"] == pytest.approx(float(values.std(correction=0)), rel=1e-5)
            variance = float(values.var(0, correction=0).mean())
            assert row["channel_variance"] == pytest.approx(variance, rel=1e-4), name
    layers = run.layers.set_index("layer")
    assert dict(layers["shape"]) == {
        name: str(tensors[0].shape[-1]) for name, tensors in expected.items()
    }
    counts = run.table("activation_histograms").set_index("layer")
    assert sum(counts.loc["1.gelu", "counts"]) == sum(LENGTHS) * 8


@pytest.mark.parametrize("layout", [torch.jagged, torch.strided], ids=str)
def test_a_residual_addition_is_split_as_in_a_loop(tmp_path, layout):
    """dL/dx = s + b, s the gradient at the sum, b that through the branch."""
    network = model()
    with gradflow.Tracer(network, tmp_path / "loop") as tracer:
        loss = sum(network(x).pow(2).sum() for x in sequences())
        loss.backward()
        tracer.step()
    network.zero_grad()
    x = torch.nested.nested_tensor(sequences(), layout=layout)
    with gradflow.Tracer(network, tmp_path / "run") as tracer:
        loss_of(network(x)).backward()
        tracer.step()
    (found,) = gradflow.open_run(tmp_path / "run").junctions.itertuples()
    expected = by_sequence(network)
    skip = expected["1"][1]
    whole = expected["0"][1]
    assert found.layer == "1"
    assert found.skip_gradient_norm == pytest.approx(float(skip.norm()), rel=1e-5)
    assert found.gradient_norm == pytest.approx(float(whole.norm()), rel=1e-5)
    assert found.branch_gradient_norm == pytest.approx(float((whole - skip).norm()), rel=1e-5)
    variance = float(expected["0"][0].var(0, correction=0).mean())
    assert found.skip_variance == pytest.approx(variance, rel=1e-4)


def test_training_is_bit_for_bit_the_same(tmp_path):
    weights = []
    for folder in (None, tmp_path / "run"):
        network = model()
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        x = torch.nested.nested_tensor(sequences(), layout=torch.jagged)

        def train(network=network, optimizer=optimizer, x=x):
            for _ in range(3):
                optimizer.zero_grad()
                loss_of(network(x)).backward()
                optimizer.step()

        if folder is None:
            train()
        else:
            with gradflow.Tracer(network, folder, optimizer=optimizer):
                train()
        weights.append([p.detach().clone() for p in network.parameters()])
    assert all(map(torch.equal, *weights))


def values(x, axis):
    return {name: found[0] for name, found in to_statistics([moments(x, axis)]).items()}


def assert_same(x, axis, plain, plain_axis):
    expected = values(plain, plain_axis)
    for name, found in values(x, axis).items():
        assert found == pytest.approx(expected[name], rel=1e-6, nan_ok=True), name
    assert moments(x, axis).batch_size == x.size(0)


def test_memory_between_the_sequences_does_not_count():
    padded = torch.randn(3, 6, 4)
    starts, lengths = torch.tensor([0, 1, 2]), torch.tensor([2, 3, 4])
    x = torch.nested.narrow(padded, 1, starts, lengths, layout=torch.jagged)
    parts = [padded[i, s : s + n] for i, (s, n) in enumerate(zip(starts, lengths, strict=True))]
    assert_same(x, 2, torch.cat(parts), 1)


def test_heads_and_transposed_sequences_have_the_last_fixed_axis_as_channels():
    parts = [torch.randn(n, 2, 3) for n in LENGTHS]
    x = torch.nested.nested_tensor(parts, layout=torch.jagged)  # [N, *, heads, C]
    assert_same(x, 3, torch.cat(parts), 2)
    assert_same(x.transpose(1, 2), 3, torch.cat(parts), 2)  # [N, heads, *, C], for attention
    flat = torch.nested.nested_tensor([part[:, 0] for part in parts], layout=torch.jagged)
    assert_same(flat.transpose(1, 2), 2, torch.cat(parts)[:, 0], 1)  # [N, C, *]


def test_numbers_and_images_of_varying_size_are_read_without_channels():
    lines = [torch.randn(n) for n in LENGTHS]
    for layout in (torch.jagged, torch.strided):
        x = torch.nested.nested_tensor(lines, layout=layout)
        assert_same(x, 1, torch.cat(lines), None)
    images = [torch.randn(2, n, n + 1) for n in LENGTHS]
    x = torch.nested.nested_tensor(images)
    assert_same(x, 3, torch.cat([image.flatten() for image in images]), None)
