"""Memory for copies of tensors of which only some are kept at a time, and others at the next.

To allocate it anew whenever others have their turn costs more than the copies themselves.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

_ALIGNED = 64  # bytes: of a line of a processor's cache, and a multiple of every dtype's size


class Room:
    """One piece of memory a device, which copies share that are not needed at the same time.

    Args:
        most: how many bytes of a device the copies of one turn take at most.

    Fields:
        version: changes when a piece is replaced by a larger one. Copies in the one before stay as
            they are, and keep its memory.
    """

    def __init__(self, most: Callable[[torch.device], int]) -> None:
        self.version = 0
        self._most = most
        self._pieces: dict[torch.device, Tensor] = {}

    def like(self, tensor: Tensor, used: dict[torch.device, int]) -> Tensor:
        """Return room for a copy of a tensor, in its order of elements, and add it to `used`.

        `used` are the bytes of each device that other copies of the same turn take. A tensor that
        has no plain elements in memory gets memory of its own.
        """
        size = bytes_of(tensor)
        if not size:
            return torch.empty_like(tensor)
        start = used.get(tensor.device, 0)
        piece = self._pieces.get(tensor.device)
        if piece is None or start + size > len(piece):
            piece = self._new_piece(tensor.device, start + size)
        used[tensor.device] = start + size
        strides = torch.empty_like(tensor, device="meta").stride()
        inside = piece[start : start + tensor.numel() * tensor.element_size()]
        return inside.view(tensor.dtype).as_strided(tensor.shape, strides)

    def has(self, tensor: Tensor) -> bool:
        """Whether a tensor is in one of its pieces."""
        own = tensor.untyped_storage().data_ptr() if bytes_of(tensor) else None
        return any(own == one.untyped_storage().data_ptr() for one in self._pieces.values())

    def _new_piece(self, device: torch.device, at_least: int) -> Tensor:
        self._pieces.pop(device, None)
        self.version += 1
        size = max(at_least, self._most(device))
        self._pieces[device] = torch.empty(size, dtype=torch.uint8, device=device)
        return self._pieces[device]


def bytes_of(tensor: Tensor) -> int:
    """The bytes that a copy takes in a room; 0 for a tensor that has no plain elements."""
    plain = (
        type(tensor) in (Tensor, Parameter)
        and tensor.layout == torch.strided
        and not tensor.is_nested
        and not tensor.is_quantized
        and tensor.device.type != "meta"
    )
    return -(-tensor.numel() * tensor.element_size() // _ALIGNED) * _ALIGNED if plain else 0


def most_bytes(turns: Iterable[Iterable[Tensor]], device: torch.device) -> int:
    """The bytes of a device that the copies of the largest turn take."""
    sums = (sum(bytes_of(one) for one in turn if one.device == device) for turn in turns)
    return max(sums, default=0)


def in_one_piece(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return room for a copy of each tensor, all of a device in one piece of memory.

    It is given back once none of them is used any more.
    """
    room, used = Room(lambda device: most_bytes([tensors], device)), dict[torch.device, int]()
    return [room.like(tensor, used) for tensor in tensors]
