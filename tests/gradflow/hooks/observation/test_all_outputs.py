"""`outputs="all"`: every tensor of an output in rows of its own, beside autograd by hand."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

import gradflow
from gradflow.errors import TracingError
from gradflow.hooks.layers import layer_outputs

Pair = namedtuple("Pair", ["logits", "states"])


@dataclass
class Fields:
    loss: torch.Tensor | None
    hidden: torch.Tensor


class Reader(nn.Module):
    """An LSTM whose output and both states are used."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 4, num_layers=2, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        output, (h, c) = self.lstm(x)
        return self.head(output[:, -1] + 2 * h[-1]) + 3 * c[0].sum(-1, keepdim=True)


class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.low, self.high = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 2, stride=2)

    def forward(self, x):
        return OrderedDict(fine=self.low(x), coarse=self.high(x))


class Detector(nn.Module):
    """Reads two levels of a pyramid, twice."""

    def __init__(self):
        super().__init__()
        self.fpn = Pyramid()

    def forward(self, x):
        levels = [self.fpn(x), self.fpn(2 * x)]
        return sum(
            k * level[name].pow(2).mean() for k, level in enumerate(levels, 1) for name in level
        )


def record(model, x, folder, loss=lambda y: y.pow(2).sum(), **options):
    """The run of one step, and what every module returned, with gradients, by name and call."""
    outputs = {}

    def keep(name):
        def hook(module, args, output):
            number = sum(key[0] == name for key in outputs) + 1
            outputs[name, number] = output
            for _, tensor in layer_outputs(output, every=True):
                tensor.retain_grad()

        return hook

    handles = [m.register_forward_hook(keep(name)) for name, m in model.named_modules() if name]
    with gradflow.Tracer(model, folder, outputs="all", **options) as tracer:
        loss(model(x)).backward()
        tracer.step()
        tracer.end_epoch()
    for handle in handles:
        handle.remove()
    return gradflow.open_run(folder), outputs


def assert_rows(run, expected):
    """Each of `expected`, a tensor by the name of its row, has its own norms in both tables."""
    outputs, gradients = (
        run.table(name).set_index("layer") for name in ("activations", "gradients")
    )
    for name, tensor in expected.items():
        norm = float(tensor.detach().double().norm())
        assert outputs.loc[name, "norm"] == pytest.approx(norm, rel=1e-6), name
        norm = float(tensor.grad.double().norm())
        assert norm > 0
        assert gradients.loc[name, "norm"] == pytest.approx(norm, rel=1e-6), name


def test_states_of_an_lstm_have_rows_with_their_own_gradients(tmp_path):
    torch.manual_seed(0)
    run, kept = record(Reader(), torch.randn(5, 7, 3), tmp_path / "run")
    output, (h, c) = kept["lstm", 1]
    assert_rows(run, {"lstm": output, "lstm[1][0]": h, "lstm[1][1]": c})
    layers = run.layers.set_index("layer")
    assert list(layers.index) == ["lstm", "lstm[1][0]", "lstm[1][1]", "head"]
    assert layers.parameters["lstm"] > 0
    assert list(layers.parameters[["lstm[1][0]", "lstm[1][1]"]]) == [0, 0]
    assert set(layers.role[:3]) == {"recurrent"}
    # Both states are [layers, N, C]: the channels are the last axis.
    assert layers["shape"]["lstm[1][0]"] == "5x4"


def test_by_default_only_the_first_tensor_has_rows(tmp_path):
    torch.manual_seed(0)
    model, x = Reader(), torch.randn(5, 7, 3)
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        model(x).sum().backward()
        tracer.step()
    assert list(gradflow.open_run(tmp_path / "run").layers["layer"]) == ["lstm", "head"]


def test_levels_of_a_pyramid_are_named_by_key_and_calls_by_number(tmp_path):
    torch.manual_seed(0)
    run, kept = record(Detector(), torch.randn(2, 3, 8, 8), tmp_path / "run", lambda y: y)
    first, second = kept["fpn", 1], kept["fpn", 2]
    assert_rows(
        run,
        {
            "fpn": first["fine"],
            "fpn[coarse]": first["coarse"],
            "fpn#2": second["fine"],
            "fpn#2[coarse]": second["coarse"],
            "fpn.high#2": second["coarse"],
        },
    )
    layers = run.layers.set_index("layer")
    # Each convolution counts by call; the further tensors of the pyramid add no depth.
    assert layers.depth.max() == 4
    assert layers.parameters[["fpn[coarse]", "fpn#2", "fpn#2[coarse]"]].tolist() == [0, 0, 0]


def test_accumulated_batches_are_one(tmp_path):
    torch.manual_seed(0)
    model, x = Reader(), torch.randn(6, 7, 3)
    whole, _ = record(model, x, tmp_path / "whole")
    model.zero_grad()
    with gradflow.Tracer(model, tmp_path / "parts", outputs="all") as tracer:
        for part in x.split(2):
            model(part).pow(2).sum().backward()
        tracer.step()
    parts = gradflow.open_run(tmp_path / "parts")
    for table in ("activations", "gradients"):
        mine, theirs = (run.table(table).set_index("layer") for run in (parts, whole))
        assert list(mine.index) == list(theirs.index)
        for column in ("norm", "mean", "std", "kurtosis"):
            assert list(mine[column]) == pytest.approx(list(theirs[column]), rel=1e-4), column


