"""The picture that shows it all: what it says, and that it can be drawn of any experiment."""

from io import BytesIO

import matplotlib as mpl
import numpy as np
import pytest

from analyses.overview.question import ANALYSIS
from analyses.plotting import theme
from analyses.registry import NotApplicableError

FALL = [0.9, 0.9, 0.3, 0.9]


def summary_of(experiment):
    return ANALYSIS.run(experiment).summary


def figure_of(experiment):
    (figure,) = ANALYSIS.run(experiment).figures
    return figure


def heat_maps(drawing):
    return [axis for axis in drawing.axes if axis.get_ylabel() != "accuracy" and meshes(axis)]


def meshes(axis):
    return [one for one in axis.collections if type(one).__name__ == "QuadMesh"]


def jumping(build, *networks, recalibrated=None, **options):
    right = build.right_of(FALL)
    again = None if recalibrated is None else build.right_of(recalibrated)
    tables = {"right": right, "recalibrated": again, "epochs": 4, **options}
    return build.experiment(*(build.plan(name, **tables) for name in networks))


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (0.8, "the gradient shrinks 5.96 times (5.96 to 5.96) in plain8"),
        (1.25, "the gradient grows 5.96 times (5.96 to 5.96) in plain8"),
    ],
)
def test_the_summary_says_what_the_gradient_does(build, factor, words):
    assert words in summary_of(build.experiment(build.plan(factor=factor)))


def test_the_summary_does_not_say_more_than_the_interval(build):
    assert "changes by a factor between" in summary_of(build.experiment(build.plan(noise=0.5)))


def test_the_summary_counts_the_falls_and_those_that_re_estimation_leaves(build):
    experiment = jumping(build, "plain8", "resnet8", recalibrated=[0.9] * 4)
    assert summary_of(experiment).endswith(
        "accuracy falls beyond sampling noise at 1 of 3 changes in plain8 and at 1 of 3 changes in "
        "resnet8, none of them with re-estimated statistics too."
    )
    assert figure_of(experiment).title == (
        "Changes of accuracy beyond sampling noise in plain8: 1 fall and 1 rise of 3; resnet8: "
        "1 fall and 1 rise of 3"
    )


def test_the_caption_has_short_sentences_and_alt_names_the_extremes(build):
    experiment = jumping(build, "plain8")
    experiment.runs[0].gradients["rms"] = 0.5
    frame = experiment.runs[0].gradients
    frame.loc[(frame["layer"] == "conv7") & (frame["epoch"] == 3), "rms"] = 0.001
    figure = figure_of(experiment)
    assert max(map(len, figure.caption.split(". "))) < 200
    assert "with falls marked into epochs 3" in figure.alt
    assert "from 0.001 at depth 7 in epoch 3 to 0.5" in figure.alt


def test_epochs_stand_at_the_same_place_above_and_below(build):
    drawing = figure_of(jumping(build, "plain8", "resnet8")).draw()
    drawing.draw_without_rendering()
    places = {(axis.get_xlim(), axis.get_position().x0, axis.get_position().x1)
              for axis in drawing.axes[:4]}  # fmt: skip
    assert len(places) == 2
    assert {limits for limits, _, _ in places} == {(0.5, 4.5)}
    colours = {meshes(axis)[0].norm.vmin for axis in heat_maps(drawing)}
    assert len(colours) == 1


@pytest.mark.parametrize(("recalibrated", "height"), [(None, 1.0), ([0.9] * 4, 0.05)])
def test_jumps_stand_on_both_panels(build, recalibrated, height):
    drawing = figure_of(jumping(build, "plain8", recalibrated=recalibrated)).draw()
    accuracy, heat = drawing.axes[0], heat_maps(drawing)[0]
    marked = [
        line for line in accuracy.lines if line.get_marker() in ("^", "v") and len(line.get_xdata())
    ]
    assert sorted(line.get_xdata()[0] for line in marked) == [3, 4]
    vertical = [line for line in heat.lines if line.get_xdata()[0] == line.get_xdata()[1]]
    assert [line.get_xdata()[0] for line in vertical] == [3, 4]
    for line in vertical:
        assert np.ptp(line.get_ydata()) == pytest.approx(height)


def no_accuracy(build):
    return build.experiment(build.plan("mine", seed=None), build.plan("$\\frac{ %_^"))


SHAPES = {
    "one": lambda build: jumping(build, "plain8"),
    "three": lambda build: jumping(build, "plain8", "resnet8", "another-" * 9),
    "five": lambda build: jumping(build, *"abcde"),
    "one epoch": lambda build: build.experiment(
        build.plan(epochs=1, steps=1, right=build.right_of([0.4]))
    ),
    "no accuracy": no_accuracy,
    "accuracy of one": lambda build: build.experiment(
        build.plan("a", right=build.right_of([0.2, 0.4, 0.6])), build.plan("b")
    ),
    "all zero": lambda build: build.experiment(build.plan(factor=0.0, right=None)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_any_experiment_can_be_drawn(build, shape):
    experiment = SHAPES[shape](build)
    drawing = figure_of(experiment).draw()
    drawing.savefig(BytesIO(), format="svg")
    assert drawing.get_size_inches()[0] == theme.WIDTH
    maps = heat_maps(drawing)
    assert len([axis for axis in maps if axis.get_visible()]) >= len(experiment.networks)
    for axis in maps:
        edges = meshes(axis)[0].get_coordinates()
        assert np.ptp(edges[..., 0]) > 0
        assert np.ptp(edges[..., 1]) > 0


def test_two_hundred_layers_and_epochs_stay_small(build):
    options = {"convolutions": 200, "epochs": 200, "steps": 1, "noise": 0.3}
    experiment = build.experiment(build.plan(**options, without=("activations", "parameters")))
    with mpl.rc_context({"svg.fonttype": "path"}):
        drawing = figure_of(experiment).draw()
        content = BytesIO()
        drawing.savefig(content, format="svg", dpi=200)
    assert len(content.getvalue()) < 600_000


def test_the_same_picture_has_the_same_bytes(build):
    figure = figure_of(jumping(build, "plain8"))
    contents = []
    for _ in range(2):
        content = BytesIO()
        with mpl.rc_context({"svg.hashsalt": "x"}):
            figure.draw().savefig(content, format="svg", metadata={"Date": None})
        contents.append(content.getvalue())
    assert contents[0] == contents[1]


def test_without_gradients_it_does_not_apply(build):
    with pytest.raises(NotApplicableError, match="gradients by layer"):
        ANALYSIS.run(build.experiment(build.plan(without=("gradients",))))


def test_a_network_without_layers_with_weights_is_left_out(build):
    experiment = build.experiment(build.plan("a"), build.plan("b", without=("layers",)))
    assert " in a" in figure_of(experiment).title
    with pytest.raises(NotApplicableError, match="convolutions or linear layers"):
        ANALYSIS.run(type(experiment)(experiment.folder, {}, experiment.runs[1:]))
