"""Statistics that several analyses share: numbers in, numbers out.

Every function is deterministic: random ones take a seed and draw from their own generator.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
