import torch

from gradflow.hooks.reduction.batches import BatchLayout, Layouts
from gradflow.hooks.reduction.groups import geometry_of


def test_a_layout_is_kept_for_the_same_shapes_and_no_others():
    layouts = Layouts()
    one = [geometry_of(torch.Size(shape), 1) for shape in ((2, 3), (4, 5, 6))]
    other = [geometry_of(torch.Size(shape), 1) for shape in ((2, 3), (4, 6, 5))]
    first = layouts.of(one)
    assert layouts.of(list(one)) is first
    assert layouts.of(other) is not first
    assert layouts.of(one) is first
    assert first.ends.tolist() == [15, 36]
    assert BatchLayout(one).table[:, 1:].tolist() == [list(geometry[:4]) for geometry in one]
