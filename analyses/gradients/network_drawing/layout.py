"""The layout of a drawn network: boxes, stages and skips; deep networks are condensed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from analyses.gradients.network_drawing.boxes import Box, Stage, boxes_of, stages_of
from analyses.gradients.network_drawing.skips import Skip, skips_of
from gradflow.runs.reading.run import Run

MAX_BOXES = 40  # of one network: two columns of a page


@dataclass(frozen=True)
class Layout:
    """What is drawn of one network.

    Fields:
        network: its name.
        boxes: the boxes in order of execution.
        stages: runs of neighbouring boxes of one output shape.
        skips: the skips in order of their ends, the innermost first.
        unplaced: residual additions whose skip could not be located from the trace.
    """

    network: str
    boxes: tuple[Box, ...]
    stages: tuple[Stage, ...]
    skips: tuple[Skip, ...]
    unplaced: tuple[str, ...]

    def stage_of(self, box: int) -> Stage:
        """The stage that the `box`th box is in."""
        return next(stage for stage in self.stages if stage.first <= box <= stage.last)


def layout_of(run: Run, most: int = MAX_BOXES) -> Layout:
    """The layout of the network of `run`.

    If there are more than `most` boxes, neighbours within a stage are merged into groups, as small
    as possible. A group never contains the end of a skip over several boxes, nor all of its boxes.
    """
    boxes = boxes_of(run)
    skips, unplaced = skips_of(run, boxes)
    groups = _smallest_groups(boxes, skips, most) or [[place] for place in range(len(boxes))]
    drawn = [_merged([boxes[place] for place in group]) for group in groups]
    return Layout(
        network=run.network,
        boxes=tuple(drawn),
        stages=tuple(stages_of(drawn)),
        skips=tuple(_over_groups(skips, groups)),
        unplaced=tuple(unplaced),
    )


def _smallest_groups(
    boxes: Sequence[Box], skips: Sequence[Skip], most: int
) -> list[list[int]] | None:
    """At most `most` groups, as small as possible; None if groups of any size are too many."""
    if len(list(_groups(boxes, skips, len(boxes)))) > most:
        return None
    smallest = max(1, -(-len(boxes) // most))
    every = (list(_groups(boxes, skips, size)) for size in range(smallest, len(boxes) + 1))
    return next((groups for groups in every if len(groups) <= most), None)


def _groups(boxes: Sequence[Box], skips: Sequence[Skip], size: int) -> Iterator[list[int]]:
    """Groups of up to `size` neighbouring boxes with the same shape, class and type of skip."""
    own = {skip.end: skip.skip_type for skip in skips if skip.start == skip.end}
    spans = {(skip.start, skip.end) for skip in skips if skip.start != skip.end}
    starts, ends = {start for start, _ in spans}, {end for _, end in spans}
    group: list[int] = []
    for place, box in enumerate(boxes):
        if group:
            before = boxes[group[-1]]
            alike = (box.shape, box.kind, own.get(place)) == (
                before.shape, before.kind, own.get(group[-1])
            )  # fmt: skip
            at_end = place in starts or group[-1] in ends or (group[0], place) in spans
            if not alike or len(group) == size or at_end:
                yield group
                group = []
        group.append(place)
    if group:
        yield group


def _merged(boxes: Sequence[Box]) -> Box:
    first, last = boxes[0], boxes[-1]
    if first is last:
        return first
    return replace(
        last,
        name=f"{first.name} to {last.name}",
        rows=(first.rows[0], last.rows[1]),
        members=len(boxes),
    )


def _over_groups(skips: Sequence[Skip], groups: Sequence[Sequence[int]]) -> list[Skip]:
    """The skips over the groups; skips over single boxes of one group are merged."""
    group_of = {place: number for number, group in enumerate(groups) for place in group}
    moved: dict[tuple[int, int, str, int | None], list[str]] = {}
    for skip in skips:
        shape_box = None if skip.shape_box is None else group_of[skip.shape_box]
        start, end = group_of[skip.start], group_of[skip.end]
        # In a group every x has the shape of the group's outputs, except perhaps the first x.
        within = (
            start,
            end,
            skip.skip_type,
            end if len(groups[end]) > 1 and start == end else shape_box,
        )
        moved.setdefault(within, []).append(*skip.names)
    return [Skip(tuple(names), *place) for place, names in moved.items()]
