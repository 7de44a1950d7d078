"""Complex layers and parameters are observed by magnitude, beside autograd by hand."""

import pytest
import torch
from torch import nn

import gradflow


class SpectralConvolution(nn.Module):
    """The layer of a Fourier neural operator: weights [C, C, K] that multiply K frequencies."""

    def __init__(self, channels, modes):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels, modes, dtype=torch.cfloat) / 4)

    def forward(self, x):
        spectrum = torch.fft.rfft(x)
        kept = torch.einsum("bik,iok->bok", spectrum[..., : self.weight.shape[-1]], self.weight)
        return torch.fft.irfft(kept, n=x.shape[-1])


class Spectrum(nn.Module):
    """A layer that returns complex numbers."""

    def forward(self, x):
        return torch.fft.rfft(x)


class Magnitude(nn.Module):
    def forward(self, x):
        return x.abs()


class ComplexBlock(nn.Module):
    """x + Wx on complex numbers."""

    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width, dtype=torch.cfloat)

    def forward(self, x):
        return x + self.linear(x)


def operator():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(1, 3, 1), SpectralConvolution(3, 4), nn.GELU(), nn.Conv1d(3, 1, 1)
    )


@pytest.mark.parametrize("steps", [3])
def test_spectral_weights_have_norms_updates_and_cosines(tmp_path, steps):
    model = operator()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    expected = []
    previous = None
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        for step in range(steps):
            x = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            model(x).square().mean().backward()
            weight = model[1].weight.detach().clone()
            gradient = model[1].weight.grad.clone()
            optimizer.step()
            update = model[1].weight.detach() - weight
            cosine = None
            if previous is not None:
                inner = (gradient.conj() * previous).sum().real
                cosine = float(inner / (gradient.norm() * previous.norm()))
            expected.append((weight.norm(), gradient.norm(), update.norm(), cosine))
            previous = gradient
        tracer.end_epoch()
    rows = gradflow.open_run(tmp_path / "run").parameters.set_index(["parameter", "step"])
    for step, (weight, gradient, update, cosine) in enumerate(expected):
        row = rows.loc[("1.weight", step)]
        assert row.weight_norm == pytest.approx(float(weight), rel=1e-6)
        assert row.gradient_norm == pytest.approx(float(gradient), rel=1e-6)
        assert row.update_norm == pytest.approx(float(update), rel=1e-4)
        assert (cosine is None) or row.gradient_cosine == pytest.approx(cosine, rel=1e-5)


@pytest.mark.parametrize("histograms", [False, True])
def test_complex_outputs_and_their_gradients_are_observed_by_magnitude(tmp_path, histograms):
    model = nn.Sequential(nn.Linear(8, 8), Spectrum(), Magnitude(), nn.Linear(5, 1))
    x = torch.randn(4, 8)
    seen = {}

    def after(module, args, output):
        seen["output"] = output.detach()
        output.register_hook(lambda gradient: seen.update(gradient=gradient.detach()))

    handle = model[1].register_forward_hook(after)
    with gradflow.Tracer(
        model, tmp_path / "run", observe=[Spectrum, "0"], histograms=histograms
    ) as tracer:
        model(x).square().mean().backward()
        tracer.step()
        tracer.end_epoch()
    handle.remove()
    run = gradflow.open_run(tmp_path / "run")
    for table, name in (("activations", "output"), ("gradients", "gradient")):
        row = run.table(table).set_index("layer").loc["1"]
        magnitudes = seen[name].abs().double()
        assert row["norm"] == pytest.approx(float(magnitudes.norm()), rel=1e-6)
        assert row["mean"] == pytest.approx(float(magnitudes.mean()), rel=1e-6)
        assert row["abs_max"] == pytest.approx(float(magnitudes.max()), rel=1e-6)


def test_residual_addition_of_complex_numbers_is_split(tmp_path):
    """dL/dx = s + b with s the gradient at the sum, b that through the branch: W^H s."""
    torch.manual_seed(0)
    model = nn.Sequential(Spectrum(), ComplexBlock(5), Magnitude(), nn.Linear(5, 1))
    x = torch.randn(4, 8, requires_grad=True)
    found = {}
    handle = model[1].register_forward_hook(
        lambda module, args, output: (
            output.register_hook(lambda g: found.update(s=g.detach())) and None
        )
    )
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        model(x).square().mean().backward()
        tracer.step()
        tracer.end_epoch()
    handle.remove()
    (row,) = gradflow.open_run(tmp_path / "run").junctions.itertuples()
    skip = found["s"]
    branch = skip @ model[1].linear.weight.detach().conj()
    assert row.skip_gradient_norm == pytest.approx(float(skip.norm()), rel=1e-5)
    assert row.branch_gradient_norm == pytest.approx(float(branch.norm()), rel=1e-5)
    assert row.gradient_norm == pytest.approx(float((skip + branch).norm()), rel=1e-5)
