"""How the gallery's pictures look: set before each script, so that a script only draws."""

from typing import Any

import matplotlib as mpl
from cycler import cycler

# Apart for the colour-blind (Okabe & Ito 2008), and in grey, because they differ in lightness too.
COLOURS = ("#00487c", "#d55e00", "#56b4e9", "#009e73", "#cc79a7", "#595959")


def prepare(_: dict[str, Any], __: str) -> None:
    """Set what all pictures share; Sphinx-Gallery calls it with its settings and the script."""
    mpl.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=COLOURS),
            "axes.labelsize": 13,
            "axes.linewidth": 0.9,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "figure.constrained_layout.use": True,
            "figure.dpi": 110,
            "figure.figsize": (6.4, 4.4),
            "font.size": 12,
            "legend.frameon": False,
            "legend.fontsize": 12,
            "lines.linewidth": 2.4,
            "lines.markersize": 7,
            "savefig.dpi": 110,
        }
    )
