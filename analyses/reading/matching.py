"""Whether two runs may be compared image by image: on the same images, trained alike.

Runs that were recorded together are alike by construction. Runs from different experiments need
not be, and a difference in data or training would pass for one between networks.
"""

import pandas as pd

from analyses.reading.options import configuration_differences
from analyses.wording.phrases import listing
from gradflow.runs.reading.run import Run

# What a run records or how far it goes: it changes nothing of what is compared at an epoch.
OPTIONS_THAT_MAY_DIFFER = (
    "network", "seed", "device", "versions", "tracing", "data", "epochs", "trace_every",
    "histograms", "recalibrate", "probes", "checkpoints",
)  # fmt: skip


def mismatch_reason(first: Run, second: Run) -> str:
    """Why the runs are no match, as the end of a sentence; "" where they are one.

    Which network it is, and its seed, do not count: these are what matched runs differ in.
    """
    if not same_images(first, second):
        return "their images differ"
    options = configuration_differences(first, second)["option"]
    unlike = [name for name in options if str(name).split(".")[0] not in OPTIONS_THAT_MAY_DIFFER]
    return f"they were trained with different {listing(unlike)}" if unlike else ""


def same_images(first: Run, second: Run) -> bool:
    """Whether an image of one number is the same image in both runs, as far as is recorded.

    By fingerprint where both have one, else by name; without images, by the recorded target.
    """
    ours, theirs = (_identities(run) for run in (first, second))
    for kind in ("fingerprint", "name", "target"):
        if kind in ours.columns and kind in theirs.columns:
            both = ours[kind].dropna().to_frame("ours").join(theirs[kind].dropna().rename("theirs"))
            both = both.dropna()
            if len(both):
                return bool((both["ours"] == both["theirs"]).all())
    return True


def _identities(run: Run) -> pd.DataFrame:
    """What is known of each image, by its number."""
    images = run.images.drop_duplicates("image").set_index("image")
    known = images[[name for name in ("fingerprint", "name") if name in images]]
    targets = run.predictions.drop_duplicates("image").set_index("image")["target"]
    return known.join(targets, how="outer")
