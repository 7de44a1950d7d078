"""Copies of a traced model contain nothing of the tracer, and memory does not grow."""

import copy
import gc
import io
import pickle
import tracemalloc
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

import gradflow
from gradflow.hooks.observation.hook import Hook
from gradflow.hooks.reduction.deferred.reductions import Reductions


class Doubled(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.relu = nn.Linear(3, 3), nn.ReLU(inplace=True)

    def forward(self, x):
        return x + self.relu(self.linear(x))


def by_torch_save(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def by_pickle(model):
    return pickle.loads(pickle.dumps(model))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), Doubled(), nn.Linear(3, 1))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, by_pickle, by_torch_save])
def test_a_copy_of_a_traced_model_works_and_records_nothing(tmp_path, duplicate):
    model = network()
    names = set(model.state_dict())
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        assert set(model.state_dict()) == names
        model(torch.ones(2, 3)).sum().backward()
        twin = duplicate(model)
        for module in twin.modules():
            hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
            assert all(hook.__module__ == "gradflow.hooks.observation.hook" for hook in hooks)
            assert all(hook.__name__ == "inert" for hook in hooks)
        twin(torch.ones(7, 3)).sum().backward()
        tracer.step()
    assert torch.equal(twin(torch.ones(2, 3)), model(torch.ones(2, 3)))
    run = gradflow.open_run(tmp_path / "run")
    assert set(run.activations.batch_size) == {2}
    assert set(run.gradients.batch_size) == {2}


class Counting:
    """An observer that counts how often its record is read."""

    def __init__(self):
        self.open, self.asked = None, 0

    @property
    def record(self):
        self.asked += 1
        return self.open


def test_an_idle_hook_reads_the_record_once_and_does_nothing():
    observer, called = Counting(), []
    hook = Hook(observer, lambda *given: called.append(given))
    hook(1, 2)
    assert (observer.asked, called) == (1, [])
    observer.open = object()
    hook(1, 2)
    assert (observer.asked, called) == (2, [(1, 2)])


def test_steps_that_are_not_recorded_compute_nothing(tmp_path, monkeypatch):
    computed, counts = [], []
    original = Reductions.reduce
    monkeypatch.setattr(
        Reductions, "reduce", lambda *a, **k: computed.append(a) or original(*a, **k)
    )
    model = network()
    with gradflow.Tracer(model, tmp_path / "run", schedule=10) as tracer:
        for _ in range(21):
            computed.clear()
            model(torch.ones(2, 3)).sum().backward()
            counts.append(len(computed))
            tracer.step()
    assert [step for step, count in enumerate(counts) if count] == [0, 10, 20]


def grown(folder, few, many):
    """How many more bytes and objects `many` written steps leave in memory than `few` do.

    The least of several epochs counts: what each step leaves is there in all of them. Whatever is
    kept once, such as a larger table of a cache or what another thread holds just then, is not.
    """
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def train(count):
        for _ in range(count):
            optimizer.zero_grad()
            model(torch.ones(2, 3)).sum().backward()
            optimizer.step()
        tracer.end_epoch()
        gc.collect()
        return np.array([tracemalloc.get_traced_memory()[0], len(gc.get_objects())])

    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        tracemalloc.start()
        try:
            train(60)
            left = [train(60), *(train(count) for _ in range(4) for count in (few, many))]
        finally:
            tracemalloc.stop()
    by_epoch = np.diff(left, axis=0)
    return by_epoch[1::2].min(axis=0) - by_epoch[::2].min(axis=0)


@pytest.mark.parametrize("by", ["clear", "replace"])
@pytest.mark.parametrize("gone", [["0", "2"], ["1"]])
def test_hooks_that_other_code_removes_are_reported_with_their_layers(tmp_path, by, gone):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        model(torch.ones(5, 3)).square().sum().backward()
        optimizer.step()

    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer):
        for _ in range(3):
            step()
        for name in gone:
            if by == "clear":
                model.get_submodule(name)._forward_hooks.clear()
            else:
                model.get_submodule(name)._forward_hooks = OrderedDict()
        with pytest.warns(
            UserWarning, match=rf"step 3 the tracer's hooks on {', '.join(gone)} are"
        ):
            step()
        step()
    activations = gradflow.open_run(tmp_path / "run").activations
    for name in ("0", "1", "2"):
        expected = range(3) if name in gone else range(5)
        assert set(activations[activations.layer == name].step) == set(expected)


def test_a_layer_that_does_not_run_is_no_removed_hook(tmp_path):
    model = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        for depth in (2, 1, 2, 1):
            tracer.begin_pass()
            x = torch.ones(2, 3)
            for layer in model[:depth]:
                x = layer(x)
            x.sum().backward()
            tracer.step()


def test_memory_does_not_grow_with_the_steps(tmp_path):
    size, objects = grown(tmp_path / "run", few=20, many=170)
    # One object kept a step would be 150, one 0-d tensor a step 10 kB.
    assert objects < 45
    assert size < 6_600


@pytest.mark.slow
def test_memory_does_not_grow_over_10_000_steps(tmp_path):
    size, objects = grown(tmp_path / "run", few=100, many=2_500)
    # One object kept a step would be 2,400, one 0-d tensor a step 160 kB.
    assert objects < 72
    assert size < 24_000
