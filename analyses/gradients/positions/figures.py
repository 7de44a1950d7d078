"""Draws the gradient by position and step."""

from collections.abc import Sequence

from matplotlib.colors import LogNorm
from matplotlib.figure import Figure as Drawing

from analyses.gradients.positions.measure import Course
from analyses.plotting import panels, theme

LEAST = 1e-6  # of the largest gradient: what is less has the same colour


@theme.themed
def draw_courses(shown: Sequence[Course]) -> Drawing:
    """Draw one heat map a course: positions from below, steps from the left."""
    figure, axes = panels.subplots(1, len(shown), 3.0)
    scale = LogNorm(LEAST, 1.0, clip=True)
    for axis, one in zip(axes[0], shown, strict=True):
        positive = one.by_step.where(one.by_step > 0)
        drawn = panels.heat_map(axis, positive, scale, "cividis", "")
        axis.set_title(one.name, parse_math=False)
        panels.epoch_axis(axis, "step")
    axes[0, 0].set_ylabel("position in the sequence")
    panels.log_colour_bar(figure, drawn, axes[0], "gradient / largest of its step")
    return figure
