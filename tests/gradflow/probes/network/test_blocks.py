import pytest
import torch
from torchvision.models import resnet18, resnet50

from gradflow.models import build
from gradflow.probes.network.blocks import find_blocks, rewired

NETWORKS = {
    "plain20": lambda: build("plain20", classes=3, seed=0),
    "resnet20": lambda: build("resnet20", classes=3, seed=0),
    "torchvision's resnet18": lambda: resnet18(num_classes=3),
    "torchvision's resnet50": lambda: resnet50(num_classes=3),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    return NETWORKS[request.param]().eval()


def test_branch_and_skip_put_together_are_the_block(network):
    images = torch.randn(2, 3, 32, 32)
    wanted = network(images)

    def whole(block, x):
        y = block.branch(x)
        return block.rectify(y + block.skip(x) if block.residual else y)

    with rewired(dict.fromkeys(find_blocks(network), whole)):
        assert torch.equal(network(images), wanted)


def test_rewiring_is_undone_even_after_an_error(network):
    images = torch.randn(2, 3, 32, 32)
    wanted = network(images)

    def fail(block, x):
        raise ZeroDivisionError

    with rewired(dict.fromkeys(find_blocks(network), lambda block, x: block.skip(x))):
        assert not torch.equal(network(images), wanted)
    with rewired(dict.fromkeys(find_blocks(network), fail)), pytest.raises(ZeroDivisionError):
        network(images)
    assert torch.equal(network(images), wanted)


def test_the_skip_of_a_plain_block_is_the_identity_if_the_shape_allows_it():
    network = build("plain20", classes=3, seed=0)
    found = {block.name: block for block in find_blocks(network)}
    x = torch.randn(2, 16, 8, 8)
    assert found["layer1.1"].skip(x) is x
    padded = found["layer2.0"].skip(x)
    assert torch.equal(padded[:, :16], x[:, :, ::2, ::2])
    assert padded.shape == (2, 32, 4, 4)
    assert not padded[:, 16:].any()


def test_a_network_of_another_kind_has_no_blocks():
    assert find_blocks(torch.nn.Sequential(torch.nn.Linear(2, 2))) == []
