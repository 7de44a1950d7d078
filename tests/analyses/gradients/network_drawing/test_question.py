"""The drawing, compared with the recorded tables as reduced here by pandas alone."""

import time
from dataclasses import replace

import matplotlib.colors as colours
import numpy as np
import pandas as pd
import pytest
from scipy.stats import gmean

from analyses.gradients.network_drawing import marks
from analyses.gradients.network_drawing.colours import ARROWS
from analyses.gradients.network_drawing.layout import layout_of
from analyses.gradients.network_drawing.marks import scale_for
from analyses.gradients.network_drawing.question import run
from analyses.registry import NotApplicableError
from gradflow.runs.format.layer_tables import TENSOR_STATISTICS
from gradflow.runs.reading.run import open_experiment
from gradflow.runs.writing.run import RunWriter


@pytest.fixture
def experiment(build):
    """A plain and a residual network of two seeds, blocks of two convolutions in two stages."""
    return build.experiment(
        *(build.plan("plain8", seed, epochs=4, steps=5, factor=1.3, noise=0.2) for seed in (1, 2)),
        *(
            build.plan("resnet8", seed, epochs=4, steps=5, factor=0.9, noise=0.2, skip_share=0.6)
            for seed in (1, 2)
        ),
    )


def arrow(slider, name):
    """The gid of the arrow of this name."""
    return next(gid for gid, said in slider.names.items() if said == name)


def relative_norm(experiment, network, layer, end, epoch):
    """Median over the steps of `epoch` of the ratio of two layers' norms, gmean over seeds."""
    medians = []
    for one in experiment.of_network(network):
        rows = one.gradients[one.gradients["epoch"] == epoch]
        norms = rows.pivot(index="step", columns="layer", values="norm")
        medians.append((norms[layer] / norms[end]).median())
    return gmean(medians)


def test_an_arrows_width_is_the_recorded_norm_relative_to_the_end_of_its_stage(experiment):
    slider = run(experiment).figures[0].slider
    assert slider.positions == ("1", "2", "3", "4")
    gid = arrow(slider, "plain8: block1, output")
    end = slider.widths[arrow(slider, "plain8: block2, output")]  # where the first stage ends
    assert len(set(end)) == 1
    for place, epoch in enumerate((1, 2, 3, 4)):
        expected = relative_norm(experiment, "plain8", "block1", "block2", epoch)
        drawn = slider.widths[gid][place] / end[place]
        assert drawn == pytest.approx(expected, rel=2e-3)  # widths are rounded to 0.001 points
        assert slider.texts[gid][place].startswith(f"{expected:.3g}\u00d7 (norm ")
        whole = relative_norm(experiment, "plain8", "relu1", "block2", epoch)
        assert slider.texts["n0-stage0"][place] == f"\u2191 \u00d7{whole:.3g}"


def test_skip_and_branch_have_the_widths_of_their_parts_of_the_gradient(experiment):
    result = run(experiment)
    slider = result.figures[0].slider
    for kind, part in (("skip", 0.6), ("branch", 0.4)):
        # The planted parts are of norm 0.6 and 0.4 at every addition, of an input of norm 1.
        ratios = []
        for one in experiment.of_network("resnet8"):
            ends = one.gradients[(one.gradients["layer"] == "block2") & (one.gradients.epoch == 4)]
            ratios.append((part / ends["norm"]).median())
        whole = slider.widths[arrow(slider, "resnet8: block2, output")][3]
        drawn = slider.widths[arrow(slider, f"resnet8: block1, {kind}")][3] / whole
        assert drawn == pytest.approx(gmean(ratios), rel=2e-3)


def test_the_title_and_the_summary_state_the_skips_share(experiment):
    result = run(experiment)
    medians = [
        one.junctions[one.junctions["epoch"] == 4].groupby("layer")["skip_share"].median()
        for one in experiment.of_network("resnet8")
    ]
    share = pd.concat(medians, axis=1).mean(axis=1).mean()
    expected = f"{share:.3g} of the gradient"
    assert result.figures[0].title == f"At epoch 4 the skips carry {expected} in resnet8"
    assert f"In resnet8 at epoch 4 the skips carry {expected}" in result.summary
    assert result.findings == ()


def test_the_drawing_shows_the_position_that_the_slider_stands_at(experiment):
    figure = run(experiment).figures[0]
    drawn = {artist.get_gid(): artist for artist in figure.draw().axes[0].patches}
    assert figure.slider.shown == 3
    for gid, widths in figure.slider.widths.items():
        assert drawn[gid].get_linewidth() == pytest.approx(widths[3])
    for gid, sizes in figure.slider.sizes.items():
        assert gid in drawn
        assert sizes[3] == pytest.approx(1)


def test_the_table_says_what_is_drawn(experiment):
    table = run(experiment).tables[0].frame.set_index(["network", "block"])
    expected = relative_norm(experiment, "resnet8", "block3", "block4", 4)
    assert table.loc[("resnet8", "block3"), "gradient at its output"] == pytest.approx(expected)
    assert (
        table.loc[("plain8", "block3"), ["skip at its input", "branch at its input"]].isna().all()
    )
    # Here the convolutions are named outside the blocks, so that they are boxes of their own.
    assert len(table) == 2 * (8 + 4)


