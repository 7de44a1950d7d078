"""The numbers of a step's parameters: in arrays, and those of a device not copied from there yet.

Thousands of parameters in sixteen steps that wait would be as many dictionaries; an array for each
quantity is a few objects.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

# Where a number is: in no place, in main memory, or in a piece of those numbered from 1 up.
_UNKNOWN, _HOST = -1, 0


class Numbers:
    """Numbers of n tensors, any of which may be unknown.

    Fields:
        host: [n] in float64; nan for those that are elsewhere.
        where: [n] -1 for a number that is unknown, 0 for one in `host`, k from 1 up for one that
            is in the k-th of `pieces`.
        pieces: vectors on devices, each with the places of its numbers.
    """

    def __init__(self, count: int) -> None:
        self.host = np.full(count, np.nan)
        self.where = np.full(count, _UNKNOWN, np.int32)
        self.pieces: list[tuple[np.ndarray, Tensor]] = []

    def __len__(self) -> int:
        return len(self.host)

    def __getitem__(self, place: int) -> Tensor | float | None:
        """The number at a place: a float, a 0-d tensor on its device, or None if it is unknown."""
        where = self.where[place]
        if where <= _HOST:
            return None if where == _UNKNOWN else float(self.host[place])
        places, vector = self.pieces[where - 1]
        found: Tensor = vector[int(np.flatnonzero(places == place)[0])]
        return found

    def each(self) -> list[Tensor | float | None]:
        """The numbers as a list, as `[]` gives them."""
        found: list[Tensor | float | None] = list(self.host.tolist())
        if self.pieces or not self.known.all():
            for place in np.flatnonzero(~self.known).tolist():
                found[place] = None
            for number, (places, vector) in enumerate(self.pieces, 1):
                for place, value in zip(places.tolist(), vector.unbind(), strict=True):
                    if place >= 0 and self.where[place] == number:
                        found[place] = value
        return found

    @property
    def known(self) -> np.ndarray:
        """Which numbers are known: [n]."""
        known: np.ndarray = self.where != _UNKNOWN
        return known

    def put_host(self, places: np.ndarray | slice, values: np.ndarray) -> None:
        """Set the numbers at `places`, which are in main memory."""
        self.host[places], self.where[places] = values, _HOST

    def put_on_device(self, places: np.ndarray, vector: Tensor) -> None:
        """Set the numbers at `places`, which are those of a vector on a device."""
        self.pieces.append((places, vector))
        self.host[places], self.where[places] = np.nan, len(self.pieces)

    def put_each(self, places: Sequence[int], values: Sequence[Tensor | float]) -> None:
        """Set numbers that were found one by one."""
        if not values:
            return
        on_device: dict[torch.device, list[int]] = {}
        for index, value in enumerate(values):
            if isinstance(value, Tensor):
                on_device.setdefault(value.device, []).append(index)
        host = [index for index, value in enumerate(values) if not isinstance(value, Tensor)]
        if host:
            at = np.array([places[index] for index in host])
            self.put_host(at, np.array([values[index] for index in host]))
        for chosen in on_device.values():
            vector = torch.stack([torch.as_tensor(values[index]) for index in chosen])
            self.put_on_device(np.array([places[index] for index in chosen]), vector)

    def put(self, places: np.ndarray | slice, other: "Numbers") -> None:
        """Set the numbers at `places` to the known ones of `other`; unknown ones stay."""
        if isinstance(places, slice):
            places = np.arange(len(self))[places]
        here = other.where == _HOST
        self.put_host(places[here], other.host[here])
        for number, (inside, vector) in enumerate(other.pieces, 1):
            valid = other.where[inside] == number
            if valid.all():
                self.put_on_device(places[inside], vector)
            elif valid.any():
                self.put_on_device(places[inside[valid]], vector[valid.nonzero()[0].tolist()])

    def forget(self, places: np.ndarray) -> None:
        """Make the numbers at `places` unknown."""
        self.host[places], self.where[places] = np.nan, _UNKNOWN

    def taken(self, places: np.ndarray) -> "Numbers":
        """The numbers at `places`, in that order; unknown where a place is -1."""
        found = Numbers(len(places))
        known = places >= 0
        inside = places[known]
        found.host[known], found.where[known] = self.host[inside], self.where[inside]
        of_place = np.full(len(self) + 1, -1)
        of_place[inside] = np.flatnonzero(known)
        found.pieces = [(of_place[old], vector) for old, vector in self.pieces]
        return found


class ParameterTable(Mapping[str, dict[str, Tensor | float]]):
    """What was measured of each parameter in a step: as a mapping, numbers by name and quantity.

    A parameter of which nothing is known is not in it. `names` are those of all parameters.
    """

    def __init__(self, names: Sequence[str] = (), places: Mapping[str, int] | None = None) -> None:
        self.names = names if isinstance(names, tuple) else tuple(names)
        self._places = places or {name: place for place, name in enumerate(self.names)}
        self._quantities: dict[str, Numbers] = {}

    @classmethod
    def of(cls, rows: Mapping[str, Mapping[str, Tensor | float]]) -> "ParameterTable":
        """Return the table of numbers given by name and quantity; itself, if it is a table."""
        if isinstance(rows, ParameterTable):
            return rows
        table = cls(list(rows))
        for quantity in {key: None for row in rows.values() for key in row}:
            having = [place for place, row in enumerate(rows.values()) if quantity in row]
            values = [row[quantity] for row in rows.values() if quantity in row]
            table._numbers(quantity).put_each(having, values)
        return table

    def __iter__(self) -> Iterator[str]:
        return iter([self.names[place] for place in self.rows().tolist()])

    def __len__(self) -> int:
        return int(self._any_known().sum())

    def __contains__(self, name: object) -> bool:
        return name in self._places and bool(self._any_known()[self._places[str(name)]])

    def __getitem__(self, name: str) -> dict[str, Tensor | float]:
        place = self._places[name]
        found = {quantity: numbers[place] for quantity, numbers in self._quantities.items()}
        known = {quantity: value for quantity, value in found.items() if value is not None}
        if not known:
            raise KeyError(name)
        return known

    def has(self, quantity: str, name: str) -> bool:
        """Whether a quantity of a parameter is known."""
        numbers = self._quantities.get(quantity)
        return numbers is not None and bool(numbers.where[self._places[name]] != _UNKNOWN)

    def has_any(self, quantity: str) -> bool:
        """Whether a quantity of any parameter is known."""
        return quantity in self._quantities and bool(self._quantities[quantity].known.any())

    def rows(self) -> np.ndarray:
        """The places in `names` of the parameters of which something is known: [R]."""
        return np.flatnonzero(self._any_known())

    def numbers(self, quantity: str, places: np.ndarray | None) -> Numbers:
        """A quantity of the parameters at `places`; None stands for all, not to be changed."""
        found = self._quantities.get(quantity)
        if found is None:
            return Numbers(len(self.names if places is None else places))
        return found if places is None else found.taken(places)

    def put(self, quantity: str, names: Sequence[str], numbers: Numbers) -> None:
        """Set a quantity of the parameters `names`, where `numbers` are known."""
        if len(names):
            self._numbers(quantity).put(self.places(names), numbers)

    def set(self, quantity: str, name: str, value: Tensor | float) -> None:
        """Set a quantity of one parameter."""
        self._numbers(quantity).put_each([self._places[name]], [value])

    def fill(self, quantity: str, source: str, names: Collection[str] | None) -> None:
        """Where a quantity is unknown, set it to another one; only of `names`, if given."""
        found = self._quantities.get(source)
        if found is None or (names is not None and not names):
            return
        missing = found.known & ~self._numbers(quantity).known
        if names is not None:
            chosen = np.zeros(len(self.names), dtype=bool)
            chosen[self.places([name for name in names if name in self._places])] = True
            missing &= chosen
        places = np.flatnonzero(missing)
        if len(places):
            self._numbers(quantity).put(places, found.taken(places))

    def forget(self, quantity: str, names: Collection[str] | None = None) -> None:
        """Make a quantity of the parameters `names`, by default of all, unknown."""
        if names is None:
            self._quantities.pop(quantity, None)
        elif quantity in self._quantities and names:
            self._quantities[quantity].forget(self.places(list(names)))

    def forget_all_but(self, names: Collection[str], quantities: Collection[str]) -> None:
        """Make `quantities` of all parameters but `names` unknown."""
        for quantity in quantities:
            if not names:
                self.forget(quantity)
            elif quantity in self._quantities:
                others = [name for name in self.names if name not in names]
                self.forget(quantity, others)

    def places(self, names: Sequence[str]) -> np.ndarray:
        """The places of parameters in `names` of the table."""
        if len(names) == len(self.names) and tuple(names) == self.names:
            return np.arange(len(names))
        of_name = self._places
        return np.fromiter((of_name[name] for name in names), np.int64, len(names))

    def with_names(
        self, names: Sequence[str], places: Mapping[str, int] | None = None
    ) -> "ParameterTable":
        """The same numbers in a table of other parameters; those of others are left out."""
        found = ParameterTable(names, places)
        sources = np.array([self._places.get(name, -1) for name in found.names], dtype=np.int64)
        for quantity, numbers in self._quantities.items():
            found._quantities[quantity] = numbers.taken(sources)
        return found

    def _numbers(self, quantity: str) -> Numbers:
        if quantity not in self._quantities:
            self._quantities[quantity] = Numbers(len(self.names))
        return self._quantities[quantity]

    def _any_known(self) -> np.ndarray:
        known = np.zeros(len(self.names), dtype=bool)
        for numbers in self._quantities.values():
            known |= numbers.known
        return known


def to_array(parts: Sequence[Numbers]) -> np.ma.MaskedArray:
    """Return the numbers of all parts as one masked array, with one transfer for each device."""
    starts = np.cumsum([0, *map(len, parts)])
    values = np.concatenate([part.host for part in parts])
    known = np.concatenate([part.known for part in parts])
    waiting: dict[torch.device, list[tuple[np.ndarray, np.ndarray, Tensor]]] = {}
    for start, part in zip(starts, parts, strict=False):
        for number, (places, vector) in enumerate(part.pieces, 1):
            valid = (places >= 0) & (part.where[places] == number)
            waiting.setdefault(vector.device, []).append((start + places, valid, vector))
    for pieces in waiting.values():
        moved = torch.cat([vector for _, _, vector in pieces]).cpu().double().numpy()
        places = np.concatenate([one for one, _, _ in pieces])
        valid = np.concatenate([one for _, one, _ in pieces])
        values[places[valid]] = moved[valid]
    return np.ma.array(np.where(known, values, 0.0), mask=~known)
