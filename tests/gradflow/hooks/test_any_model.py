"""Models of many kinds train the same with the tracer, and the rows are those of autograd.

For each model, parameters, buffers, optimizer state and random state are bit-identical with and
without the tracer, no hook stays behind, every layer that got a gradient has a finite row, and
norms are those of a copy whose outputs keep their gradients (`retain_grad`).
"""

import contextlib
import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import gradflow
from gradflow.hooks.layers import first_tensor

STEPS = 2


@dataclass(frozen=True)
class Case:
    """A model, its inputs, its loss and its optimizer."""

    make: Callable[[], nn.Module]
    feed: Callable[[], tuple[tuple, dict]]
    loss: Callable[[Any], torch.Tensor]
    optimizer: Callable = torch.optim.Adam


def vision(make, size=32, loss=None, batch=2):
    def feed():
        return (torch.randn(batch, 3, size, size),), {}

    return Case(make, feed, loss or (lambda y: y.square().mean()))


def detection_feed():
    boxes = torch.tensor([[2.0, 2.0, 20.0, 20.0]])
    targets = [{"boxes": boxes, "labels": torch.tensor([1])} for _ in range(2)]
    return ([torch.rand(3, 64, 64) for _ in range(2)], targets), {}


def token_feed():
    return (torch.randint(0, 40, (2, 7)),), {}


class Recurrent(nn.Module):
    def __init__(self, kind, packed):
        super().__init__()
        self.embedding = nn.Embedding(40, 6)
        self.rnn = kind(6, 5, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 3)
        self.packed = packed

    def forward(self, tokens):
        x = self.embedding(tokens)
        if self.packed:
            x = pack_padded_sequence(x, torch.tensor([7, 4]), batch_first=True)
        x, _ = self.rnn(x)
        if self.packed:
            x, _ = pad_packed_sequence(x, batch_first=True)
        return self.head(x)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(8, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, dropout=0.1)
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        x = self.inner(x)
        return self.norm(x + self.attention(x, x, x)[0])


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ELU(inplace=True))
        self.decoder = nn.Sequential(nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1), nn.Sigmoid())

    def forward(self, x):
        return self.decoder(self.encoder(x))


@dataclass
class TwoHeads:
    note: str
    classes: torch.Tensor
    nothing: None
    value: torch.Tensor


class Pair(NamedTuple):
    index: torch.Tensor
    features: torch.Tensor


class Trunk(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 6)

    def forward(self, x):
        return Pair(torch.arange(len(x)), self.linear(x).tanh())


class MultiTask(nn.Module):
    """Outputs in a named tuple within, in a dataclass without; a head that is never reached."""

    def __init__(self):
        super().__init__()
        self.trunk = Trunk()
        self.classify, self.regress, self.never = nn.Linear(6, 3), nn.Linear(6, 1), nn.Linear(6, 1)

    def forward(self, x):
        features = self.trunk(x).features
        return TwoHeads("two", self.classify(features), None, self.regress(features))


class LoRA(nn.Module):
    def __init__(self, base, rank=2):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


# Earlier torch gives the output of a linear layer on sequences as a view, and forgets its gradient
# where an activation overwrites it in place.
LINEAR_GIVES_A_VIEW = nn.Linear(2, 2)(torch.zeros(1, 1, 2))._is_view()


