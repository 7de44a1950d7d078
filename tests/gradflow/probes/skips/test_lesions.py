"""Lesions against networks whose blocks were replaced by hand; which sets of blocks are deleted."""

import copy
import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from gradflow.data import Batch
from gradflow.models import build
from gradflow.models.blocks import ZeroPadShortcut
from gradflow.probes.network.blocks import find_blocks
from gradflow.probes.probe import NotMeasurableError, Subject
from gradflow.probes.skips import lesions
from gradflow.runs.reading.run import open_run
from gradflow.runs.writing.run import RunWriter

IMAGES = torch.randn(7, 3, 16, 16, generator=torch.Generator().manual_seed(3))
TARGETS = torch.arange(7) % 3


def validation():
    """Two batches of unequal size, with indices in the data set that are not 0 to 6."""
    for part in torch.arange(7).split(4):
        yield Batch(IMAGES[part], TARGETS[part], part + 20)


def subject_of(model, seed=1, epoch=3):
    return Subject(
        model, epoch, True, False, None, next(iter(validation())), list, validation, seed
    )


def trained_like(name):
    """A network whose running statistics are not those of a fresh one."""
    model = build(name, classes=3, seed=0)
    generator = torch.Generator().manual_seed(9)
    for _ in range(20):
        model(torch.randn(8, 3, 16, 16, generator=generator))
    nn.init.normal_(model.fc.weight, generator=generator)
    return model.eval()


@pytest.fixture(scope="module", params=["resnet20", "plain20"])
def network(request):
    return trained_like(request.param)


@pytest.fixture(scope="module")
def table(network):
    return pd.DataFrame(lesions.measure(subject_of(copy.deepcopy(network)))["lesions"])


def deleted_by_hand(network, names):
    """A copy in which the named blocks are only their skip and the ReLU after it."""
    twin = copy.deepcopy(network)
    for name in names:
        block = twin.get_submodule(name)
        shortcut = getattr(block, "downsample", None)
        if shortcut is None:
            inputs, outputs = block.conv1.in_channels, block.conv1.out_channels
            same = inputs == outputs
            shortcut = nn.Identity() if same else ZeroPadShortcut(inputs, outputs, 2)
        twin.set_submodule(name, nn.Sequential(shortcut, nn.ReLU()))
    return twin


@torch.no_grad()
def test_every_lesion_classifies_as_with_the_blocks_replaced_by_hand(network, table):
    for deleted, rows in table.groupby("blocks"):
        names = deleted.split("+") if deleted else []
        logits = deleted_by_hand(network, names)(IMAGES)
        probability, prediction = logits.softmax(1).max(1)
        assert list(rows.image) == list(range(20, 27))
        assert list(rows.target) == TARGETS.tolist()
        assert list(rows.prediction) == prediction.tolist()
        np.testing.assert_allclose(rows.probability, probability, rtol=1e-5)
        assert set(rows.deleted) == {len(names)}
    # The lesions do change predictions.
    assert table.groupby("image").probability.nunique().min() > 10


def test_each_block_is_deleted_and_sets_of_powers_of_two(network, table):
    names = [block.name for block in find_blocks(network)]
    made = [one.split("+") if one else [] for one in table.blocks.unique()]
    assert made[0] == []
    assert [one[0] for one in made[1:10]] == names
    assert Counter(map(len, made)) == {0: 1, 1: 9, 2: 3, 4: 3, 8: 3}
    assert all(one == sorted(one, key=names.index) for one in made)
    assert len({tuple(one) for one in made}) == len(made)


def test_the_network_does_not_change(network):
    model = copy.deepcopy(network)
    wanted = model(IMAGES)
    lesions.measure(subject_of(model))
    assert torch.equal(model(IMAGES), wanted)
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(("count", "sets"), [(1, 0), (2, 0), (3, 3), (5, 5 + 5)])
def test_no_more_sets_are_drawn_than_there_are(count, sets):
    model = build("resnet20", classes=3, seed=0).eval()
    model.stages = ("layer1",)
    model.layer1 = nn.Sequential(
        *(build("resnet20", classes=3, seed=seed).layer1[0] for seed in range(count))
    )
    del model.layer2, model.layer3
    model.fc = nn.Linear(16, 3)
    table = pd.DataFrame(lesions.measure(subject_of(model), draws=5)["lesions"])
    assert (table.groupby("blocks").deleted.first() > 1).sum() == sets
    assert sets <= sum(math.comb(count, k) for k in (2, 4))


def test_random_draws_depend_only_on_seed_and_epoch():
    model = build("resnet20", classes=3, seed=0).eval()

    def chosen(seed, epoch):
        table = lesions.measure(subject_of(model, seed, epoch))["lesions"]
        return list(dict.fromkeys(table["blocks"]))

    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = chosen(1, 3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert chosen(1, 3) == first
    assert chosen(2, 3) != first
    assert chosen(1, 4) != first


def test_a_network_without_blocks_has_nothing_to_delete():
    with pytest.raises(NotMeasurableError, match="no blocks"):
        lesions.measure(subject_of(nn.Sequential(nn.Flatten(), nn.Linear(768, 3))))


def test_the_table_can_be_stored_and_read_back(network, tmp_path):
    columns = lesions.measure(subject_of(copy.deepcopy(network)))["lesions"]
    epoch = [1] * len(columns["image"])
    RunWriter(tmp_path / "run", {}).append("lesions", {"epoch": epoch, **columns}, 0, 0)
    stored = open_run(tmp_path / "run").table("lesions")
    for name in ("blocks", "image", "deleted", "target", "prediction", "probability"):
        assert list(stored[name]) == list(columns[name]), name
