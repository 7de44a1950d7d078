import gc
import weakref

import pytest
import torch
from torch import nn

from gradflow.hooks.reduction.deferred import same_looks
from gradflow.hooks.reduction.deferred.same_looks import LooksAgain


def learnt(tensors):
    looks = LooksAgain()
    looks.learn(tensors)
    return looks


OTHERS = {
    "shape": lambda: torch.ones(3, 4),
    "order in memory": lambda: torch.ones(3, 4).t(),
    "gaps": lambda: torch.ones(4, 6)[:, ::2],
    "dtype": lambda: torch.ones(4, 3).double(),
    "device": lambda: torch.ones(4, 3, device="meta"),
    "class": lambda: nn.Parameter(torch.ones(4, 3)),
    "layout": lambda: torch.ones(4, 3).to_sparse(),
    "sign": lambda: torch._neg_view(torch.ones(4, 3)),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_another_look_is_noticed_in_any_place(other):
    looks = learnt([torch.ones(4, 3), torch.ones(2), torch.ones(4, 3)])
    assert looks.are_those_of([torch.zeros(4, 3), torch.zeros(2), torch.zeros(4, 3)])
    assert not looks.are_those_of([torch.ones(4, 3), torch.ones(2), other()])
    assert not looks.are_those_of([other(), torch.ones(2), torch.ones(4, 3)])
    assert not looks.are_those_of([torch.ones(4, 3), torch.ones(2)])


def test_a_tensor_that_is_there_twice_must_be_so_in_the_same_places():
    a, b, c = torch.ones(4, 3), torch.ones(2), torch.ones(4, 3)
    looks = learnt([a, b, a, c])
    assert looks.are_those_of([c, b, c, a])
    assert not looks.are_those_of([a, b, c, c]), "the third would be taken for the first"
    assert not looks.are_those_of([a, b, c, a])
    assert not learnt([a, c]).are_those_of([a, a])


def test_no_tensor_is_kept():
    tensor = torch.ones(4, 3)
    looks, reference = learnt([tensor, tensor]), weakref.ref(tensor)
    del tensor
    gc.collect()
    assert reference() is None
    assert looks.are_those_of([x := torch.ones(4, 3), x])


def test_tensors_of_a_transform_and_of_inference_look_otherwise():
    looks, found = learnt([torch.ones(4, 3)]), []
    torch.func.vmap(lambda x: found.append(looks.are_those_of([x])) or x)(torch.ones(2, 4, 3))
    with torch.inference_mode():
        found.append(looks.are_those_of([torch.ones(4, 3)]))
    assert found == [False, False]


class Blind:
    """A check that takes all tensors for alike."""

    def __init__(self, *tensors, **dimensions):
        pass

    def check(self, *tensors):
        return True


def test_a_check_that_tells_nothing_apart_is_not_used():
    assert same_looks._guards() is not None
    assert not same_looks._tells_apart(Blind)
    assert not same_looks._tells_apart(lambda *tensors: Blind())


def test_without_a_check_nothing_is_known(monkeypatch):
    monkeypatch.setattr(same_looks, "_guards", lambda: None)
    assert not learnt([torch.ones(3)]).are_those_of([torch.ones(3)])


def test_an_example_is_taken_a_few_times_only(monkeypatch):
    made = []
    monkeypatch.setattr(same_looks, "check_of", lambda tensors: made.append(1))
    looks = LooksAgain()
    for _ in range(10):
        looks.learn([torch.ones(3)])
    assert 0 < len(made) < 5
