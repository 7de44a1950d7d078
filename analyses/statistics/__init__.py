"""Statistics that several analyses use: numbers in, numbers out.

Every function is deterministic: if it draws random numbers, it takes a seed.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
