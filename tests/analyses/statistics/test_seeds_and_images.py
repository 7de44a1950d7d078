"""The hierarchical bootstrap, against closed forms and known truth."""

import numpy as np
import pytest
from scipy import stats

from analyses.statistics.seeds_and_images import SeedValues, mean_over_seeds

IMAGES = 100


def group(rows, first_image=0):
    rows = np.asarray(rows, dtype=float)
    return SeedValues(rows, np.arange(first_image, first_image + rows.shape[1]))


def test_one_seed_has_the_sampling_variance_of_its_images():
    gaps = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], p=[0.2, 0.5, 0.3], size=(1, IMAGES))
    mean = mean_over_seeds([group(gaps)])
    error = gaps.std() / IMAGES**0.5
    assert mean.values[0] == pytest.approx(gaps.mean())
    assert mean.image_sd[0] == pytest.approx(error, rel=0.05)
    low, high = mean.pointwise_interval(0)
    assert (low, high) == pytest.approx(
        (gaps.mean() - 1.96 * error, gaps.mean() + 1.96 * error), abs=0.01
    )
    assert mean.seed_sd is None


def test_without_noise_of_images_the_interval_is_students():
    levels = [0.10, 0.16, 0.19, 0.30]
    mean = mean_over_seeds([group(np.full((1, IMAGES), level)) for level in levels])
    wanted = stats.t.interval(0.95, 3, np.mean(levels), stats.sem(levels))
    assert mean.pointwise_interval(0) == pytest.approx(wanted, abs=0.01)
    assert mean.image_sd[0] == pytest.approx(0, abs=1e-12)


def test_sampled_images_do_not_count_twice():
    # Seeds differ by nothing but the images they were measured on.
    generator = np.random.default_rng(2)
    groups = [group(generator.normal(size=(1, IMAGES)), IMAGES * index) for index in range(12)]
    mean = mean_over_seeds(groups)
    assert mean.image_sd[0] == pytest.approx(IMAGES**-0.5, rel=0.05)
    assert mean.deviations.std() == pytest.approx((1 / IMAGES / 12) ** 0.5, rel=0.4)


def test_images_that_all_seeds_share_do_not_average_out():
    shared = np.random.default_rng(3).normal(size=(1, IMAGES))
    same = mean_over_seeds([group(shared) for _ in range(4)])
    apart = mean_over_seeds([group(shared, IMAGES * index) for index in range(4)])
    ratio = same.deviations.std() / apart.deviations.std()
    assert ratio == pytest.approx(2.0, rel=0.15)


def test_few_seeds_say_nothing_of_other_seeds():
    groups = [group(np.full((1, IMAGES), level), IMAGES * level) for level in (0, 1)]
    mean = mean_over_seeds(groups)
    assert mean.seed_sd[0] == pytest.approx(0.5**0.5)
    assert mean.pointwise_interval(0) == pytest.approx((0.5, 0.5))


def test_means_without_images_have_an_interval_from_three_seeds_on():
    values = [SeedValues(np.array([[level]]), None) for level in (0.1, 0.2, 0.4)]
    assert mean_over_seeds(values[:2]).pointwise_interval(0) == (None, None)
    wanted = stats.t.interval(0.95, 2, np.mean([0.1, 0.2, 0.4]), stats.sem([0.1, 0.2, 0.4]))
    assert mean_over_seeds(values).pointwise_interval(0) == pytest.approx(wanted, abs=0.03)


def test_the_band_holds_whole_curves_as_often_as_it_says():
    # Ten epochs with their own noise of images and a common one of seeds, around 0 everywhere.
    generator = np.random.default_rng(4)
    inside, pointwise = [], []
    for trial in range(100):
        groups = [
            group(generator.normal(size=(10, IMAGES)) + generator.normal(scale=0.1), IMAGES * index)
            for index in range(5)
        ]
        mean = mean_over_seeds(groups, resamples=200, seed=trial)
        inside.append(np.abs(mean.values).max() <= mean.band_half_width(slice(0, 10)))
        low, high = mean.pointwise_interval(0)
        pointwise.append(low <= 0 <= high)
    # 100 trials: two standard errors of 0.95 are 0.04. Conservative is allowed, less is not.
    assert np.mean(inside) >= 0.91
    assert np.mean(pointwise) >= 0.91


def test_the_band_is_wider_than_any_pointwise_interval():
    generator = np.random.default_rng(5)
    mean = mean_over_seeds([group(generator.normal(size=(6, IMAGES))) for _ in range(3)])
    widest = max(high - low for low, high in map(mean.pointwise_interval, range(6)))
    assert 2 * mean.band_half_width(slice(0, 6)) > widest


def test_different_numbers_of_rows_are_refused():
    with pytest.raises(ValueError, match="as many rows"):
        mean_over_seeds([group(np.zeros((1, 4))), group(np.zeros((2, 4)))])
