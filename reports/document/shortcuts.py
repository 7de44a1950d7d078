"""Links from the first page to what many readers come for."""

from collections.abc import Sequence

from reports.elements import ExplorerElement, Section, Shortcut

EXPLORER = Shortcut("any recorded value by layer, step and network", "explorer")
# What the reader comes for, and the analyses that show it, the best first.
WANTED = (
    ("gradient norm by layer and epoch", ("gradient_profile", "magnitudes")),
    ("activation statistics by layer and epoch", ("magnitudes", "signal_propagation")),
    ("skip against branch", ("skip_carry",)),
    ("what is wrong with a network, if anything", ("health_check",)),
)


def shortcuts_of(
    sections: Sequence[Section], keys: Sequence[str], explorer: ExplorerElement | None
) -> tuple[Shortcut, ...]:
    """The links that lead somewhere in this report.

    `keys` are those of the analyses of `sections`, in the same order.
    """
    shown = {
        key: section.anchor
        for key, section in zip(keys, sections, strict=True)
        if not section.notice
    }
    links = []
    for text, analyses in WANTED:
        anchor = next((shown[key] for key in analyses if key in shown), None)
        if anchor is not None:
            links.append(Shortcut(text, anchor))
    return (*links, *((EXPLORER,) if explorer else ()))
