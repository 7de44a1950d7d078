"""The moments of a tensor, from which its statistics follow: see `fused`, which computes them.

Axis letters: N batch, C channel.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gradflow.hooks.reduction.parts import Part


@dataclass(slots=True)
class Moments:
    """The moments of one tensor, or of several taken as one batch; they stay on the device.

    Fields:
        values: [3 C + 6] the sums, sums of squares and sums of squared deviations from the mean, by
            channel; then an element x0 of the tensor (0 if it is not finite) and the sums of
            (x - x0)^3 and (x - x0)^4 over the whole tensor; then the largest magnitude, the count
            of zeros and the count of non-finite values. A numpy array if a compiled loop computed
            it.
        channels: C; 1 without a channel axis.
        elements: M, the number of elements.
        batch_size: N.
        has_channels: whether the tensor had a channel axis.
        magnitudes: counts of magnitudes as in `histograms.count`; None if not asked for.
        part: the part of the tensor that these are of, if processes share it.
    """

    values: Tensor | np.ndarray
    channels: int
    elements: int
    batch_size: int
    has_channels: bool
    magnitudes: Tensor | None = None
    part: Part = Part.WHOLE

    def scaled(self, factor: float) -> "Moments":
        """Return the moments of the tensor times `factor` > 0, without the counts of magnitudes."""
        powers = np.repeat([factor, factor**2, factor**2], self.channels)
        by_value = np.concatenate(
            [powers, [factor, factor**3, factor**4], [factor, 1.0, 1.0]],
        )
        values = _tensor(self.values)
        return replace(self, values=values * values.new_tensor(by_value), magnitudes=None)

    def join(self, other: "Moments") -> "Moments":
        """Return the moments of both tensors as one batch, as under gradient accumulation.

        If their channels differ in number, as do steps of a sequence, the whole has no channels.
        """
        if (self.channels, self.has_channels) != (other.channels, other.has_channels):
            return self._without_channels().join(other._without_channels())
        values, added, channels = _tensor(self.values), _tensor(other.values), self.channels
        joined = values + added
        joined[-6] = values[-6]
        joined[-5:-3] = values[-5:-3] + other._powers_about(values[-6])
        joined[-3] = torch.maximum(values[-3], added[-3])
        # Chan et al. 1979: the term that the difference of the two means adds to the deviations.
        mine, theirs = self.elements / channels, other.elements / channels
        apart = added[:channels] / theirs - values[:channels] / mine
        between = apart.square() * (mine * theirs / (mine + theirs))
        joined[2 * channels : 3 * channels] += between
        magnitudes = None
        if self.magnitudes is not None and other.magnitudes is not None:
            magnitudes = self.magnitudes + other.magnitudes
        return Moments(
            joined,
            channels,
            self.elements + other.elements,
            self.batch_size + other.batch_size,
            self.has_channels,
            magnitudes,
            self.part if self.part is other.part else Part.UNKNOWN,
        )

    def beside(self, other: "Moments") -> "Moments":
        """Return the moments of the tensor that has the channels of both, these first."""
        mine, added = _tensor(self.values), _tensor(other.values)
        # Sums of each kind by channel, [3, C], are followed by six numbers of the tensor.
        sums = [mine[:-6].reshape(-1, self.channels), added[:-6].reshape(-1, other.channels)]
        whole = mine[-6:] + added[-6:]
        whole[0] = mine[-6]
        whole[1:3] = mine[-5:-3] + other._powers_about(mine[-6])
        whole[3] = torch.maximum(mine[-3], added[-3])
        magnitudes = None
        if self.magnitudes is not None and other.magnitudes is not None:
            magnitudes = self.magnitudes + other.magnitudes
        return replace(
            self,
            values=torch.cat([torch.cat(sums, 1).flatten(), whole]),
            channels=self.channels + other.channels,
            elements=self.elements + other.elements,
            magnitudes=magnitudes,
        )

    def _without_channels(self) -> "Moments":
        """Return the moments of the same tensor taken as one without a channel axis."""
        values, size = _tensor(self.values), self.elements / self.channels
        sums, squares, deviations = values[:-6].view(3, -1)
        means = sums / size
        between = (means - means.mean()).square() * size
        whole = torch.stack([sums.sum(), squares.sum(), (deviations + between).sum()])
        # Without channels, some of a tensor's channels are some of its positions.
        part = Part.POSITIONS if self.part is Part.CHANNELS else self.part
        joined = torch.cat([whole, values[-6:]])
        return replace(self, values=joined, channels=1, has_channels=False, part=part)

    def _powers_about(self, origin: Tensor) -> Tensor:
        """Return the sums of (x - origin)^3 and (x - origin)^4 over the whole tensor: [2]."""
        values = _tensor(self.values)
        totals, _, deviations = values[: 3 * self.channels].view(3, -1)
        own_origin, cubes, fourths = values[-6:-3]
        means = totals * (self.channels / self.elements)
        between = (means - means.mean()).square().mean() * self.elements
        total = totals.sum() - self.elements * own_origin
        square = deviations.sum() + between + total.square() / self.elements
        s = own_origin - origin
        count = self.elements
        third = cubes + s * (3 * square + s * (3 * total + s * count))
        fourth = fourths + s * (4 * cubes + s * (6 * square + s * (4 * total + s * count)))
        return torch.stack([third, fourth])


def _tensor(values: Tensor | np.ndarray) -> Tensor:
    return values if isinstance(values, Tensor) else torch.from_numpy(values)
