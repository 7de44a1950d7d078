"""Libraries without a callback of ours: weights as without the tracer, and norms by hand."""

import copy

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from torch.utils.data import DataLoader

import gradflow

pytestmark = pytest.mark.filterwarnings("ignore")


def norms_at_each_step(optimizer, model):
    """The norms of the gradients that `optimizer` receives, from here on."""
    found = []

    def note(*_):
        found.append({name: float(p.grad.norm()) for name, p in model.named_parameters()})

    optimizer.register_step_post_hook(note)  # a closure fills them within the step
    return found


def assert_norms(run, expected):
    assert run.parameters.step.nunique() == len(expected)
    for step, norms in enumerate(expected):
        found = run.parameters[run.parameters.step == step].set_index("parameter").gradient_norm
        assert found.to_dict() == pytest.approx(norms, rel=1e-5, abs=1e-9)


@pytest.fixture
def trace_or_not(tmp_path, assert_same_weights):
    """Trains twice, by a function of a `tracer(model, optimizer)`, and compares the weights."""

    def compare(train):
        given = []

        def tracer(model, optimizer):
            given.append((model, optimizer, norms_at_each_step(optimizer, model)))
            return gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer)

        traced = train(tracer)
        assert_same_weights(traced, train(None))
        run = gradflow.open_run(tmp_path / "run")
        assert_norms(run, given[0][2])
        return run

    return compare


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_accelerate(trace_or_not, make_network, examples, precision):
    def train(tracer):
        AcceleratorState._reset_state(True)  # one for all tests of a process
        accelerator = Accelerator(
            cpu=True, gradient_accumulation_steps=2, mixed_precision=precision
        )
        model = make_network()
        inner = torch.optim.AdamW(model.parameters(), lr=0.01)
        model, optimizer, batches = accelerator.prepare(model, inner, DataLoader(examples, 4))

        def loop():
            torch.manual_seed(5)
            for inputs, targets in batches:
                with accelerator.accumulate(model):
                    accelerator.backward(nn.functional.cross_entropy(model(inputs), targets))
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(model.parameters(), 0.1)
                    optimizer.step()
                    optimizer.zero_grad()

        if tracer is None:
            loop()
        else:
            with tracer(model, inner) as ours:
                loop()
                ours.end_epoch()
        return model

    assert len(trace_or_not(train).steps) == 3


def test_skorch(trace_or_not, make_network, examples):
    skorch = pytest.importorskip("skorch")
    inputs, targets = (tensor.numpy() for tensor in examples.tensors)

    def train(tracer):
        net = skorch.NeuralNetClassifier(
            make_network(), criterion=nn.CrossEntropyLoss, max_epochs=1, lr=0.1, batch_size=8,
            train_split=None, verbose=0, classes=np.arange(3),
        )  # fmt: skip
        net.initialize()
        torch.manual_seed(5)
        if tracer is None:
            for _ in range(3):
                net.partial_fit(inputs, targets)
        else:
            with tracer(net.module_, net.optimizer_) as ours:
                for _ in range(3):
                    net.partial_fit(inputs, targets)
                    ours.end_epoch(train_loss=net.history[-1, "train_loss"])
        return copy.deepcopy(net.module_)

    assert trace_or_not(train).epochs.step.tolist() == [2, 5, 8]


def test_stable_baselines(trace_or_not):
    baselines = pytest.importorskip("stable_baselines3")

    def train(tracer):
        agent = baselines.PPO("MlpPolicy", "CartPole-v1", n_steps=64, seed=0, device="cpu")
        if tracer is None:
            for _ in range(2):
                agent.learn(64, reset_num_timesteps=False)
        else:
            with tracer(agent.policy, agent.policy.optimizer) as ours:
                for _ in range(2):
                    agent.learn(64, reset_num_timesteps=False)
                    ours.end_epoch()
        return agent.policy

    assert trace_or_not(train).epochs.step.tolist() == [9, 19]
