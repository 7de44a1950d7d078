"""Path lengths against all 2^n paths one by one, and against the closed form of linear blocks."""

import itertools

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock as TorchvisionBasicBlock
from torchvision.models.resnet import Bottleneck

from gradflow.data import Batch
from gradflow.models import build
from gradflow.models.blocks import BasicBlock, ZeroPadShortcut, projection
from gradflow.probes.network.blocks import find_blocks, rewired
from gradflow.probes.probe import NotMeasurableError, Subject
from gradflow.probes.skips import path_lengths
from gradflow.runs.reading.run import open_run
from gradflow.runs.writing.run import RunWriter


def subject_of(model, images, seed=1, epoch=1):
    targets = torch.arange(len(images)) % 3
    batch = Batch(images, targets, torch.arange(len(images)))
    return Subject(model, epoch, False, False, None, batch, list, list, seed)


def images_of(count, side):
    generator = torch.Generator().manual_seed(4)
    return torch.randn(count, 3, side, side, generator=generator, dtype=torch.float64)


def own_network():
    """Four blocks: identity, projection, zero-padding, and a skip with a scale."""

    def block(inputs, outputs, stride, downsample=None, scale=1.0):
        return BasicBlock(
            inputs,
            outputs,
            stride,
            nn.BatchNorm2d,
            bias=False,
            downsample=downsample,
            skip_scale=scale,
        )

    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(inplace=True),
        block(4, 4, 1),
        block(4, 6, 2, projection(4, 6, 2, nn.BatchNorm2d, bias=False)),
        block(6, 8, 2, ZeroPadShortcut(6, 8, 2)),
        block(8, 8, 1, scale=0.5),
        *head(8),
    )


def head(channels):
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3)


