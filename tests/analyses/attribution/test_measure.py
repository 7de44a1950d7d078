"""Planted attributions: correct predictions, completeness, and agreement of networks."""

import numpy as np
import pytest
from scipy import stats

from analyses.attribution.measure import attributed_images, rank_correlation
from analyses.attribution.question import ANALYSIS, over_images
from analyses.registry import NotApplicableError
from analyses.result import Verdict

SIDE = 6
RULES = ["first of its class"] * 5 + ["most confident wrong one", "most confident right one"]


def pixels_of(image, black=0):
    values = np.random.default_rng(image).integers(1, 256, (3, SIDE, SIDE), dtype=np.uint8)
    values[:, :black] = 0
    return values


def picture_rows(seed=0, error=0.01, wrong=(1,), shared=0.0, images=7, others=0, black=0):
    """Maps that are `shared` parts an image's own and the rest drawn anew by `seed`."""
    generator = np.random.default_rng(1000 + seed)
    rows = []
    for place in range(images):
        # Images chosen by the network's predictions.
        image = place if place < 5 else place + others
        common = np.random.default_rng(image).standard_normal(SIDE**2)
        own = generator.standard_normal(SIDE**2)
        target = place % 5
        for method in ("integrated gradients", "Grad-CAM"):
            gradients = method == "integrated gradients"
            rows.append(
                {
                    "epoch": 3,
                    "image": image,
                    "method": method,
                    "layer": None if gradients else "block2",
                    "rule": RULES[place],
                    "target": target,
                    "prediction": (target + 1) % 5 if place in wrong else target,
                    "probability": 0.9,
                    "height": SIDE,
                    "width": SIDE,
                    "values": list(shared * common + (1 - shared) * own),
                    "completeness_error": error if gradients else None,
                    "pixels": pixels_of(image, black).tobytes(),
                }
            )
    return rows


def experiment_of(build, first, second, seed=0):
    return build.experiment(
        build.plan("plain8", seed, probed={"attribution_pictures": first}),
        build.plan("resnet8", seed, skip_share=0.6, probed={"attribution_pictures": second}),
    )


def findings_of(build, **options):
    rows = picture_rows(1, **options), picture_rows(2, others=9, **options)
    result = ANALYSIS.run(experiment_of(build, *rows))
    return {finding.key: finding for finding in result.findings}, result


@pytest.mark.parametrize(
    ("error", "verdict"), [(0.01, Verdict.SUPPORTED), (0.2, Verdict.CONTRADICTED)]
)
def test_the_completeness_error_decides_whether_pictures_add_up(build, error, verdict):
    findings, _ = findings_of(build, error=error)
    assert findings["completeness-plain8"].verdict is verdict
    assert findings["completeness-plain8"].estimates[0].value == pytest.approx(100 * error)


def test_four_images_give_no_verdict(build):
    findings, _ = findings_of(build, images=4)
    assert findings["completeness-plain8"].verdict is Verdict.INCONCLUSIVE
    assert "4 images, 5 needed" in findings["completeness-plain8"].estimates[0].method


@pytest.mark.parametrize(
    ("shared", "verdict"), [(0.9, Verdict.SUPPORTED), (0.0, Verdict.CONTRADICTED)]
)
def test_networks_weigh_pixels_alike_where_their_attributions_have_much_in_common(
    build, shared, verdict
):
    finding = findings_of(build, shared=shared)[0]["alike-plain8-resnet8"]
    assert finding.verdict is verdict
    assert "5 images" in finding.meaning


def test_agreement_is_spearmans_over_the_pixels_that_are_not_black(build):
    rows = picture_rows(1, black=2), picture_rows(2, black=2)
    runs = experiment_of(build, *rows).runs
    first, second = (attributed_images(run)[0] for run in runs)
    one, other = (np.array(each[0]["values"], dtype=np.float32)[2 * SIDE :] for each in rows)
    assert rank_correlation(first, second) == pytest.approx(stats.spearmanr(one, other).statistic)
    assert np.isnan(rank_correlation(*(attributed_images(run)[1] for run in _wrong_in_one(build))))


def _wrong_in_one(build):
    build.folder = build.folder.parent / "another"
    return experiment_of(build, picture_rows(1, wrong=()), picture_rows(2, wrong=(1,))).runs


def test_brightness_alone_makes_no_agreement(build):
    # Gradients without anything in common, each times the same brightness from black to white.
    brightness = np.linspace(0, 1, SIDE**2) ** 3
    rows = picture_rows(1), picture_rows(2)
    for row in [*rows[0], *rows[1]]:
        row["values"] = list(np.asarray(row["values"]) * brightness)
    found = ANALYSIS.run(experiment_of(build, *rows)).findings[0].estimates[0]
    assert abs(found.value) < 0.3


def test_a_picture_is_read_as_it_was_written(build):
    rows = picture_rows(1)
    looked = attributed_images(experiment_of(build, rows, rows).runs[0])
    assert [one.image for one in looked] == list(range(7))
    assert np.array_equal(looked[2].pixels, pixels_of(2).transpose(1, 2, 0))
    values = looked[2].maps["Grad-CAM"].ravel()
    assert values == pytest.approx(np.array(rows[5]["values"]), rel=1e-6)
    assert looked[1].prediction == "nasi_goreng"
    assert (looked[1].right, looked[2].right) == (False, True)


def test_the_gallery_shows_shared_images_and_each_networks_own(build):
    _, result = findings_of(build)
    shared, own = result.figures
    assert "4 by plain8" in shared.title
    assert "block2" in shared.caption
    assert "first validation image of each class" in shared.caption
    drawn = shared.draw()
    assert [axis.get_title() for axis in drawn.axes[:5]] == build.plan().classes
    texts = [axis.get_xlabel() for axis in drawn.axes]
    assert texts.count("nasi_goreng\n90%, WRONG") == 2  # image 1, by both networks
    assert sum("right" in text for text in texts) == 8
    titles = [axis.get_title() for axis in own.draw().axes[:4]]
    assert [title.split("\n")[0] for title in titles] == ["plain8"] * 2 + ["resnet8"] * 2


def test_without_shared_images_only_the_own_ones_are_shown(build):
    first = [row for row in picture_rows(1) if row["rule"] != RULES[0]]
    result = ANALYSIS.run(build.experiment(build.plan(probed={"attribution_pictures": first})))
    assert [figure.key for figure in result.figures] == ["most-confident"]


def test_pictures_of_other_images_are_neither_compared_nor_shown_side_by_side(build):
    experiment = experiment_of(build, picture_rows(1), picture_rows(2))
    second = experiment.runs[1]
    second._tables["images"] = second.images.assign(fingerprint="other")
    result = ANALYSIS.run(experiment)
    (alike,) = [one for one in result.findings if one.key.startswith("alike")]
    assert (alike.verdict, alike.estimates[0].value) == (Verdict.INCONCLUSIVE, None)
    assert all("resnet8" not in figure.title for figure in result.figures)


def test_over_images_is_scipys_bootstrap_of_the_median():
    values = np.random.default_rng(0).exponential(size=30)
    found = over_images([*values, float("nan")], median=True)
    assert found.value == pytest.approx(np.median(values))
    interval = stats.bootstrap(
        (values,), np.median, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=0.1)


def test_without_pictures_it_does_not_apply(build):
    with pytest.raises(NotApplicableError, match="attribution_pictures"):
        ANALYSIS.run(build.experiment(build.plan()))
