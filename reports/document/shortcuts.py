"""Links from the first page to what many readers come for."""

from collections.abc import Mapping

from reports.elements import Shortcut

EXPLORER = "any recorded value by layer, step and network"
# What the reader comes for, and the analyses that show it, the best first.
WANTED = (
    ("gradient norm by layer and epoch", ("gradient_profile", "magnitudes")),
    ("activation statistics by layer and epoch", ("magnitudes", "signal_propagation")),
    ("skip against branch", ("skip_carry",)),
    ("what is wrong with a network, if anything", ("health_check",)),
)


def shortcuts_of(shown: Mapping[str, str], explorer: str) -> tuple[Shortcut, ...]:
    """The links that lead somewhere.

    Args:
        shown: the link target of each analysis that shows something, by its key.
        explorer: the link target of the explorer; "" if there is none.
    """
    links = []
    for text, analyses in WANTED:
        anchor = next((shown[key] for key in analyses if key in shown), None)
        if anchor is not None:
            links.append(Shortcut(text, anchor))
    return (*links, *((Shortcut(EXPLORER, explorer),) if explorer else ()))
