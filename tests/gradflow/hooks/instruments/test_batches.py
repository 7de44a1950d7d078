"""Steps around a spike of a real training: written whole, with the batch and the random state."""

import copy
import hashlib
import pickle

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F

import gradflow
from gradflow.errors import TracingError

SPIKE = 70


def batch_of(step):
    """Inputs and targets of a step; those of `SPIKE` are reversed and 30 times too large."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(16, 8, generator=generator)
    y = (x[:, :4]).argmax(1)
    return (-30 * x if step == SPIKE else x), y


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 4))


def train(folder, steps=96, resume=None, stop=None, first=0, **options):
    """Train; return the weights, and the random states before the passes of each step."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    states, state = {}, None
    with gradflow.Tracer(model, folder, optimizer=optimizer, resume=resume, **options) as tracer:
        for step in range(first, steps):
            x, y = batch_of(step)
            states[step] = torch.get_rng_state()
            loss = F.cross_entropy(model(x), y)
            tracer.log(loss=loss, batch=torch.arange(3) + step)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if step == 30:  # an evaluation is no batch of the training
                model.eval()
                model(torch.zeros(2, 8))
                model.train()
            if stop == step + 1:
                state = tracer.state_dict()
        tracer.end_epoch()
    return [one.detach().clone() for one in model.parameters()], states, state


@pytest.fixture(scope="module")
def spiked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spiked") / "run"
    _, states, _ = train(folder, around_spikes=4, schedule=32)
    return gradflow.open_run(folder), states


def test_steps_around_a_spike_are_written_whole(spiked):
    run, _ = spiked
    expected = [0, 32, 64, *range(SPIKE - 4, SPIKE + 5)]
    assert run.steps["step"].tolist() == expected
    for table in (run.activations, run.gradients, run.parameters):
        assert sorted(table["step"].unique()) == expected
    assert run.activations.groupby("step")["layer"].nunique().eq(3).all()
    assert run.description["around_spikes"] == 4


def test_the_table_tells_spike_batch_and_random_state(spiked):
    run, states = spiked
    table = run.table("spikes").set_index("step")
    assert table.index.tolist() == list(range(SPIKE - 4, SPIKE + 5))
    assert table["spike"].eq(SPIKE).all()
    assert table["quantity"].eq("loss").all()
    assert table["spreads"].ge(7).all()
    for step in table.index:
        assert table.loc[step, "batch_hash"] == gradflow.batch_hash(batch_of(step)[0])
        assert list(table.loc[step, "batch"]) == [step, step + 1, step + 2]
        assert table.loc[step, "random_state"] == states[step].numpy().tobytes()


def test_the_health_check_names_the_spike_though_the_schedule_misses_it(spiked):
    from analyses.health.conditions import read_health  # noqa: PLC0415

    run, _ = spiked
    found = next(one for one in read_health(run) if one.condition == "spiking")
    assert (found.verdict, found.since, found.layer) == ("supported", SPIKE, "0")
    assert "what changed before it is the batch" in found.cause


def test_the_training_is_the_same_bit_for_bit(tmp_path, spiked):
    with_ring, _, _ = train(tmp_path / "a", 40, around_spikes=4)
    random = torch.get_rng_state()
    without, _, _ = train(tmp_path / "b", 40)
    assert all(torch.equal(one, other) for one, other in zip(with_ring, without, strict=True))
    assert torch.equal(random, torch.get_rng_state())


