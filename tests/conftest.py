"""What every test may use."""

import matplotlib as mpl
import pytest

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Small models run faster on one thread, and their sums come out the same each time."""
    try:
        import torch  # noqa: PLC0415 - the tests of the laptop side must not need it
    except ImportError:
        return
    torch.set_num_threads(1)