def test_packed_sequences_have_rows_for_values_and_state(tmp_path):
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(2, 3)

        def forward(self, x):
            output, h = self.gru(x)
            return pad_packed_sequence(output)[0].sum(0) + h[0]

    torch.manual_seed(0)
    x = pack_sequence([torch.randn(4, 2), torch.randn(2, 2)])
    run, kept = record(Packed(), x, tmp_path / "run")
    output, h = kept["gru", 1]
    assert_rows(run, {"gru": output.data, "gru[1]": h})


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_layers_keep_the_names_of_their_tensors(tmp_path, reentrant):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.reader = Reader()

        def forward(self, x):
            return checkpoint(self.reader, x, use_reentrant=reentrant)

    torch.manual_seed(0)
    model, x = Checkpointed(), torch.randn(5, 7, 3, requires_grad=True)
    plain, _ = record(model.reader, x, tmp_path / "plain")
    model.zero_grad()
    with gradflow.Tracer(model, tmp_path / "run", outputs="all") as tracer:
        model(x).pow(2).sum().backward()
        tracer.step()
    run = gradflow.open_run(tmp_path / "run")
    for table in ("activations", "gradients"):
        found = run.table(table).set_index("layer")["norm"]
        for name, norm in plain.table(table).set_index("layer")["norm"].items():
            assert found[f"reader.{name}"] == pytest.approx(norm, rel=1e-6)


def test_a_block_that_hands_on_all_tensors_of_a_layer_has_the_same_rows(tmp_path):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.LSTM(3, 4)

        def forward(self, x):
            return self.inner(x)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Wrapped()

        def forward(self, x):
            output, (h, c) = self.block(x)
            return output.sum() + 2 * h.sum() + 3 * c.pow(2).sum()

    torch.manual_seed(0)
    run, kept = record(Model(), torch.randn(5, 2, 3), tmp_path / "run", lambda y: y)
    output, (h, c) = kept["block.inner", 1]
    names = ("", "[1][0]", "[1][1]")
    for name in ("block", "block.inner"):
        assert_rows(run, {name + place: x for place, x in zip(names, (output, h, c), strict=True)})


def test_a_resumed_run_keeps_names_and_depth(tmp_path):
    torch.manual_seed(0)
    model, x = Detector(), torch.randn(2, 3, 8, 8)

    def epoch(tracer):
        model(x).backward()
        tracer.step()
        tracer.end_epoch()

    with gradflow.Tracer(model, tmp_path / "run", outputs="all") as tracer:
        epoch(tracer)
        state = tracer.state_dict()
    before = gradflow.open_run(tmp_path / "run").layers
    with gradflow.Tracer(model, tmp_path / "run", outputs="all", resume=state) as tracer:
        epoch(tracer)
    run = gradflow.open_run(tmp_path / "run")
    assert run.layers.equals(before)
    assert run.activations.groupby("layer").size().eq(2).all()


def test_a_value_that_is_neither_first_nor_all_is_refused(tmp_path):
    with pytest.raises(TracingError, match='outputs= is "first" or "all", not \'every\''):
        gradflow.Tracer(nn.Linear(2, 2), tmp_path / "run", outputs="every")


def test_places_are_positions_keys_and_fields():
    a, b, c, d = (torch.full((2,), float(n)) for n in range(4))

    def places(output):
        return [(place, float(x[0])) for place, x in layer_outputs(output, every=True)]

    assert places(a) == [("", 0)]
    assert places((None, a, [torch.arange(2), b], {"h": c})) == [
        ("", 0),
        ("[2][1]", 1),
        ("[3][h]", 2),
    ]
    assert places(Pair(a, (b, Fields(None, c)))) == [
        ("", 0),
        ("[states][0]", 1),
        ("[states][1][hidden]", 2),
    ]
    # Keys that would look like paths of modules, or are not unique as words, are numbered.
    assert places({"layer.1": a, "layer.2": b}) == [("", 0), ("[1]", 1)]
    assert places({1: a, "1": b, "x": c}) == [("", 0), ("[1]", 1), ("[2]", 2)]
    # A tensor that is there twice counts once; a view is another tensor.
    assert places((a, a, b, {"again": b, "d": d})) == [("", 0), ("[2]", 1), ("[3][d]", 3)]
    assert [place for place, _ in layer_outputs((a, a[:]), every=True)] == ["", "[1]"]


def test_the_same_tensor_twice_has_one_row_with_its_whole_gradient(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x):
            y = self.linear(x)
            return y, y

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.twice = Twice()

        def forward(self, x):
            first, second = self.twice(x)
            return first.sum() + second.pow(2).sum()

    run, kept = record(Model(), torch.randn(4, 3), tmp_path / "run", lambda y: y)
    assert list(run.gradients["layer"]) == ["twice.linear", "twice"]
    assert_rows(run, {"twice": kept["twice", 1][0]})
