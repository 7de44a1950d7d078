"""Random changes have the documented distributions and are those of torchvision for each image."""

import colorsys

import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from gradflow.data.on_device.augmentation import augment, draw, images_at_once
from gradflow.seeding import derived_seed


def augmented(images, indices, *, flips=True, seed=0, epoch=1):
    numbers = draw(indices, seed=seed, epoch=epoch, channels=images.shape[1], flips=flips)
    return augment(images, numbers)


def draws(image, n, *, flips=True):
    return augmented(image.expand(n, *image.shape), range(n), flips=flips)


def photographs(n, channels, height, width):
    """Random pixels: a pixel that is taken from a wrong place has another value."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, height, width), generator=generator).float() / 255


def one_by_one(images, indices, *, flips, seed, epoch):
    """What torchvision makes of each image, from the global generator with the image's seed."""
    color = {"saturation": 0.2, "hue": 0.1} if images.shape[1] == 3 else {}
    steps = [v2.RandomHorizontalFlip(0.5)] if flips else []
    steps += [v2.RandomRotation(15), v2.ColorJitter(brightness=0.2, contrast=0.2, **color)]
    transform, changed = v2.Compose(steps), []
    with torch.random.fork_rng(devices=[]):
        for image, index in zip(images, indices, strict=True):
            torch.default_generator.manual_seed(derived_seed(seed, epoch, index))
            changed.append(transform(image))
    return torch.stack(changed)


@pytest.mark.parametrize("flips", [True, False])
@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 41, 30), (3, 32, 32), (3, 41, 30)])
def test_a_batch_is_what_torchvision_makes_of_each_image(shape, flips):
    images, indices = photographs(40, *shape), range(7, 47)
    batch = augmented(images, indices, flips=flips, seed=3, epoch=2)
    reference = one_by_one(images, indices, flips=flips, seed=3, epoch=2)
    # Nearest pixel: where two are equally near, rounding may choose the other one.
    same = ((batch - reference).abs() <= 3e-6).all(dim=1)
    assert same.double().mean() > 0.9999
    if shape == (1, 32, 32) and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        assert torch.equal(batch, reference)  # of the default data set


@pytest.mark.parametrize("shape", [(1, 192, 192), (1, 32, 32), (3, 32, 32), (3, 96, 128)])
def test_an_image_does_not_depend_on_those_beside_it_nor_on_threads(shape):
    n = images_at_once(shape, torch.device("cpu")) + 3
    images = photographs(n, *shape)
    together = augmented(images, range(n))
    backwards = augmented(images.flip(0), range(n)[::-1]).flip(0)
    alone = torch.cat([augmented(images[i : i + 1], [i]) for i in range(n)])
    assert torch.equal(together, backwards)
    assert torch.equal(together, alone)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        more_threads = augmented(images, range(n))
    finally:
        torch.set_num_threads(threads)
    # The mean that contrast keeps is that of all pixels, which several threads add up.
    torch.testing.assert_close(more_threads, together, rtol=0, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 300, 300)])
def test_a_gpu_makes_the_same_images_as_the_cpu(shape):
    images = photographs(24, *shape)
    numbers = draw(range(24), seed=0, epoch=1, channels=shape[0], flips=True)
    difference = (augment(images.cuda(), numbers).cpu() - augment(images, numbers)).abs()
    assert (difference.amax(dim=1) <= 3e-6).double().mean() > 0.9999


def test_images_of_odd_sizes_depend_on_those_beside_them_in_the_last_bit_at_most():
    images = photographs(9, 3, 31, 33)
    alone = torch.cat([augmented(images[i : i + 1], [i]) for i in range(9)])
    torch.testing.assert_close(augmented(images, range(9)), alone, rtol=0, atol=3e-7)


