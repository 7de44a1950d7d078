"""Numbers in few bytes: rounded to steps of equal ratio, so that each keeps the same digits.

A number becomes a signed 16-bit code, 0 for zero and otherwise sign * k, k from 1 to 32766, which
stands for sign * exp(low + (k - 1) * step), low and step common to all numbers of one quantity.
`explorer_values.js` reads what is written here.
"""

import zlib
from base64 import b64encode
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

MISSING, NOT_FINITE, LARGEST_CODE = -32768, 32767, 32766
# Two codes differ by a thousandth, which rounds to within 0.05 %; more only where the magnitudes
# span more than 14 decades.
FINEST_STEP = 1e-3

Values = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int16]


@dataclass(frozen=True)
class PackedNumbers:
    """Numbers of one quantity.

    Fields:
        low, step: natural logarithms, of the smallest magnitude and of the ratio of two codes.
        codes: int16, all low bytes, then all high ones, deflated (RFC 1950), in base64.
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
    """`values` of any shape, in C order; nan is a missing one, inf one that was not finite."""
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
    # High bytes change little from one epoch to the next, low ones look like noise.
    planes = codes.astype("<i2").view(np.uint8).reshape(-1, 2).T
    return b64encode(zlib.compress(planes.tobytes())).decode()