def test_a_run_that_goes_on_writes_the_same(tmp_path):
    _, _, state = train(tmp_path / "run", 60, stop=60, around_spikes=4, schedule=32)
    torch.save(state, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    train(tmp_path / "run", 96, resume=state, first=60, around_spikes=4, schedule=32)
    steps = gradflow.open_run(tmp_path / "run").table("spikes")["step"].tolist()
    assert steps == list(range(SPIKE - 4, SPIKE + 5))


def test_parts_end_where_the_ring_begins(tmp_path, monkeypatch):
    monkeypatch.setattr("gradflow.hooks.store._STEPS_PER_PART", 8)
    train(tmp_path / "run", 96, around_spikes=4, schedule=4)
    run = gradflow.open_run(tmp_path / "run")
    around = set(range(SPIKE - 4, SPIKE + 5))
    assert run.steps["step"].tolist() == sorted(around | set(range(0, 96, 4)))


def test_a_hash_tells_values_places_types_and_shapes_apart():
    x = torch.arange(12.0).reshape(3, 4)
    hashes = [
        gradflow.batch_hash(one)
        for one in (x, x.flip(0), x + 1, x.reshape(4, 3), x.double(), x.half(), x.bool(), [x, x])
    ]
    assert len(set(hashes)) == len(hashes)
    assert gradflow.batch_hash(x.T.contiguous().T) == gradflow.batch_hash(x)
    assert gradflow.batch_hash({"ids": x.long(), "mask": None}) == gradflow.batch_hash([x.long()])


def test_a_hash_is_as_it_is_described():
    x = torch.tensor([1, -2, 3], dtype=torch.int32)
    text = f"torch.int32 [3] {1 - 2 + 3} {1 * 1 - 2 * 2 + 3 * 3}"
    assert gradflow.batch_hash(x) == hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def test_a_budget_and_a_compiled_graph_are_refused(tmp_path):
    with pytest.raises(TracingError, match="costs more than a budget allows"):
        gradflow.Tracer(net(), tmp_path / "a", around_spikes=4, schedule=gradflow.Budget(0.02))
    with pytest.raises(TracingError, match="no steps within a compiled graph"):
        gradflow.Tracer(net(), tmp_path / "b", around_spikes=4, compiled="in-graph")
    with pytest.raises(TracingError, match="around_spikes"):
        gradflow.Tracer(net(), tmp_path / "c", around_spikes=0)


def test_unused_no_hook_of_it_is_there(tmp_path):
    model = net()
    with gradflow.Tracer(model, tmp_path / "run"):
        before = len(model._forward_pre_hooks)
    with gradflow.Tracer(model, tmp_path / "other", around_spikes=2):
        assert len(model._forward_pre_hooks) == before + 1
    assert not model._forward_pre_hooks


class TakesAnything(nn.Module):
    """A linear layer that is given further tensors, which it leaves alone."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x, other):
        return self.head(x)


def hashes_with(folder, other):
    """Train with `other` as a second input, around a spike; return the hashes of the batches."""
    model = TakesAnything()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with gradflow.Tracer(
        model, folder, optimizer=optimizer, around_spikes=2, schedule=100
    ) as tracer:
        for step in range(32):
            optimizer.zero_grad()
            loss = model(torch.ones(5, 4), other).square().mean() * (1e4 if step == 30 else 1)
            tracer.log(loss=loss)
            loss.backward()
            optimizer.step()
        tracer.end_epoch()
    return gradflow.open_run(folder).table("spikes")["batch_hash"]


@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor.*")
def test_a_quantized_input_is_hashed_by_its_whole_numbers(tmp_path):
    kinds = torch.quint8, torch.qint32
    first, second = (torch.quantize_per_tensor(torch.ones(3, 4), 0.1, 0, one) for one in kinds)
    assert hashes_with(tmp_path / "run", first)[0] == gradflow.batch_hash(torch.ones(5, 4), first)
    assert gradflow.batch_hash(first) != gradflow.batch_hash(second)


def test_a_conjugate_is_hashed_as_what_it_is():
    x = torch.tensor([1 + 2j, 3 - 1j])
    assert gradflow.batch_hash(x.conj()) == gradflow.batch_hash(x.conj().resolve_conj())
    assert gradflow.batch_hash(x.conj()) != gradflow.batch_hash(x)
    assert gradflow.batch_hash(x.conj().imag) == gradflow.batch_hash(x.conj().imag.clone())


@pytest.mark.parametrize(
    "other", [torch.empty(3, device="meta"), torch.ones(3, 3).to_sparse()], ids=["meta", "sparse"]
)
def test_a_batch_with_a_tensor_that_cannot_be_hashed_has_no_hash(tmp_path, other):
    assert hashes_with(tmp_path / "run", other).isna().all()


def test_copies_of_the_model_have_nothing_of_it(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, around_spikes=2) as tracer:
        model(batch_of(0)[0]).square().mean().backward()
        copied = copy.deepcopy(model)
        restored = pickle.loads(pickle.dumps(model))
        optimizer.step()
        tracer.end_epoch()
    for one in copied, restored:
        ours = [type(hook).__qualname__ for hook in one._forward_pre_hooks.values()]
        assert "method" not in ours  # it would hold the tracer
        one(batch_of(1)[0])


@pytest.mark.parametrize(
    ("given", "kept"), [(7, [7]), (range(3), [0, 1, 2]), (torch.tensor(4), [4]), (object(), None)]
)
def test_whatever_is_given_as_indices_the_training_goes_on(tmp_path, given, kept):
    model = net()
    with gradflow.Tracer(model, tmp_path / "run", around_spikes=2) as tracer:
        for step in range(24):
            loss = model(batch_of(0)[0]).square().mean() * (1e4 if step == 22 else 1)
            tracer.log(loss=loss, batch=given)
            loss.backward()
            tracer.step()
            model.zero_grad()
        tracer.end_epoch()
    found = gradflow.open_run(tmp_path / "run").table("spikes")["batch"].tolist()
    assert found
    assert [None if one is None else list(one) for one in found] == [kept] * len(found)


def test_a_pass_that_only_tries_out_shapes_has_no_hash(tmp_path):
    model = net()
    with gradflow.Tracer(model, tmp_path / "run", around_spikes=2) as tracer:
        for step in range(24):
            if step == 22:
                with FakeTensorMode(allow_non_fake_inputs=True):
                    model(torch.randn(3, 8))
            loss = model(batch_of(0)[0]).square().mean() * (1e4 if step == 22 else 1)
            tracer.log(loss=loss)
            loss.backward()
            tracer.step()
            model.zero_grad()
        tracer.end_epoch()
    hashes = gradflow.open_run(tmp_path / "run").table("spikes").set_index("step")["batch_hash"]
    assert hashes[hashes.isna()].index.tolist() == [22]