class Shared(nn.Module):
    """One module used twice, and a weight that two modules share."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(40, 8)
        self.twice = nn.Linear(8, 8)
        self.relu = nn.ReLU(inplace=not LINEAR_GIVES_A_VIEW)
        self.out = nn.Linear(8, 40, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, tokens):
        x = self.relu(self.twice(self.embedding(tokens)))
        return self.out(self.relu(self.twice(x)))


def two_losses(y):
    return y.classes.square().mean() + y.value.square().mean()


def mean_square(y):
    return y.square().mean()


def rows(*shape):
    return lambda: ((torch.randn(*shape),), {})


def transformer(name, **config):
    def make():
        transformers = pytest.importorskip("transformers")
        settings = getattr(transformers, f"{name}Config")(vocab_size=40, **config)
        return getattr(transformers, f"{name}Model")(settings)

    return Case(make, token_feed, lambda y: y.last_hidden_state.square().mean())


models = torchvision.models
CASES = {
    "resnet18": vision(lambda: models.resnet18(num_classes=5)),
    "vgg11_bn": vision(
        lambda: nn.Sequential(models.vgg11_bn().features, nn.Flatten(), nn.Linear(512, 5))
    ),
    "mobilenet_v3_small": vision(lambda: models.mobilenet_v3_small(num_classes=5)),
    "vit": vision(
        lambda: models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5, dropout=0.1)
    ),
    "swin": vision(
        lambda: models.SwinTransformer([2, 2], 8, [2, 2], [2, 4], [2, 2], num_classes=5)
    ),
    "convnext": vision(
        lambda: models.ConvNeXt(
            [models.convnext.CNBlockConfig(8, 16, 2), models.convnext.CNBlockConfig(16, None, 2)],
            stochastic_depth_prob=0.3,
            num_classes=5,
        )
    ),
    "segmentation": vision(
        lambda: models.segmentation.lraspp_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=3
        ),
        loss=lambda y: y["out"].square().mean(),
    ),
    "lstm": Case(lambda: Recurrent(nn.LSTM, False), token_feed, mean_square),
    "gru_packed": Case(lambda: Recurrent(nn.GRU, True), token_feed, mean_square),
    "attention": Case(Attention, rows(2, 5, 8), mean_square),
    "encoder_layer": Case(
        lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False
        ),
        rows(2, 5, 8),
        mean_square,
    ),
    "sparse_embedding": Case(
        lambda: nn.Sequential(nn.Embedding(40, 6, sparse=True), nn.Tanh()),
        token_feed,
        mean_square,
        lambda parameters: torch.optim.SparseAdam(list(parameters)),
    ),
    "autoencoder": Case(Autoencoder, rows(2, 3, 8, 8), mean_square),
    "multi_task": Case(MultiTask, rows(4, 5), two_losses),
    "weight_norm": Case(
        lambda: nn.Sequential(weight_norm(nn.Linear(5, 6)), nn.ReLU(), nn.Linear(6, 2)),
        rows(4, 5),
        mean_square,
    ),
    "lora": Case(
        lambda: nn.Sequential(LoRA(nn.Linear(5, 6)), nn.GELU(), nn.Linear(6, 2)),
        rows(4, 5),
        mean_square,
    ),
    "shared": Case(Shared, token_feed, mean_square),
    "single_layer": Case(lambda: nn.GRU(5, 4), rows(3, 2, 5), lambda y: y[0].square().mean()),
    "bert": transformer(
        "Bert", hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    ),
    "gpt2": transformer("GPT2", n_embd=16, n_layer=2, n_head=2),
    "llama": transformer(
        "Llama", hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    ),
    "resnet50": vision(lambda: models.resnet50(num_classes=5)),
    "densenet121": vision(lambda: models.densenet121(num_classes=5)),
    "efficientnet_b0": vision(lambda: models.efficientnet_b0(num_classes=5)),
    "convnext_tiny": vision(lambda: models.convnext_tiny(num_classes=5)),
    "vit_b_16": vision(lambda: models.vit_b_16(image_size=32, num_classes=5)),
    "swin_t": vision(lambda: models.swin_t(num_classes=5)),
    "googlenet": vision(
        lambda: models.googlenet(num_classes=5, aux_logits=True, init_weights=False),
        size=64,
        loss=lambda y: y.logits.square().mean() + 0.3 * (y.aux_logits1 + y.aux_logits2).mean(),
    ),
    "deeplab": vision(
        lambda: models.segmentation.deeplabv3_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=3, aux_loss=True
        ),
        loss=lambda y: y["out"].square().mean() + y["aux"].square().mean(),
    ),
    "detection": Case(
        lambda: models.detection.ssdlite320_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=3
        ),
        detection_feed,
        lambda y: sum(y.values()),
    ),
    "detection_fpn": Case(
        lambda: models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
            weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64
        ),
        detection_feed,
        lambda y: sum(y.values()),
    ),
}
# Of each of these a small sister, or a like model, is among the rest.
SLOW = ("resnet50", "convnext_tiny", "vit_b_16", "swin_t")
EVERY_CASE = [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in CASES
]


def make(case):
    torch.manual_seed(0)
    return case.make().train()


def train(case, model, folder=None):
    """Train for a few seeded steps, traced if a folder is given: optimizer and random state."""
    optimizer = case.optimizer(p for p in model.parameters() if p.requires_grad)

    def loop():
        for step in range(STEPS):
            torch.manual_seed(100 + step)
            args, kwargs = case.feed()
            optimizer.zero_grad()
            case.loss(model(*args, **kwargs)).backward()
            optimizer.step()

    if folder is None:
        loop()
    else:
        with gradflow.Tracer(model, folder, optimizer=optimizer):
            loop()
    return optimizer, torch.get_rng_state()


def flat(state):
    """Every tensor in a nested state, by path."""
    if isinstance(state, torch.Tensor):
        return {"": state}
    items = state.items() if isinstance(state, dict) else enumerate(state)
    return {
        f"{key}.{rest}": value
        for key, entry in items
        if isinstance(entry, (torch.Tensor, dict, list))
        for rest, value in flat(entry).items()
    }


def assert_identical(mine, theirs):
    mine, theirs = flat(mine), flat(theirs)
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        assert torch.equal(value, theirs[key]), key


def reference(case, model):
    """The outputs of all layers at the first step, copies that keep their gradients."""
    outputs = {}
    modules = dict(model.named_modules())
    modules[type(model).__name__] = modules.pop("")
    calls = dict.fromkeys(modules, 0)

    def keep(name):
        def hook(_, __, output):
            calls[name] += 1
            layer = name if calls[name] == 1 else f"{name}#{calls[name]}"
            tensor = first_tensor(output)
            if tensor is None or not tensor.requires_grad:
                return None
            plain = tensor is output
            # What follows works on a second copy, so that in-place operations leave the first be.
            outputs[layer] = kept = tensor.clone() if plain else tensor
            kept.retain_grad()
            return kept.clone() if plain else None

        return hook

    for name in gradflow.layers(model).layer:
        modules[name].register_forward_hook(keep(name))
    torch.manual_seed(100)
    args, kwargs = case.feed()
    case.loss(model(*args, **kwargs)).backward()
    return {layer: output for layer, output in outputs.items() if output.grad is not None}


@pytest.mark.parametrize("name", EVERY_CASE)
def test_traced_training_is_untraced_training_and_rows_are_autograds(tmp_path, name):
    case = CASES[name]
    traced, untraced = make(case), make(case)
    twin = copy.deepcopy(untraced)
    with_tracer, state = train(case, traced, tmp_path / "run")
    without, expected_state = train(case, untraced)

    assert_identical(traced.state_dict(), untraced.state_dict())
    assert_identical(with_tracer.state_dict()["state"], without.state_dict()["state"])
    assert torch.equal(state, expected_state)
    for module in traced.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert not any(p._backward_hooks for p in traced.parameters())

    run = gradflow.open_run(tmp_path / "run")
    gradients = run.gradients[run.gradients.step == 0].set_index("layer")
    assert len(gradients)
    assert run.gradients.nonfinite.sum() == 0
    assert run.gradients.norm.map(math.isfinite).all()
    assert set(run.gradients.layer) <= set(run.layers.layer)
    assert "first_nonfinite" not in run.description
    outputs = reference(case, twin)
    assert set(outputs) == set(gradients.index)
    activations = run.activations[run.activations.step == 0].set_index("layer")
    for layer, output in outputs.items():
        expected = float(output.grad.double().norm())
        assert gradients.norm[layer] == pytest.approx(expected, rel=1e-5, abs=1e-30), layer
        expected = float(output.detach().double().norm())
        assert activations.norm[layer] == pytest.approx(expected, rel=1e-5), layer


class Gan:
    """A generator and a discriminator, each with an optimizer of its own."""

    def __init__(self):
        torch.manual_seed(0)
        self.g = nn.Sequential(nn.Linear(3, 8), nn.ReLU(inplace=True), nn.Linear(8, 4))
        self.d = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.2, inplace=True), nn.Linear(8, 1))
        self.g_optimizer = torch.optim.Adam(self.g.parameters(), lr=1e-2)
        self.d_optimizer = torch.optim.Adam(self.d.parameters(), lr=1e-2)

    def train(self, pause):
        for step in range(3):
            torch.manual_seed(step)
            real, noise = torch.randn(6, 4), torch.randn(6, 3)
            self.d_optimizer.zero_grad()
            loss = self.d(self.g(noise).detach()).mean() - self.d(real).mean()
            loss.backward()
            self.d_optimizer.step()
            self.g_optimizer.zero_grad()
            with pause():
                judged = self.d(self.g(noise))
            (-judged.mean()).backward()
            self.g_optimizer.step()

    def parameters(self):
        return [*self.g.parameters(), *self.d.parameters()]


def test_two_tracers_follow_the_two_models_of_a_gan(tmp_path):
    traced, untraced = Gan(), Gan()
    untraced.train(contextlib.nullcontext)
    with (
        gradflow.Tracer(traced.g, tmp_path / "g", optimizer=traced.g_optimizer),
        gradflow.Tracer(traced.d, tmp_path / "d", optimizer=traced.d_optimizer) as judge,
    ):
        traced.train(judge.paused)
    for mine, theirs in zip(traced.parameters(), untraced.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    generator, discriminator = (gradflow.open_run(tmp_path / name) for name in ("g", "d"))
    # The generator runs twice a step, is trained once; the discriminator on six and six samples.
    assert set(generator.activations.batch_size) == {12}
    assert set(generator.gradients.batch_size) == {6}
    assert set(discriminator.activations.batch_size) == {12}
    assert set(discriminator.gradients.batch_size) == {12}
    assert sorted(set(discriminator.gradients.step)) == [0, 1, 2]
