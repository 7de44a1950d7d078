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


# Runs of one's own are shown by step.
BY_STEP = {
    "gradient norm by layer and epoch": "gradient norm by layer and step",
    "activation statistics by layer and epoch": "activation statistics by layer and step",
}


def shortcuts_of(shown: Mapping[str, str], explorer: str, *, by_step: bool) -> tuple[Shortcut, ...]:
    """The links that lead somewhere.

    Args:
        shown: the link target of each analysis that shows something, by its key.
        explorer: the link target of the explorer; "" if there is none.
        by_step: whether the sections go by step rather than by epoch.
    """
    links = []
    for text, analyses in WANTED:
        anchor = next((shown[key] for key in analyses if key in shown), None)
        if anchor is not None:
            links.append(Shortcut(BY_STEP.get(text, text) if by_step else text, anchor))
    return (*links, *((Shortcut(EXPLORER, explorer),) if explorer else ()))
