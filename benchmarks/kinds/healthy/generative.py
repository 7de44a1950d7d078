"""Models that make images of digits: autoencoder, variational autoencoder, adversaries."""

import random
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from training import Terms, Training, summed

from healthy.recipe import constant, cosine, pool, recipe
from healthy.sources import digits


def _mlp(
    widths: list[int], activation: type[nn.Module], norm: type[nn.Module] | None = None
) -> nn.Sequential:
    parts: list[nn.Module] = []
    for first, second in pairwise(widths):
        layer = nn.Linear(first, second)
        if activation in (nn.ReLU, nn.LeakyReLU):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        else:
            nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
        parts += [layer, *([norm(second)] if norm else []), activation()]
    return nn.Sequential(*parts)


class Autoencoder(nn.Module):
    """An encoder to a few numbers and a decoder from them."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder, self.head = encoder, decoder, head

    def forward(self, x: Tensor) -> Tensor:
        """The images again, [N, 64]."""
        out: Tensor = self.head(self.decoder(self.encoder(x)))
        return out


def reconstruct(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of the images."""
    return F.mse_loss(model(inputs).float(), targets)


def autoencoder(draw: random.Random, *, activation: type[nn.Module] | None = None) -> Training:
    """Linear layers down to a code of eight or sixteen."""
    images = digits()[0].flatten(1)
    width, code, activation = (
        draw.choice([48, 64, 96]),
        draw.choice([8, 16]),
        activation or draw.choice([nn.ReLU, nn.Tanh, nn.GELU]),
    )
    norm = nn.BatchNorm1d if draw.random() < 0.3 else None
    model = Autoencoder(
        nn.Sequential(_mlp([64, width, width // 2], activation, norm), nn.Linear(width // 2, code)),
        _mlp([code, width // 2, width], activation, norm),
        nn.Linear(width, 64),
    )
    return recipe(
        draw,
        "autoencoder",
        model,
        pool(images, images, 48, draw.randrange(1000)),
        reconstruct,
        steps=(110, 170),
        head="head",
        rules=("momentum", "Adam", "AdamW"),
        factor=1.5,
        learns=0.8,
        words=[f"{width} to {code}", activation.__name__, "batch norm" if norm else "no norm"],
    )


class Variational(nn.Module):
    """An encoder to means and log-variances, a draw, a decoder."""

    def __init__(self, width: int, code: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.encoder = _mlp([64, width, width], activation)
        self.mean, self.log_variance = nn.Linear(width, code), nn.Linear(width, code)
        self.decoder = _mlp([code, width, width], activation)
        self.head = nn.Linear(width, 64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The images again, means and log-variances."""
        features = self.encoder(x)
        mean, log_variance = self.mean(features), self.log_variance(features)
        code = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return self.head(self.decoder(code)), mean, log_variance


def evidence_terms(model: nn.Module, inputs: Tensor, targets: Tensor) -> Terms:
    """The error of the images, and a little of the divergence from the prior."""
    images, mean, log_variance = model(inputs)
    mean, log_variance = mean.float(), log_variance.float()
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    return {"images": (1.0, F.mse_loss(images.float(), targets)), "prior": (0.05, divergence)}


def evidence(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """The sum of both terms."""
    return summed(evidence_terms(model, inputs, targets))


def variational(draw: random.Random) -> Training:
    """A variational autoencoder of linear layers."""
    images = digits()[0].flatten(1)
    width, code, activation = (
        draw.choice([48, 64, 96]),
        draw.choice([4, 8]),
        draw.choice([nn.ReLU, nn.GELU, nn.Tanh]),
    )
    training = recipe(
        draw,
        "variational autoencoder",
        Variational(width, code, activation),
        pool(images, images, 48, draw.randrange(1000)),
        evidence,
        steps=(120, 180),
        head="head",
        rules=("Adam", "AdamW"),
        learns=0.85,
        words=[f"{width} to {code}", activation.__name__],
    )
    training.terms = evidence_terms
    return training


class Adversaries(nn.Module):
    """A generator and a discriminator; returns the loss of the one whose turn it is."""

    def __init__(self, generator: nn.Module, discriminator: nn.Module) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.turn = 0

    def forward(self, noise: Tensor, real: Tensor) -> Tensor:
        """The discriminator's loss in even turns, the generator's in odd ones."""
        made = self.generator(noise)
        if self.turn % 2 == 0:
            right, wrong = self.discriminator(real), self.discriminator(made.detach())
            return F.softplus(-right.float()).mean() + F.softplus(wrong.float()).mean()
        return F.softplus(-self.discriminator(made).float()).mean()


def gan(draw: random.Random) -> Training:
    """Adversaries on the digits: both traced, or the generator alone."""
    images = torch.tanh(digits()[0].flatten(1))
    width, noise = draw.choice([48, 64]), draw.choice([8, 16])
    norm = nn.BatchNorm1d if draw.random() < 0.5 else None
    generator = nn.Sequential(
        _mlp([noise, width, width], nn.ReLU, norm), nn.Linear(width, 64), nn.Tanh()
    )
    discriminator = nn.Sequential(_mlp([64, width, width], nn.LeakyReLU), nn.Linear(width, 1))
    both = draw.random() < 0.5
    batches, _ = pool(images, images, 48, draw.randrange(1000))
    model: nn.Module = Adversaries(generator, discriminator) if both else generator

    def drawn(step: int, size: int = 48) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        return torch.randn(size, noise, generator=generator)

    def loss_of_both(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        loss: Tensor = model(inputs, targets)
        return loss

    def loss_of_one(model: nn.Module, inputs: Tensor, _: Tensor) -> Tensor:
        return F.softplus(-discriminator(model(inputs)).float()).mean()

    training = recipe(
        draw,
        "gan",
        model,
        (lambda step: (drawn(step), batches(step)[1]), None),
        loss_of_both if both else loss_of_one,
        steps=(160, 220),
        head="generator.1" if both else "1",
        rules=("GAN's Adam",),
        schedules=(constant, cosine),
        half=False,
        learns=0.7,
        words=["both traced" if both else "generator traced", "batch norm" if norm else "no norm"],
    )
    training.decay, training.clip = 0.0, None
    training.tracer_options["objective"] = "moving"

    def distance() -> float:
        """Squared distance of the mean image and of the standard deviations."""
        with torch.no_grad():
            made, real = generator(drawn(123_456, 256)), images[:400]
        means = (made.mean(0) - real.mean(0)).square().sum()
        return float(means + (made.std(0) - real.std(0)).square().sum())

    training.measure = distance
    if both:
        training.turns = ("discriminator", "generator")
        training.before_step.append(lambda step: setattr(model, "turn", step))
    else:
        own = torch.optim.Adam(discriminator.parameters(), training.lr, betas=(0.5, 0.99))

        def teach(step: int) -> None:
            with torch.no_grad():
                made = generator(drawn(500_000 + step))
            right, wrong = discriminator(batches(step)[0]), discriminator(made)
            own.zero_grad()
            (F.softplus(-right).mean() + F.softplus(wrong).mean()).backward()
            own.step()

        training.before_step.append(teach)
    return training
