"""Checks that two runs can be compared image by image: same images, same training options.

Runs of one experiment satisfy this by construction. Runs of different experiments may not: then a
difference in data or training would look like a difference between networks.
"""

import pandas as pd

from analyses.reading.once import once_per_run
from analyses.reading.options import configuration_differences
from analyses.wording.phrases import listing
from gradflow.runs.reading.run import Run

# Options that do not change the training up to an epoch: what is recorded, how long it runs.
OPTIONS_THAT_MAY_DIFFER = (
    "network", "seed", "device", "versions", "tracing", "data", "epochs", "trace_every",
    "histograms", "recalibrate", "probes", "checkpoints",
)  # fmt: skip


def mismatch_reason(first: Run, second: Run) -> str:
    """Why the runs do not match, as the end of a sentence; "" if they match.

    The network and the seed may differ in matched runs.
    """
    if not same_images(first, second):
        return "their images differ"
    options = configuration_differences(first, second)["option"]
    unlike = [name for name in options if str(name).split(".")[0] not in OPTIONS_THAT_MAY_DIFFER]
    return f"they were trained with different {listing(unlike)}" if unlike else ""


def same_images(first: Run, second: Run) -> bool:
    """Whether equal image numbers mean the same image in both runs, as far as was recorded.

    Images are compared by fingerprint if both runs have it, else by name, else by target.
    """
    ours, theirs = (_identities(run) for run in (first, second))
    for kind in ("fingerprint", "name", "target"):
        if kind in ours.columns and kind in theirs.columns:
            both = ours[kind].dropna().to_frame("ours").join(theirs[kind].dropna().rename("theirs"))
            both = both.dropna()
            if len(both):
                return bool((both["ours"] == both["theirs"]).all())
    return True


@once_per_run
def _identities(run: Run) -> pd.DataFrame:
    """Fingerprint, name and target of each image, as far as recorded, by its number."""
    images = run.images.drop_duplicates("image").set_index("image")
    known = images[[name for name in ("fingerprint", "name") if name in images]]
    targets = run.predictions.drop_duplicates("image").set_index("image")["target"]
    return known.join(targets, how="outer")
