"""What the tests of reductions share."""

import pytest

from gradflow.hooks.reduction import cpu


@pytest.fixture(params=["compiled", "torch"], scope="module")
def backend(request):
    """Run every test with the compiled loops, and with torch alone."""
    if request.param == "compiled" and cpu.loops_module() is None:
        pytest.skip("numba is not installed")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "torch":
            patch.setattr(cpu, "loops_module", lambda: None)
        yield request.param
