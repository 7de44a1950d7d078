"""The statistics of many tensors at once."""

import pytest
import torch

from gradflow.hooks.reduction.fused import moments
from gradflow.hooks.reduction.statistics.from_moments import to_statistics

pytestmark = pytest.mark.usefixtures("backend")


def test_statistics_of_many_tensors_are_those_of_each_alone():
    generator = torch.Generator().manual_seed(5)
    tensors = [torch.randn(4, c, 3, 3, generator=generator) for c in (1, 7, 2)]
    together = to_statistics([moments(x, 1) for x in tensors])
    for index, x in enumerate(tensors):
        alone = to_statistics([moments(x, 1)])
        assert {name: values[index] for name, values in together.items()} == {
            name: values[0] for name, values in alone.items()
        }
