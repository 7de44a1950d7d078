"""Under activation checkpointing, the pass that runs again is not recorded twice."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import gradflow


class Checkpointed(nn.Module):
    """Two checkpointed segments around one module that both use, and a layer outside."""

    def __init__(self, kinds):
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.one = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Dropout(0.3))
        self.two = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.BatchNorm1d(6))
        self.shared = nn.Linear(6, 6)
        self.kinds = kinds

    def segment_one(self, x):
        return self.shared(self.one(x))

    def segment_two(self, x):
        return self.shared(self.two(x))

    def forward(self, x):
        x = self.first(x)
        for segment in (self.segment_one, self.segment_two):
            x = wrap(segment, self.kinds)(x)
        return x


def wrap(function, kinds):
    """`function` checkpointed in each of `kinds`, reentrant or not, from the inside out."""
    for reentrant in kinds:
        function = checkpointed(function, reentrant)
    return function


def checkpointed(function, reentrant):
    return lambda x: checkpoint(function, x, use_reentrant=reentrant)


def train(kinds, twin, folder=None):
    """A copy of `twin`, trained with checkpointing of `kinds`, traced if a folder is given."""
    model = Checkpointed(kinds).double()
    model.load_state_dict(twin.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    context = nullcontext()
    if folder is not None:
        context = gradflow.Tracer(model, folder, optimizer=optimizer)
    with context:
        for step in range(3):
            torch.manual_seed(step)
            for _ in range(2):  # accumulation
                model(torch.randn(5, 4, dtype=torch.float64)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    return model


@pytest.mark.parametrize(
    "kinds", [(True,), (False,), (True, True), (False, True), (True, False), (False, False)]
)
def test_what_is_recorded_is_what_it_is_without_checkpointing(tmp_path, kinds):
    torch.manual_seed(0)
    twin = Checkpointed(()).double()
    train((), twin, tmp_path / "plain")
    traced, untraced = train(kinds, twin, tmp_path / "run"), train(kinds, twin)
    for name, value in untraced.state_dict().items():
        assert torch.equal(value, traced.state_dict()[name]), name
    expected, run = (gradflow.open_run(tmp_path / name) for name in ("plain", "run"))
    assert list(run.layers.layer) == list(expected.layers.layer)
    for table in ("activations", "gradients"):
        keys = ["step", "layer"]
        mine = getattr(run, table).set_index(keys).sort_index()
        theirs = getattr(expected, table).set_index(keys).sort_index()
        assert list(mine.index) == list(theirs.index)
        assert set(mine.batch_size) == {10}
        for column in ("norm", "mean", "zero_fraction"):
            assert list(mine[column]) == pytest.approx(list(theirs[column]), rel=1e-12), column


def test_a_model_checkpointed_as_a_whole_is_recorded_once(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3)).double()
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    norms = []
    for kinds in ((), (True,), (False,)):
        model.zero_grad()
        with gradflow.Tracer(model, tmp_path / f"{kinds}") as tracer:
            wrap(model, kinds)(x).square().sum().backward()
            tracer.step()
        run = gradflow.open_run(tmp_path / f"{kinds}")
        assert list(run.activations.layer) == ["0", "1", "2"]
        norms.append(run.gradients.set_index("layer").norm.to_dict())
    assert norms[1] == pytest.approx(norms[0], rel=1e-12)
    assert norms[2] == pytest.approx(norms[0], rel=1e-12)


def test_a_kept_graph_run_backward_twice_gives_its_gradients_twice(tmp_path):
    torch.manual_seed(0)
    model = Checkpointed((True,)).double()
    twin = copy.deepcopy(model)
    twin.kinds = ()
    norms = []
    for index, each in enumerate((model, twin)):
        torch.manual_seed(1)
        with gradflow.Tracer(each, tmp_path / str(index)) as tracer:
            loss = each(torch.randn(5, 4, dtype=torch.float64)).square().sum()
            loss.backward(retain_graph=True)
            loss.backward()
            tracer.step()
        gradients = gradflow.open_run(tmp_path / str(index)).gradients.set_index("layer")
        norms.append(gradients.norm.to_dict())
        assert set(gradients.batch_size) == {10}
    assert norms[0] == pytest.approx(norms[1], rel=1e-12)


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")
@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_of_transformers(tmp_path, reentrant):
    transformers = pytest.importorskip("transformers")
    norms = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        config = transformers.GPT2Config(vocab_size=20, n_embd=8, n_layer=2, n_head=2)
        model = transformers.GPT2Model(config).double().train()
        if checkpointing:
            options = {"use_reentrant": reentrant}
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
        torch.manual_seed(1)
        tokens = torch.randint(0, 20, (2, 5))
        with gradflow.Tracer(model, tmp_path / str(checkpointing)) as tracer:
            model(tokens, use_cache=False).last_hidden_state.square().sum().backward()
            tracer.step()
        run = gradflow.open_run(tmp_path / str(checkpointing))
        norms.append(run.gradients.set_index("layer").norm.to_dict())
    assert norms[1] == pytest.approx(norms[0], rel=1e-10)
