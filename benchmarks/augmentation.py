"""Times the augmentation of whole batches beside torchvision's transforms, called on each image.

    python benchmarks/augmentation.py [--batches 4] [--pairs 9] [--threads 2] [--device cpu] DATA...

DATA are data sets as of `train_and_trace --data`, e.g. digits or a folder of images. Each pair
augments the same batches of 24 images in both ways, one after the other, in a random order, random
numbers included; the table says how many milliseconds an image takes, on the clock and of the
processor, and how much the pixels differ. torchvision's transforms, the way of earlier versions,
always run on the CPU, and their images are then sent to the device.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from pairing import load as machine_load
from pairing import median_interval, synchronize
from torch import Tensor
from torchvision.transforms import v2

from gradflow.data import ImageData, load
from gradflow.data.on_device.augmentation import augment, draw
from gradflow.seeding import derived_seed

BATCH, WARM_UP = 24, 2


@dataclass(frozen=True)
class Cost:
    """Milliseconds an image, on the clock and of the processor."""

    clock: float
    processor: float


def together(data: ImageData, chosen: Tensor, device: torch.device) -> Tensor:
    """A batch augmented at once."""
    images = data.images.to(device)[chosen.to(device)].float() / 255
    channels = images.shape[1]
    return augment(
        images, draw(chosen.tolist(), seed=0, epoch=1, channels=channels, flips=data.flips)
    )


def one_by_one(data: ImageData, chosen: Tensor, device: torch.device) -> Tensor:
    """A batch of which torchvision augments each image, with the same random numbers."""
    images = data.images[chosen].float() / 255
    color = {"saturation": 0.2, "hue": 0.1} if images.shape[1] == 3 else {}
    flips = [v2.RandomHorizontalFlip(0.5)] if data.flips else []
    jitter = v2.ColorJitter(brightness=0.2, contrast=0.2, **color)
    transform = v2.Compose([*flips, v2.RandomRotation(15), jitter])
    changed = []
    with torch.random.fork_rng(devices=[]):
        for image, index in zip(images, chosen.tolist(), strict=True):
            torch.default_generator.manual_seed(derived_seed(0, 1, index))
            changed.append(transform(image))
    return torch.stack(changed).to(device)


Way = Callable[[ImageData, Tensor, torch.device], Tensor]


def cost_of(way: Way, data: ImageData, batches: list[Tensor], device: torch.device) -> Cost:
    """What it costs to augment `batches`."""
    synchronize(device)
    clock, processor = time.perf_counter(), time.process_time()
    for chosen in batches:
        way(data, chosen, device)
    synchronize(device)
    images = sum(map(len, batches)) / 1000
    return Cost((time.perf_counter() - clock) / images, (time.process_time() - processor) / images)


def measure(source: str, options: argparse.Namespace) -> str:
    """The row of the table for a data set."""
    device, order = torch.device(options.device), random.Random(0)
    data = load(source)
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    batches = list(chosen.split(BATCH))[: options.batches]
    costs: dict[Way, list[Cost]] = {together: [], one_by_one: []}
    for _ in range(options.pairs + WARM_UP):
        for way in order.sample(list(costs), 2):
            costs[way].append(cost_of(way, data, batches, device))
    before, after = (costs[way][WARM_UP:] for way in (one_by_one, together))
    ratios = sorted(a.processor / b.processor for a, b in zip(after, before, strict=True))
    low, high = median_interval(ratios)
    parts = zip(*(way(data, batches[0], device) for way in costs), strict=True)
    differences = torch.stack([(ours - theirs).abs() for ours, theirs in parts])
    cells = [f"{source.rsplit('/', 1)[-1]}, {'x'.join(map(str, data.images.shape[1:]))}"]
    for each in (before, after):
        clock = statistics.median(cost.clock for cost in each)
        processor = statistics.median(cost.processor for cost in each)
        cells.append(f"{processor:.3g} ({clock:.3g})")
    cells.append(f"{statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})")
    cells.append(f"{float(differences.max()):.1e}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+")
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"ms an image: of the processor (on the clock); {machine_load()}\n")
    print("| data | image by image | batches | ratio (95 %) | largest difference |")
    print("|---|---|---|---|---|")
    for source in options.data:
        print(measure(source, options), flush=True)


if __name__ == "__main__":
    main()
