"""The distributions of the augmentation's random changes are as documented."""

import colorsys

import pytest
import torch
from scipy import stats

from gradflow.data.augmentation import augment, augmentation


def draws(image, n, *, flips=True):
    transform = augmentation(channels=len(image), flips=flips)
    return augment(image.expand(n, *image.shape), range(n), transform, seed=0, epoch=1)


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
    transform = augmentation(channels=3, flips=True)
    together = augment(images, range(6), transform, seed=5, epoch=2)
    torch.manual_seed(123)
    alone = augment(images[[4, 1]], [4, 1], transform, seed=5, epoch=2)
    assert torch.equal(alone, together[[4, 1]])
    for other in ({"seed": 6, "epoch": 2}, {"seed": 5, "epoch": 3}):
        assert not torch.equal(augment(images, range(6), transform, **other), together)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_global_random_state_is_untouched(channels):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    draws(torch.rand(channels, 8, 8, generator=torch.Generator().manual_seed(0)), 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_global_random_state_is_restored_after_an_error():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="zip"):
        augment(torch.zeros(2, 3, 8, 8), [0], augmentation(channels=3, flips=True), seed=0, epoch=1)
    assert torch.equal(torch.get_rng_state(), before)
