import pandas as pd
import pytest

from analyses.reading.layer_groups import MANY_LAYERS, groups_of, has_many_layers, pattern_of


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("blocks.17.attn.q", "blocks.*.attn.q"),
        ("blocks.17.attn.q.weight", "blocks.*.attn.q.weight"),
        ("17", "*"),
        ("h.3+2", "h.*+2"),
        ("h.3#2", "h.*#2"),
        ("layers.3.experts.12.w1", "layers.*.experts.*.w1"),
        ("layer1.conv2", "layer1.conv2"),
        ("relu#2", "relu#2"),
        ("embed", "embed"),
    ],
)
def test_numbers_between_dots_are_left_open(name, pattern):
    assert pattern_of(name) == pattern


def test_blocks_with_different_numbers_are_one_group():
    names = ["embed", "blocks.0.attn.q", "blocks.1.attn.q", "blocks.0.norm1", "blocks.1.norm1"]
    groups = groups_of(names, [""] * 5)
    assert dict(groups) == {
        "embed": "embed",
        "blocks.0.attn.q": "blocks.*.attn.q",
        "blocks.1.attn.q": "blocks.*.attn.q",
        "blocks.0.norm1": "blocks.*.norm1",
        "blocks.1.norm1": "blocks.*.norm1",
    }


def test_layers_of_unlike_kinds_are_different_groups():
    groups = groups_of(["0", "1", "2", "3", "4"], ["Linear", "ReLU", "Linear", "ReLU", "Dropout"])
    assert list(groups) == ["* (Linear)", "* (ReLU)", "* (Linear)", "* (ReLU)", "4"]


def test_many_numbered_names_are_one_group_and_few_are_not():
    many = [f"stage.conv{place}" for place in range(8)]
    few = ["norm1", "norm2"]
    assert set(groups_of(many, [""] * 8)) == {"stage.conv*"}
    assert list(groups_of(few, ["", ""])) == few


def test_depth_decides_whether_there_are_many_layers():
    assert not has_many_layers(pd.DataFrame({"depth": [None, 1.0, MANY_LAYERS]}))
    assert has_many_layers(pd.DataFrame({"depth": [None, 1.0, MANY_LAYERS + 1]}))
    assert not has_many_layers(pd.DataFrame({"depth": []}))
    assert not has_many_layers(pd.DataFrame({"depth": [None]}))