def test_a_shift_of_the_hue_keeps_the_rest_of_each_color():
    images = photographs(1, 3, 20, 20)
    numbers = draw([0], seed=0, epoch=1, channels=3, flips=False)
    numbers.angle.zero_()
    numbers.amount.copy_(torch.tensor([[1, 1, 1, 0.07]]))
    before = images[0].flatten(1).T.tolist()
    after = augment(images, numbers)[0].flatten(1).T.tolist()
    for old, new in zip(before, after, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*old)
        assert new == pytest.approx(colorsys.hsv_to_rgb(hue + 0.07, saturation, value), abs=2e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_brightness_varies_as_a_uniform_factor_within_20_percent(channels):
    # a uniformly gray image has no contrast, saturation or hue; only the corners that the
    # rotation blackens give the contrast something to change
    centers = draws(torch.full((channels, 41, 41), 0.5), 400)[:, 0, 20, 20].numpy()
    assert centers.min() > 0.38
    assert centers.max() < 0.62
    assert centers.std() == pytest.approx(0.2 / 12**0.5, rel=0.1)


def test_contrast_and_saturation_vary_within_20_percent():
    image = torch.full((3, 31, 31), 0.4)
    image[:, :, 16:] = 0.6
    image[:, 13:18, 13:18] = torch.tensor([0.6, 0.4, 0.4]).view(3, 1, 1)
    changed = draws(image, 400, flips=False)
    gray = changed[:, 0, 15, 22] - changed[:, 0, 15, 8]
    color = changed[:, :, 15, 15]
    # gray pixels take brightness and contrast, the chroma of the colored one saturation as well
    brightness_and_contrast = gray / 0.2
    saturation = (color.amax(1) - color.amin(1)) / gray
    assert brightness_and_contrast.min() >= 0.8**2 - 1e-5
    assert brightness_and_contrast.max() <= 1.2**2 + 1e-5
    assert brightness_and_contrast.max() > 1.32  # more than brightness alone could do
    assert stats.kstest(saturation.numpy(), stats.uniform(0.8, 0.4).cdf).pvalue > 1e-3


def test_hue_is_uniform_within_a_tenth_of_a_turn():
    image = torch.tensor([0.6, 0.3, 0.3]).view(3, 1, 1).expand(3, 9, 9)
    hues = [colorsys.rgb_to_hsv(*pixel)[0] for pixel in draws(image, 400)[:, :, 4, 4].tolist()]
    signed = [(hue + 0.5) % 1 - 0.5 for hue in hues]
    assert stats.kstest(signed, stats.uniform(-0.1, 0.2).cdf).pvalue > 1e-3


def test_half_the_images_are_mirrored_where_mirroring_keeps_the_label():
    image = torch.zeros(3, 32, 32)
    image[:, 8:24, 20:28] = 0.8
    for flips in (True, False):
        changed = draws(image, 300, flips=flips)
        mirrored = changed[..., :16].sum((1, 2, 3)) > changed[..., 16:].sum((1, 2, 3))
        if flips:
            assert stats.binomtest(int(mirrored.sum()), 300, 0.5).pvalue > 1e-3
        else:
            assert not mirrored.any()


def test_the_rotation_is_uniform_within_15_degrees():
    image = torch.zeros(1, 101, 101)
    image[:, 48:53, 90:95] = 0.8  # 42 pixels right of the centre
    angles = []
    for changed in draws(image, 300, flips=False):
        rows, columns = torch.nonzero(changed[0] > 0.4 * changed.max(), as_tuple=True)
        offset = (50 - rows.float().mean(), columns.float().mean() - 50)
        angles.append(float(torch.rad2deg(torch.atan2(*offset))))
    assert max(map(abs, angles)) < 15.5
    assert stats.kstest(angles, stats.uniform(-15, 30).cdf).pvalue > 1e-3


def test_identical_images_are_changed_differently():
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    changed = draws(image, 6).flatten(1)
    assert len(changed.unique(dim=0)) == 6


def test_results_stay_images_of_the_same_shape():
    for channels in (1, 3):
        image = torch.rand(channels, 16, 16, generator=torch.Generator().manual_seed(0))
        changed = draws(image, 20)
        assert changed.shape == (20, channels, 16, 16)
        assert changed.dtype == torch.float32
        assert changed.min() >= 0
        assert changed.max() <= 1


def test_a_draw_belongs_to_seed_epoch_and_index_alone():
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    together = augmented(images, range(6), seed=5, epoch=2)
    torch.manual_seed(123)
    alone = augmented(images[[4, 1]], [4, 1], seed=5, epoch=2)
    assert torch.equal(alone, together[[4, 1]])
    for other in ({"seed": 6, "epoch": 2}, {"seed": 5, "epoch": 3}):
        assert not torch.equal(augmented(images, range(6), **other), together)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_global_random_state_is_untouched(channels):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    draws(torch.rand(channels, 8, 8, generator=torch.Generator().manual_seed(0)), 3)
    assert torch.equal(torch.get_rng_state(), before)
