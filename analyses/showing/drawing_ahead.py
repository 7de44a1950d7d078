"""Draws the figures of a report ahead of the place where they are shown."""

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from analyses.showing.drawing import Picture, draw_or_explain
from analyses.showing.working_ahead import WorkAhead

if TYPE_CHECKING:
    from analyses.result import Figure


class DrawingAhead:
    """Draws figures among the pieces of work of `ahead`, in both widths if they have two."""

    def __init__(self, ahead: WorkAhead) -> None:
        self._ahead = ahead
        # By identity: a figure may hold data that cannot be compared.
        self._pieces: dict[int, partial[Picture | str]] = {}

    def add(self, figures: "Iterable[Figure]") -> None:
        """Draw `figures` as soon as a process is free."""
        both = [one for figure in figures for one in (figure, figure.for_phones) if one]
        self._ahead.add(map(self._piece, both))

    def picture(self, figure: "Figure") -> Picture | str:
        """The picture of `figure`, or why it could not be drawn; draws others while it waits."""
        return self._ahead.result(self._piece(figure))

    def _piece(self, figure: "Figure") -> "partial[Picture | str]":
        # A picture depends on the function that draws it alone. The piece keeps the function, so
        # that no other takes its identity.
        return self._pieces.setdefault(id(figure.draw), partial(draw_or_explain, figure))
