"""Packed numbers equal the original ones within the stated error."""

import struct
import zlib
from base64 import b64decode
from math import exp, isinf, isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.explorer.compact_numbers import MISSING, NOT_FINITE, PackedNumbers, pack

NUMBERS = st.one_of(
    st.just(0.0),
    st.floats(1e-30, 1e30),
    st.floats(-1e30, -1e-30),
    st.sampled_from([float("nan"), float("inf")]),
)


def unpack(packed: PackedNumbers) -> list[float]:
    """Unpack the numbers one by one, as the format's description says."""
    raw = zlib.decompress(b64decode(packed.codes))
    half = len(raw) // 2
    values = []
    for low, high in zip(raw[:half], raw[half:], strict=True):
        (code,) = struct.unpack("<h", bytes([low, high]))
        if code == MISSING:
            values.append(float("nan"))
        elif code == NOT_FINITE:
            values.append(float("inf"))
        elif code == 0:
            values.append(0.0)
        else:
            size = exp(packed.low + (abs(code) - 1) * packed.step)
            values.append(size if code > 0 else -size)
    return values


@given(st.lists(NUMBERS, min_size=1, max_size=30))
def test_packed_numbers_keep_their_value_and_kind(numbers):
    packed = pack(np.array(numbers))
    for before, after in zip(numbers, unpack(packed), strict=True):
        if isnan(before):
            assert isnan(after)
        elif isinf(before):
            assert after == before
        else:
            assert after == pytest.approx(before, rel=packed.error + 1e-12, abs=0)


def test_magnitudes_of_few_decades_keep_three_digits():
    packed = pack(np.geomspace(1e-9, 1e3, 500))
    assert packed.error < 0.000501


def test_smooth_series_take_fewer_bytes_than_plain_codes_would():
    series = np.exp(np.sin(np.linspace(0, 20, 5000)))
    assert len(pack(series).codes) < 0.8 * len(series) * 2 * 4 / 3
