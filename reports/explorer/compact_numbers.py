"""Packs numbers into few bytes: 16-bit codes on a logarithmic scale, compressed, in base64.

A number becomes a signed 16-bit code: 0 for zero, otherwise sign * k with k from 1 to 32766. The
code stands for sign * exp(low + (k - 1) * step); all numbers of one quantity share low and step.
The relative rounding error is the same for all. `explorer_values.js` unpacks the numbers.
"""

import zlib
from base64 import b64encode
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

MISSING, NOT_FINITE, LARGEST_CODE = -32768, 32767, 32766
# Successive codes differ by a thousandth, so rounding errors stay within 0.05 %. The step is larger
# only if the magnitudes span more than 14 decades.
FINEST_STEP = 1e-3

Values = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int16]


@dataclass(frozen=True)
class PackedNumbers:
    """The packed numbers of one quantity.

    Fields:
        low: the natural logarithm of the smallest magnitude.
        step: the natural logarithm of the ratio between successive codes.
        codes: int16 codes, all low bytes, then all high bytes, in zlib format (RFC 1950), base64.
    """

    low: float
    step: float
    codes: str

    @property
    def error(self) -> float:
        """The largest relative rounding error."""
        return float(np.expm1(self.step / 2))

    def as_json(self) -> dict[str, Any]:
        """The fields by name."""
        return {"low": self.low, "step": self.step, "codes": self.codes}


def pack(values: Values) -> PackedNumbers:
    """Pack `values` of any shape, in C order; nan is a missing value, inf a non-finite one."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    low, high = (np.log(sizes.min()), np.log(sizes.max())) if len(sizes) else (0.0, 0.0)
    step = max(FINEST_STEP, float(high - low) / (LARGEST_CODE - 1))
    return PackedNumbers(float(low), step, _compressed(_codes(values.ravel(), float(low), step)))


def _codes(values: Values, low: float, step: float) -> Codes:
    codes = np.zeros(len(values), dtype=np.int16)
    numbers = np.isfinite(values) & (values != 0)
    logs = np.log(np.abs(values[numbers]))
    ranks = 1 + np.rint((logs - low) / step)
    codes[numbers] = (np.sign(values[numbers]) * ranks).astype(np.int16)
    codes[np.isnan(values)] = MISSING
    codes[np.isinf(values)] = NOT_FINITE
    return codes


def _compressed(codes: Codes) -> str:
    # High bytes change little between epochs and compress well; low bytes look like noise.
    planes = codes.astype("<i2").view(np.uint8).reshape(-1, 2).T
    return b64encode(zlib.compress(planes.tobytes())).decode()
