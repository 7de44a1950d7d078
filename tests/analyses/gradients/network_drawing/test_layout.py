"""Small traced models have the layout that their code says."""

import pytest
import torch
from torch import nn

import gradflow
from analyses.gradients.network_drawing.layout import layout_of


class Residual(nn.Module):
    """skip(x) + branch(x); the skip is a projection where the channels change."""

    def __init__(self, inputs, outputs=None):
        super().__init__()
        outputs = outputs or inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x):
        skip = x if self.shortcut is None else self.shortcut(x)
        return skip + self.conv2(self.relu(self.conv1(x)))


class Plain(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return torch.relu(self.conv2(torch.relu(self.conv1(x))))


class PreActivation(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x):
        ready = self.relu(self.norm(x))
        return self.conv2(torch.relu(self.conv1(ready))) + (
            x if self.shortcut is None else self.shortcut(ready)
        )


class LongSkip(nn.Module):
    """A skip of the model's own forward around two residual blocks and a convolution."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Sequential(Residual(4), Residual(4), nn.Conv2d(4, 4, 3, padding=1))
        self.tail = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x):
        head = self.head(x)
        return self.tail(self.body(head) + head)


class Group(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(Residual(channels), Residual(channels))

    def forward(self, x):
        return x + self.body(x)


class AddsItself(nn.Module):
    """The model's own forward adds the outputs of its blocks."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.ModuleList([Plain(4), Plain(4)])
        self.tail = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.tail(x)


class Hidden(nn.Module):
    """Additions of tensors that no observed layer returns."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = (nn.Linear(6, 6) for _ in range(3))

    def forward(self, x):
        x = torch.tanh(self.first(x))
        x = x + torch.tanh(self.second(x))
        return self.last(x)


class AttentionAndOutput(nn.Module):
    """As in BERT: the module that adds holds the end of the branch only."""

    class Output(nn.Module):
        def __init__(self):
            super().__init__()
            self.dense = nn.Linear(6, 6)
            self.norm = nn.LayerNorm(6)

        def forward(self, made, given):
            return self.norm(self.dense(made) + given)

    def __init__(self):
        super().__init__()
        self.attention = nn.Linear(6, 6)
        self.output = self.Output()

    def forward(self, x):
        return self.output(torch.tanh(self.attention(x)), x)


def trace(folder, model, shape, steps=3):
    torch.manual_seed(0)
    with gradflow.Tracer(
        model, folder, optimizer=(optimizer := torch.optim.SGD(model.parameters(), lr=0.05))
    ) as tracer:
        for _ in range(steps):
            model(torch.randn(4, *shape)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    return gradflow.open_run(folder)


@pytest.fixture
def drawn(tmp_path):
    def lay_out(model, shape=(3, 6, 6), **options):
        return layout_of(trace(tmp_path / "run", model, shape), **options)

    return lay_out


def boxes(layout):
    return [box.name for box in layout.boxes]


def skips(layout):
    return [
        (*skip.names, skip.start, skip.end, skip.skip_type, skip.shape_box) for skip in layout.skips
    ]


def test_residual_blocks_are_boxes_each_under_a_skip_of_its_own(drawn):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), Residual(4), Residual(4, 6),
        Residual(6), nn.Flatten(), nn.Linear(216, 5),
    )  # fmt: skip
    layout = drawn(model)
    assert boxes(layout) == ["0", "3", "4", "5", "7"]
    assert [box.output for box in layout.boxes] == ["2", "3", "4", "5", "7"]
    assert [(stage.shape, stage.first, stage.last) for stage in layout.stages] == [
        ("4x6x6", 0, 1), ("6x6x6", 2, 3), ("5", 4, 4),
    ]  # fmt: skip
    # The input of the block with the projection has the shape of the stage before.
    assert skips(layout) == [
        ("3", 1, 1, "identity", 0), ("4", 2, 2, "projection", 1), ("5", 3, 3, "identity", 2),
    ]  # fmt: skip


def test_a_plain_network_is_a_chain_of_blocks(drawn):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Sequential(Plain(4), Plain(4)))
    layout = drawn(model)
    assert boxes(layout) == ["0", "1.0", "1.1"]
    assert [box.kind for box in layout.boxes] == ["Conv2d", "Plain", "Plain"]
    assert layout.skips == ()


def test_three_layers_are_three_boxes_with_their_activations(drawn):
    layers = (nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    layout = drawn(nn.Sequential(*layers), (6,))
    assert [(box.name, box.output) for box in layout.boxes] == [("0", "1"), ("2", "3"), ("4", "4")]


def test_a_module_around_the_whole_network_is_opened(drawn):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Inner()

        def forward(self, x):
            return self.inner(x)

    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x):
            return self.second(self.first(x))

    assert boxes(drawn(Wrapped(), (6,))) == ["inner.first", "inner.second"]


def test_pre_activation_blocks_keep_their_skips_also_where_both_ways_start_inside(drawn):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), PreActivation(4, 4), PreActivation(4, 8), nn.Conv2d(8, 2, 1)
    )
    # Skip and branch of the second block start after its normalization, with the shape before it.
    assert skips(drawn(model)) == [("1", 1, 1, "identity", 0), ("2", 2, 2, "projection", 1)]


def test_a_block_with_two_additions_becomes_two_boxes(drawn):
    encoder = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
    model = nn.Sequential(
        nn.Linear(4, 8), nn.TransformerEncoder(encoder, 2, enable_nested_tensor=False),
        nn.Linear(8, 3),
    )  # fmt: skip
    layout = drawn(model, (5, 4))
    assert boxes(layout) == [
        "0", "1.layers.0", "1.layers.0+2", "1.layers.1", "1.layers.1+2", "2",
    ]  # fmt: skip
    assert [skip[1:3] for skip in skips(layout)] == [(1, 1), (2, 2), (3, 3), (4, 4)]
    # Between the two additions nothing is observed as the block's output.
    assert [box.output for box in layout.boxes][1:3] == ["", "1.layers.0"]


def test_a_long_skip_of_the_models_own_forward_is_found_by_what_was_recorded(drawn):
    assert skips(drawn(LongSkip())) == [
        ("body.0", 1, 1, "identity", 0),
        ("body.1", 2, 2, "identity", 1),
        ("(model)", 1, 3, "identity", 0),
    ]


def test_a_skip_of_a_module_around_residual_blocks_leads_over_all_of_them(drawn):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Group(4), nn.Conv2d(4, 2, 1))
    assert [skip[:3] for skip in skips(drawn(model))] == [
        ("1.body.0", 1, 1), ("1.body.1", 2, 2), ("1", 1, 2),
    ]  # fmt: skip


def test_additions_of_the_models_own_forward_are_placed_by_what_their_branches_add(drawn):
    layout = drawn(AddsItself())
    assert boxes(layout) == ["stem", "blocks.0", "blocks.1", "tail"]
    assert [skip[:3] for skip in skips(layout)] == [("(model)", 1, 1), ("(model)+2", 2, 2)]


def test_an_addition_that_cannot_be_placed_is_named_and_not_guessed(drawn):
    layout = drawn(Hidden(), (6,))
    assert boxes(layout) == ["first", "second", "last"]
    assert (layout.skips, layout.unplaced) == ((), ("(model)",))


def test_a_branch_begins_where_what_it_is_added_to_was_made(drawn):
    model = nn.Sequential(nn.Linear(6, 6), AttentionAndOutput(), nn.Linear(6, 2))
    layout = drawn(model, (6,))
    assert boxes(layout) == ["0", "1.attention", "1.output", "2"]
    assert skips(layout) == [("1.output", 1, 2, "identity", 0)]


def test_a_deep_network_is_condensed_but_for_the_ends_of_long_skips(drawn):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), *(Residual(4) for _ in range(9)), Group(4), nn.Conv2d(4, 2, 1)
    )
    layout = drawn(model, most=8)
    assert [(box.name, box.members) for box in layout.boxes] == [
        ("0", 1), ("1 to 3", 3), ("4 to 6", 3), ("7 to 9", 3),
        ("10.body.0", 1), ("10.body.1", 1), ("11", 1),
    ]  # fmt: skip
    assert [(skip.names, skip.start, skip.end) for skip in layout.skips] == [
        (("1", "2", "3"), 1, 1), (("4", "5", "6"), 2, 2), (("7", "8", "9"), 3, 3),
        (("10.body.0",), 4, 4), (("10.body.1",), 5, 5), (("10",), 4, 5),
    ]  # fmt: skip
    assert layout.boxes[1].output == "3"