def test_of_many_epochs_sixty_positions_are_kept_first_and_last_among_them(build):
    many = build.experiment(build.plan(convolutions=6, epochs=150, steps=1))
    figure = run(many).figures[0]
    positions = [int(one) for one in figure.slider.positions]
    assert "stops at 60 of the 150 epochs" in figure.caption
    assert (positions[0], positions[-1], len(positions)) == (1, 150, 60)
    assert set(np.diff(positions)) <= {2, 3}


def test_an_epoch_whose_gradients_are_not_numbers_is_not_the_one_shown(build):
    one = build.experiment(build.plan(epochs=3, steps=2))
    gradients = one.runs[0].gradients
    gradients.loc[gradients["epoch"] == 3, "norm"] = float("nan")
    figure = run(one).figures[0]
    assert figure.slider.positions[figure.slider.shown] == "2"
    assert figure.slider.widths["n0-trunk0"][2] == 0
    assert figure.slider.texts["n0-trunk0"][2] == "not recorded"


def test_a_zero_gradient_is_thin_and_said_to_be_zero(build):
    one = build.experiment(build.plan(epochs=2, steps=2))
    gradients = one.runs[0].gradients
    gradients.loc[gradients["layer"] == "block1", "norm"] = 0.0
    slider = run(one).figures[0].slider
    gid = arrow(slider, "plain8: block1, output")
    assert slider.texts[gid][0] == "0\u00d7 (norm 0)"
    assert slider.widths[gid][0] == marks.THINNEST


def test_widths_are_proportional_where_they_can_be_and_logarithmic_where_not():
    near = scale_for(np.array([0.5, 1.0, 2.0, np.nan]))
    assert near.width(2.0) == pytest.approx(2 * near.width(1.0))
    far = scale_for(np.array([1e-6, 1.0, 1e3]))
    assert far.width(4.0) - far.width(2.0) == pytest.approx(
        far.width(2.0) - far.width(1.0), abs=2e-3
    )
    assert far.width(1e-6) < far.width(1e-5) < far.width(1e3) <= marks.WIDEST
    assert far.width(float("nan")) == 0


def test_the_kinds_of_arrow_differ_in_grey_print():
    grey = {
        kind: np.dot(colours.to_rgb(colour), (0.2126, 0.7152, 0.0722))
        for kind, colour in ARROWS.items()
    }
    assert grey["branch"] - grey["skip"] > 0.3


def test_more_networks_than_fit_side_by_side_take_several_figures(build):
    networks = build.experiment(*(build.plan(f"net{i}", epochs=1, steps=1) for i in range(5)))
    figures = run(networks).figures
    assert [figure.key for figure in figures] == ["networks", "networks-2"]
    assert figures[0].slider is None  # one epoch


def test_a_run_without_layers_has_nothing_to_draw(build):
    bare = build.experiment(replace(build.plan("mine"), without=("layers",)))
    with pytest.raises(NotApplicableError, match="nothing to draw"):
        run(bare)


def many_layers(folder, count):
    """A run of layers whose shapes alternate, so that no two of them can be merged into one box."""
    names = [f"block{number}.conv" for number in range(count)]
    with RunWriter(folder, {"network": "net"}) as writer:
        writer.write_layers(
            {
                "layer": names,
                "type": ["Conv2d"] * count,
                "depth": list(range(1, count + 1)),
                "stage": list(range(count)),
                "role": ["convolution"] * count,
                "shape": [f"{1 + number % 2}x8x8" for number in range(count)],
                "parameters": [1] * count,
            }
        )
        numbers = {
            quantity.name: [1.0 if quantity.dtype == "float64" else 0] * count
            for quantity in TENSOR_STATISTICS
        }
        keys = {
            "epoch": [1] * count,
            "step": [0] * count,
            "layer": names,
            "batch_size": [1] * count,
        }
        writer.append("gradients", {**keys, **numbers}, 0, 0)
    return open_experiment(folder)


def test_more_blocks_than_a_page_can_show_are_not_drawn(tmp_path):
    assert run(many_layers(tmp_path / "400", 400)).figures
    with pytest.raises(NotApplicableError, match="net has more than 400 blocks"):
        run(many_layers(tmp_path / "401", 401))


def test_time_to_lay_out_very_many_layers_grows_with_their_number(tmp_path):
    def seconds(count):
        (one,) = many_layers(tmp_path / str(count), count).runs
        assert len(one.layers) == count
        begin = time.process_time()
        assert len(layout_of(one).boxes) == count
        return time.process_time() - begin

    seconds(10)
    assert seconds(5000) < 30 * max(seconds(500), 0.01)


def test_long_names_keep_the_parts_that_tell_blocks_apart():
    assert marks.shortened("encoder.layers.layer_10", 10) == "layer_10"
    assert marks.shortened("encoder.layers.layer_10", 16) == "layers.layer_10"
    assert marks.shortened("unmistakable_10", 6) == "…le_10"


def test_one_scale_bounds_every_width_of_the_figure(experiment):
    slider = run(experiment).figures[0].slider
    drawn = [width for widths in slider.widths.values() for width in widths]
    assert marks.THINNEST <= min(drawn) < max(drawn) <= marks.WIDEST
