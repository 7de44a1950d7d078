import copy
import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet18

from gradflow.data import Batch
from gradflow.models import build
from gradflow.probes.gradients.coherence import (
    PROBE,
    WHOLE_MODEL,
    gradient_coherence,
    pairwise_cosines,
    signal_to_noise,
)
from gradflow.probes.probe import NotMeasurableError, Subject
from gradflow.runs.format.schema import TABLES


class CalledTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.GroupNorm(1, 3)
        self.last = nn.Linear(3, 4)

    def forward(self, x):
        x = torch.relu_(self.norm(self.first(x)))
        x = torch.relu_(self.norm(self.first(x)))
        return self.last(x.mean((2, 3)))


def mixed():
    """Layers that need the general method (vmap), and a convolution with few positions."""
    return nn.Sequential(
        nn.ReLU(inplace=True),
        nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=3),
        nn.LayerNorm([6, 8, 8]),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 5, 3, padding="same", padding_mode="circular", bias=False),
        nn.ELU(inplace=True),
        nn.Conv2d(5, 8, 3, stride=2, dilation=2),
        nn.Flatten(),
        nn.Linear(32, 4),
    )


NETWORKS = {
    "plain20": (lambda: build("plain20", classes=4, seed=0), 8),
    "resnet20": (lambda: build("resnet20", classes=4, seed=0), 8),
    "plain20 without norm": (lambda: build("plain20", classes=4, norm="none", seed=0), 8),
    "resnet20 with group norm": (lambda: build("resnet20", classes=4, norm="group", seed=0), 8),
    "torchvision's resnet18": (lambda: resnet18(num_classes=4), 16),
    "layers called twice": (CalledTwice, 6),
    "mixed": (mixed, 16),
}


def subject_of(model, images, targets):
    batch = Batch(images, targets, torch.arange(len(targets)))
    return Subject(model, 1, False, False, None, batch, lambda: [batch], lambda: [batch], seed=0)


@pytest.fixture(params=NETWORKS)
def subject(request):
    make, side = NETWORKS[request.param]
    torch.manual_seed(1)
    model = make().double()
    images = torch.randn(3, 3, side, side, dtype=torch.float64)
    model.train()(images.clone())  # running statistics other than 0 and 1
    return subject_of(model.eval(), images, torch.tensor([0, 1, 1]))


def gradients_one_by_one(model, images, targets):
    """For each layer, the flat gradients of single images, by plain autograd."""
    gradients = {}
    for image, target in zip(images, targets, strict=True):
        model.zero_grad()
        F.cross_entropy(model(image[None].clone()), target[None]).backward()
        parts = []
        for name, module in model.named_modules():
            own = [p.grad.flatten() for p in module.parameters(recurse=False)]
            if own:
                gradients.setdefault(name, []).append(torch.cat(own))
                parts += own
        gradients.setdefault(WHOLE_MODEL, []).append(torch.cat(parts))
    return gradients


def test_every_number_equals_that_of_a_loop_over_single_images(subject):
    images, targets = subject.batch.images, subject.batch.targets
    expected = gradients_one_by_one(copy.deepcopy(subject.model), images, targets)
    columns = gradient_coherence(subject)["gradient_coherence"]
    assert columns["layer"] == list(expected)
    assert columns["samples"] == [3] * len(expected)
    for row, gradients in enumerate(expected.values()):
        cosines = [
            float(a @ b / (a.norm() * b.norm())) for a, b in itertools.combinations(gradients, 2)
        ]
        assert columns["mean_cosine"][row] == pytest.approx(sum(cosines) / 3, abs=1e-10)
        assert columns["min_cosine"][row] == pytest.approx(min(cosines), abs=1e-10)
        mean = sum(gradients) / 3
        noise = sum(float((gradient - mean).square().sum()) for gradient in gradients) / 2
        signal = float(mean.square().sum()) - noise / 3
        assert columns["signal_to_noise"][row] == pytest.approx(signal / noise, abs=1e-10)


def test_the_columns_are_those_of_the_schema():
    subject = subject_of(mixed(), torch.randn(3, 3, 16, 16), torch.tensor([0, 1, 3]))
    (name,) = PROBE.tables
    wanted = {column.name for column in TABLES[name].columns} - {"epoch"}
    assert set(PROBE.measure(subject)[name]) == wanted


def test_only_the_first_samples_are_used():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    images, targets = torch.randn(6, 3, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    few = gradient_coherence(subject_of(model, images, targets), samples=3)
    assert few == gradient_coherence(subject_of(model, images[:3], targets[:3]))
    assert few["gradient_coherence"]["samples"] == [3, 3]


def test_equal_and_opposite_gradients_have_cosines_one_and_minus_one():
    vectors = torch.tensor([[1.0, 2.0], [2.0, 4.0], [-1.0, -2.0]], dtype=torch.float64)
    assert pairwise_cosines(vectors @ vectors.T).tolist() == pytest.approx([1, -1, -1])


def test_an_image_without_gradient_has_no_cosine():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    assert pairwise_cosines(vectors @ vectors.T).tolist() == pytest.approx([math.sqrt(0.5)])


def test_a_layer_that_no_gradient_reaches_has_missing_values():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    nn.init.zeros_(model[3].weight)
    subject = subject_of(model, torch.randn(3, 3, 2, 2), torch.tensor([0, 1, 1]))
    columns = gradient_coherence(subject)["gradient_coherence"]
    dead = columns["layer"].index("1")
    for name in ("mean_cosine", "min_cosine", "signal_to_noise"):
        assert columns[name][dead] is None
        assert columns[name][columns["layer"].index("3")] is not None


def test_signal_to_noise_is_zero_on_average_without_a_common_direction():
    generator = torch.Generator().manual_seed(0)
    ratios = []
    for _ in range(400):
        vectors = torch.randn(8, 50, dtype=torch.float64, generator=generator)
        ratios.append(signal_to_noise(vectors @ vectors.T))
    values = torch.tensor(ratios)
    assert abs(float(values.mean())) < 4 * float(values.std()) / math.sqrt(400)


def test_equal_gradients_have_no_signal_to_noise_ratio():
    vector = torch.randn(30, dtype=torch.float64).expand(5, 30)
    assert signal_to_noise(vector @ vector.T) is None


@pytest.mark.parametrize("count", [0, 1])
def test_a_batch_without_pairs_is_not_measurable(count):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    subject = subject_of(model, torch.randn(count, 3, 2, 2), torch.zeros(count, dtype=torch.int64))
    with pytest.raises(NotMeasurableError, match=f"the batch has {count}"):
        gradient_coherence(subject)
