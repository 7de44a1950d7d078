"""The statistics of many tensors at once."""

import pytest
import torch

from gradflow.hooks.reduction import cpu
from gradflow.hooks.reduction.fused import moments
from gradflow.hooks.reduction.statistics.from_moments import to_statistics
from gradflow.runs.format.layer_tables import TENSOR_STATISTICS

WHOLE = tuple(one.name for one in TENSOR_STATISTICS if not one.by_channel)
BY_CHANNEL = tuple(one.name for one in TENSOR_STATISTICS if one.by_channel)


@pytest.fixture(params=["compiled", "torch"], autouse=True, scope="module")
def backend(request):
    """Run every test with the compiled loops, and with torch alone."""
    if request.param == "compiled" and cpu.loops_module() is None:
        pytest.skip("numba is not installed")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "torch":
            patch.setattr(cpu, "loops_module", lambda: None)
        yield request.param


def test_statistics_of_many_tensors_are_those_of_each_alone():
    generator = torch.Generator().manual_seed(5)
    tensors = [torch.randn(4, c, 3, 3, generator=generator) for c in (1, 7, 2)]
    together = to_statistics([moments(x, 1) for x in tensors])
    for index, x in enumerate(tensors):
        alone = to_statistics([moments(x, 1)])
        assert {name: values[index] for name, values in together.items()} == {
            name: values[0] for name, values in alone.items()
        }
