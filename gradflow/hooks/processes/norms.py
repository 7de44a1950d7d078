"""Norms of parameters that are split over processes: each has those of its shard."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Values = Mapping[str, dict[str, Tensor | float]]

# Processes that have the same tensor find the same numbers, but for the order of sums.
SAME_WITHIN = 1e-3

_COSINE, _PREVIOUS = "gradient_cosine", "previous_gradient_norm"


class SplitNorms:
    """The norms of one step's split parameters, as numbers to be added up over the processes.

    Args:
        parameters: what was measured of every parameter, by quantity; `put` changes it.
        counts: for each split parameter, whether this process's shard counts in the sums. It does
            not if another process has the same shard.
    """

    def __init__(self, parameters: Values, counts: Mapping[str, bool]) -> None:
        self._parameters = parameters
        self._counts = counts
        split = {name: values for name, values in parameters.items() if name in counts}
        self._norms = [
            (name, key)
            for name, values in split.items()
            for key in sorted(values)
            if key.endswith("_norm") and key != _PREVIOUS
        ]
        # A process may lack a cosine that the others have: all have room for it.
        self._directed = [name for name, values in split.items() if "gradient_norm" in values]

    @property
    def names(self) -> list[tuple[str, str]]:
        """Parameter and quantity of each norm."""
        return self._norms

    def __len__(self) -> int:
        return len(self._norms) + 3 * len(self._directed)

    def summands(self, device: torch.device | str) -> Tensor:
        """Return the numbers to add up: squares, and for each cosine the product it is made of."""
        norms = _vector([self._parameters[name][key] for name, key in self._norms], device)
        rows = [self._parameters[name] for name in self._directed]
        cosines = _vector([row.get(_COSINE, 0.0) for row in rows], device).nan_to_num(0.0)
        own = _vector([row["gradient_norm"] for row in rows], device)
        previous = _vector([row.get(_PREVIOUS, 0.0) for row in rows], device)
        known = torch.tensor([float(_COSINE in row) for row in rows], device=device).double()
        here, also = (
            torch.tensor([self._counts[name] for name in names], dtype=torch.bool, device=device)
            for names in ([name for name, _ in self._norms], self._directed)
        )
        return torch.cat(
            [
                torch.where(here, norms.square(), 0.0),
                torch.where(also, cosines * own * previous, 0.0),
                torch.where(also, previous.square(), 0.0),
                known,
            ]
        )

    def put(self, sums: Sequence[float], processes: int) -> None:
        """Set the norms of the whole parameters; a cosine that one process lacks is left out."""
        directed, split = len(self._directed), len(self._norms)
        for (name, key), square in zip(self._norms, sums[:split], strict=True):
            self._parameters[name][key] = math.sqrt(square)
        for index, name in enumerate(self._directed, split):
            product, previous, known = sums[index : split + 3 * directed : directed]
            values = self._parameters[name]
            values.pop(_PREVIOUS, None)
            values.pop(_COSINE, None)
            if known == processes:
                scale = float(values["gradient_norm"]) * math.sqrt(previous)
                values[_COSINE] = product / scale if scale else math.nan


class SameNorms:
    """The norms of one step's whole parameters, to be compared over the processes.

    They differ if such a parameter works on a part of a layer, as a norm on some of the heads, and
    nobody adds up its gradient over the processes.
    """

    def __init__(self, parameters: Values, counts: Mapping[str, bool]) -> None:
        self._rows = {name: row for name, row in parameters.items() if name not in counts}

    def __len__(self) -> int:
        return 2 * len(self._rows)

    def numbers(self, device: torch.device | str) -> Tensor:
        """Return the norms of this process, of weights and then of gradients."""
        kinds = ("weight_norm", "gradient_norm")
        return _vector([row.get(key, 0.0) for key in kinds for row in self._rows.values()], device)

    def differing(self, numbers: Sequence[Tensor]) -> list[str]:
        """Return the parameters of which the `numbers` of some processes are not the same."""
        if not self._rows:
            return []
        least, greatest = torch.stack([*numbers]).aminmax(dim=0)
        apart = (greatest - least > SAME_WITHIN * greatest).view(2, -1).any(0).tolist()
        return [name for name, differs in zip(self._rows, apart, strict=True) if differs]


def _vector(values: Sequence[Tensor | float], device: torch.device | str) -> Tensor:
    """Return numbers and 0-d tensors as one vector in float64."""
    numbers = [0.0 if isinstance(value, Tensor) else value for value in values]
    vector = torch.tensor(numbers, dtype=torch.float64, device=device)
    places = [index for index, value in enumerate(values) if isinstance(value, Tensor)]
    if places:
        found = torch.stack([torch.as_tensor(values[index]).double() for index in places])
        vector[places] = found.to(device)
    return vector