NETWORKS = {
    "gradflow's blocks": own_network,
    "torchvision's basic blocks": lambda: ResNet(
        TorchvisionBasicBlock, [1, 1, 1, 1], num_classes=3
    ),
    "torchvision's bottlenecks": lambda: ResNet(
        Bottleneck, [1, 1, 1, 1], num_classes=3, width_per_group=8
    ),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    model = NETWORKS[request.param]().double()
    model(images_of(4, 16))  # running statistics other than 0 and 1
    return model.eval()


def input_gradient(model, images, targets, ways=None):
    """dL/dx at the first block's input; `ways` says for each block whether to take its branch."""
    found = find_blocks(model)
    entered = []

    def run(block, x):
        if not entered:
            entered.append(x.detach().requires_grad_())
            x = entered[0]
        skip, branch = block.skip(x), block.branch(x)
        if ways is not None:
            takes_branch = ways[found.index(block)]
            skip, branch = (skip.detach(), branch) if takes_branch else (skip, branch.detach())
        return block.rectify(skip + branch)

    with rewired(dict.fromkeys(found, run)):
        loss = F.cross_entropy(model(images), targets)
    return torch.autograd.grad(loss, entered[0])[0]


def test_lengths_are_the_sums_over_all_paths_one_by_one(network):
    subject = subject_of(network, images_of(3, 16))
    images, targets = subject.batch.images, subject.batch.targets
    n = len(find_blocks(network))
    by_length = [0.0] * (n + 1)
    for ways in itertools.product((False, True), repeat=n):
        by_length[sum(ways)] += input_gradient(network, images, targets, ways)
    whole = input_gradient(network, images, targets)
    torch.testing.assert_close(sum(by_length), whole, rtol=1e-10, atol=1e-14)

    table = path_lengths.measure(subject)["path_lengths"]

    squared = float((whole * whole).sum())
    shares = [float((part * whole).sum()) / squared for part in by_length]
    assert table["length"] == list(range(n + 1))
    assert table["gradient_norm"] == pytest.approx([float(p.norm()) for p in by_length], rel=1e-10)
    assert table["share"] == pytest.approx(shares, rel=1e-8, abs=1e-12)
    assert sum(table["share"]) == pytest.approx(1, rel=1e-12)
    assert table["draws"] == [None] * (n + 1)


def linear_network(n, gain):
    """On positive inputs each block computes x + gain x."""
    made = []
    for _ in range(n):
        block = BasicBlock(2, 2, 1, lambda _: nn.Identity(), bias=False, downsample=None).double()
        nn.init.dirac_(block.conv1.weight)
        nn.init.dirac_(block.conv2.weight)
        block.conv1.weight.data *= gain
        made.append(block)
    return nn.Sequential(*made, *head(2)).double().eval()


@pytest.mark.parametrize("exact_up_to", [64, 3])
@pytest.mark.parametrize(("n", "gain"), [(7, 0.26), (5, 2.0)])
def test_linear_branches_give_the_binomial(n, gain, exact_up_to):
    # All paths of one length have equal gradients, so one random path gives the exact sum.
    subject = subject_of(linear_network(n, gain), images_of(4, 3)[:, :2].abs())
    table = path_lengths.measure(subject, exact_up_to=exact_up_to, draws=2)["path_lengths"]
    lengths = range(n + 1)
    wanted = stats.binom.pmf(lengths, n, gain / (1 + gain))
    assert table["share"] == pytest.approx(list(wanted), rel=1e-10)
    assert table["paths"] == pytest.approx(list(stats.binom.pmf(lengths, n, 0.5) * 2**n))
    assert table["draws"] == ([None] * (n + 1) if n <= exact_up_to else [1, *[2] * (n - 1), 1])


def test_fifty_four_blocks_are_still_expanded_exactly():
    # Veit et al. 2016: most of the gradient comes by paths of 5 to 17 branches.
    subject = subject_of(linear_network(54, 0.26), images_of(2, 1)[:, :2].abs())
    share = path_lengths.measure(subject)["path_lengths"]["share"]
    assert share == pytest.approx(list(stats.binom.pmf(range(55), 54, 0.26 / 1.26)), rel=1e-10)
    assert 0.96 < sum(share[5:18]) < 0.98


def test_sampling_is_unbiased_within_its_error():
    torch.manual_seed(0)
    network = own_network().double()
    network(images_of(4, 16))
    subject = subject_of(network.eval(), images_of(3, 8))
    exact = path_lengths.measure(subject)["path_lengths"]["share"]
    shares = torch.tensor(
        [
            path_lengths.measure(
                subject_of(network, subject.batch.images, seed=seed), exact_up_to=0, draws=2
            )["path_lengths"]["share"]
            for seed in range(150)
        ]
    )
    error = shares.std(0) / len(shares) ** 0.5
    inner = slice(1, -1)  # one path alone has no length, or all branches
    assert (error[inner] > 0).all()
    assert ((shares.mean(0) - torch.tensor(exact))[inner].abs() < 4 * error[inner]).all()
    assert shares[:, 0].tolist() == pytest.approx([exact[0]] * 150, rel=1e-6)


def test_random_draws_depend_only_on_seed_and_epoch():
    def shares(seed, epoch):
        network = build("resnet20", classes=3, seed=0).eval()
        subject = subject_of(network, images_of(2, 8).float(), seed, epoch)
        return path_lengths.measure(subject, exact_up_to=8, draws=1)["path_lengths"]["share"]

    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = shares(1, 1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert shares(1, 1) == first
    assert shares(2, 1) != first
    assert shares(1, 2) != first


def test_a_plain_network_has_only_one_path():
    network = build("plain20", classes=3, seed=0).eval()
    with pytest.raises(NotMeasurableError, match="no residual blocks"):
        path_lengths.measure(subject_of(network, images_of(2, 8).float()))


def test_blocks_that_do_not_follow_each_other_are_refused():
    network = linear_network(3, 0.5)
    network.insert(1, nn.Tanh())
    with pytest.raises(
        NotMeasurableError, match="2 does not read the output of the block before it"
    ):
        path_lengths.measure(subject_of(network, images_of(2, 3)[:, :2].abs()))


@pytest.mark.parametrize("exact_up_to", [0, 64])
def test_the_table_can_be_stored_and_read_back(tmp_path, exact_up_to):
    subject = subject_of(linear_network(2, 0.5), images_of(2, 3)[:, :2].abs())
    columns = path_lengths.measure(subject, exact_up_to=exact_up_to)["path_lengths"]
    RunWriter(tmp_path / "run", {}).append("path_lengths", {"epoch": [1] * 3, **columns}, 0, 0)
    stored = open_run(tmp_path / "run").table("path_lengths")
    for name in ("length", "paths", "gradient_norm", "share"):
        assert list(stored[name]) == list(columns[name]), name
    assert stored["draws"].isna().all() == (exact_up_to > 0)
