"""Random changes to training images: a whole batch at once, each image with its own random numbers.

The random numbers for an image depend only on the seed, the epoch and the image's index, and are
drawn on the CPU. Networks with one seed therefore see the same pixels, on whatever device and in
whatever batch the image is.

The changes are those of `RandomHorizontalFlip(0.5)`, `RandomRotation(15)` and `ColorJitter` of
`torchvision.transforms.v2`, which would use the same random numbers for all images of a batch. On
the CPU a gray image has the same bits as from these; a color image differs by rounding, in the hue.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gradflow.data.on_device.placement import to_device
from gradflow.seeding import derived_seed

# In degrees; the largest relative change of brightness, contrast and saturation; in turns.
LARGEST_ROTATION = 15
LARGEST_CHANGE = 0.2
LARGEST_HUE_SHIFT = 0.1
# ColorJitter's numbers for its changes, in the order in which it draws them.
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)
_GRAY_WEIGHTS = (0.2989, 0.587, 0.114)
# How many bytes of images are changed at once: on the CPU few enough for its cache, on other
# devices enough to be worth the launches, some 230 however many images there are.
_BYTES_AT_ONCE = {"cpu": 1 << 19}
_BYTES_AT_ONCE_ELSEWHERE = 1 << 26


@dataclass(frozen=True)
class Draws:
    """The random numbers for B images, on the CPU.

    Fields:
        flipped: bool [B], whether the image is mirrored left to right.
        angle: float64 [B], the rotation in degrees, counterclockwise.
        order: int64 [B, 4], the changes of color in the order in which they are made: 0 brightness,
            1 contrast, 2 saturation, 3 hue.
        amount: float64 [B, 4], the factors of brightness, contrast and saturation, and the shift of
            the hue in turns. Gray images have only the first two.
    """

    flipped: Tensor
    angle: Tensor
    order: Tensor
    amount: Tensor

    def parts(self, size: int) -> Iterator["Draws"]:
        """These in parts of `size` images; the last may be smaller."""
        split = [value.split(size) for value in vars(self).values()]
        return (Draws(*part) for part in zip(*split, strict=True))


def draw(indices: Sequence[int], *, seed: int, epoch: int, channels: int, flips: bool) -> Draws:
    """The random numbers for the images at the positions `indices` of the data set.

    Flipped with probability 0.5 (never without `flips`), a rotation within 15 degrees, brightness,
    contrast and saturation within 20 percent, the hue within 0.1 of a turn, all uniform, and a
    random order of the changes of color. No global random state is read or changed.
    """
    generator = torch.Generator()
    one = torch.empty(1)

    def uniform(low: float, high: float) -> float:
        return one.uniform_(low, high, generator=generator).item()

    near_one = (1 - LARGEST_CHANGE, 1 + LARGEST_CHANGE)
    ranges = [near_one] * 3 + [(-LARGEST_HUE_SHIFT, LARGEST_HUE_SHIFT)]
    flipped, angles, orders, amounts = [], [], [], []
    for index in indices:
        # In torchvision's order, in which runs of earlier versions drew too.
        generator.manual_seed(derived_seed(seed, epoch, index))
        flipped.append(flips and uniform(0, 1) < 0.5)
        angles.append(uniform(-LARGEST_ROTATION, LARGEST_ROTATION))
        orders.append(torch.randperm(4, generator=generator))
        amounts.append([uniform(*limits) for limits in ranges[: 4 if channels == 3 else 2]])
    return Draws(
        torch.tensor(flipped),
        torch.tensor(angles, dtype=torch.float64),
        torch.stack(orders),
        torch.tensor(amounts, dtype=torch.float64),
    )


def augment(images: Tensor, draws: Draws) -> Tensor:
    """The images [B, C, H, W], float32 in [0, 1], each changed by its own `draws`.

    A mirrored image is mirrored first, then rotated: nearest pixel, corners black. Then the changes
    of color follow. The result is on the device of `images`; nothing is read back from it.
    """
    size = images_at_once(images.shape[1:], images.device)
    parts = zip(images.split(size), draws.parts(size), strict=True)
    changed = [_augmented(part, own) for part, own in parts]
    return changed[0] if len(changed) == 1 else torch.cat(changed)


def images_at_once(shape: Sequence[int], device: torch.device) -> int:
    """How many images of `shape` (C, H, W) are best changed at once on `device`."""
    at_once = _BYTES_AT_ONCE.get(device.type, _BYTES_AT_ONCE_ELSEWHERE)
    return max(1, at_once // (torch.float32.itemsize * math.prod(shape)))


def _augmented(images: Tensor, draws: Draws) -> Tensor:
    groups = _Groups(draws, images.device)
    amount = groups.amount
    images = groups.change(images, "flipped", lambda chosen, _: chosen.flip(-1))
    images = rotated(images, groups.cosine, groups.sine)
    for place in range(4):
        for change, function in enumerate((_brightened, _contrasted, _saturated, _hue_shifted)):
            if change < draws.amount.shape[1]:
                images = groups.change(images, (place, change), function, amount[change])
    return images


class _Groups:
    """Which images are changed in which way, with their numbers, on the device of the images.

    All numbers go to the device in two transfers, for which nothing waits.
    """

    def __init__(self, draws: Draws, device: torch.device) -> None:
        self._count = len(draws.angle)
        orders, changes = draws.order.tolist(), draws.amount.shape[1]
        members: dict[object, list[int]] = {
            (place, change): [] for place in range(4) for change in range(changes)
        }
        for number, order in enumerate(orders):
            for place, change in enumerate(order):
                if change < changes:
                    members[place, change].append(number)
        members["flipped"] = [number for number, yes in enumerate(draws.flipped.tolist()) if yes]
        together = torch.tensor([number for group in members.values() for number in group])
        sizes = [len(group) for group in members.values()]
        placed = to_device(together, device).split(sizes)
        self._members = dict(zip(members, placed, strict=True))
        turns = [-math.radians(angle % 360) for angle in draws.angle.tolist()]
        numbers = torch.cat(
            [
                torch.tensor([[math.cos(turn), math.sin(turn)] for turn in turns]).double(),
                draws.amount,
                # Rounded once, as torchvision rounds them.
                1 - draws.amount,
            ],
            dim=1,
        )
        columns = to_device(numbers.float().T[..., None, None, None].contiguous(), device)
        self.cosine, self.sine = columns[:2]
        factors, rests = columns[2:].chunk(2)
        self.amount = list(zip(factors, rests, strict=True))

    def change(
        self,
        images: Tensor,
        group: object,
        function: Callable[[Tensor, tuple[Tensor, Tensor]], Tensor],
        amount: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """`images` with those of the group changed by `function`, which also gets their amounts."""
        chosen = self._members[group]
        amount = amount or (self.cosine, self.sine)
        if len(chosen) == 0:
            return images
        if len(chosen) == self._count:
            return function(images, amount)
        factor, rest = amount
        changed = function(images[chosen], (factor[chosen], rest[chosen]))
        return images.index_copy(0, chosen, changed)


def rotated(images: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """`images`, each rotated about its centre, nearest pixel; pixels from outside are black.

    `cosine` and `sine`, [B, 1, 1, 1], are those of the angle from an image to where its pixels come
    from.
    """
    height, width = images.shape[-2:]
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = (torch.arange(height, device=images.device) - (height - 1) / 2)[:, None]
    cosine, sine = cosine[:, 0], sine[:, 0]
    half_width, half_height = width / 2, height / 2
    # Products and sums apart, so that every device rounds alike and finds the same nearest pixel.
    across = (cosine / half_width) * x + (sine / half_width) * y
    down = (-sine / half_height) * x + (cosine / half_height) * y
    grid = torch.stack((across, down), dim=-1)
    return F.grid_sample(images, grid, mode="nearest", padding_mode="zeros", align_corners=False)


def _brightened(images: Tensor, amount: tuple[Tensor, Tensor]) -> Tensor:
    return images.mul(amount[0]).clamp_(0, 1)


def _contrasted(images: Tensor, amount: tuple[Tensor, Tensor]) -> Tensor:
    gray = images if images.shape[1] == 1 else _gray(images)
    return _blended(images, _means(gray), amount)


def _saturated(images: Tensor, amount: tuple[Tensor, Tensor]) -> Tensor:
    return _blended(images, _gray(images), amount)


def _blended(images: Tensor, others: Tensor, amount: tuple[Tensor, Tensor]) -> Tensor:
    factor, rest = amount
    # Like torchvision's sum, this one rounds once where the processor can, but not in the last
    # pixels of a tensor whose number is no multiple of 64: there the last bit may differ.
    return images.mul(factor).addcmul_(others, rest).clamp_(0, 1)


def _gray(images: Tensor) -> Tensor:
    red, green, blue = images.split(1, dim=1)
    weights = _GRAY_WEIGHTS
    gray: Tensor = red.mul(weights[0])
    return gray.add_(green, alpha=weights[1]).add_(blue, alpha=weights[2])


def _means(images: Tensor) -> Tensor:
    """The mean of each image: [B, 1, 1, 1]."""
    if images.device.type == "cpu":
        # One by one, since how torch adds up a tensor depends on how many images there are.
        return torch.stack([image.mean() for image in images]).view(-1, 1, 1, 1)
    return images.mean((1, 2, 3), keepdim=True)


def _hue_shifted(images: Tensor, amount: tuple[Tensor, Tensor]) -> Tensor:
    """The hue of each color, its angle around the gray axis in the hexagon of HSV, is shifted.

    Source: Smith 1978, Color gamut transform pairs. A sixth of a turn is one side of the hexagon,
    along which one of the colors goes linearly from the least to the largest of the three.
    """
    red, green, blue = images.unbind(1)
    least = torch.minimum(torch.minimum(red, green), blue)
    largest = torch.maximum(torch.maximum(red, green), blue)
    range_ = largest - least
    side = torch.where(
        largest == red,
        green - blue,
        torch.where(
            largest == green,
            (blue - red).add_(range_, alpha=2),
            (red - green).add_(range_, alpha=4),
        ),
    )
    # Gray has no range, and no hue that could matter.
    side.div_(range_.clamp_min(torch.finfo(range_.dtype).tiny)).add_(6 * amount[0][:, 0])
    side.sub_(torch.floor(side / 6).mul_(6))
    shares = (
        (side - 3).abs_().sub_(1),
        (side - 2).abs_().neg_().add_(2),
        (side - 4).abs_().neg_().add_(2),
    )
    return torch.stack(
        [share.clamp_(0, 1).mul_(range_).add_(least) for share in shares], dim=1
    ).clamp_(0, 1)
