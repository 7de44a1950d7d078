"""What changed most between two runs of any networks?

The runs need no accuracy, no seed and no common network. Layers are aligned by name, or by role and
depth if names differ, and compared step by step in every quantity that both runs recorded. A change
is contradicted if all intervals lie close to no difference.
"""

import numpy as np
import pandas as pd

from analyses.comparison.alignment import BY_DEPTH, Alignment, align_layers
from analyses.comparison.figures import changes_by_depth
from analyses.comparison.measure import DEFAULT_MARGINS, Margins, run_changes
from analyses.comparison.tables import comparison_tables, ranked_changes
from analyses.reading.options import configuration_differences
from analyses.result import AnalysisResult, Estimate, Finding, Verdict
from analyses.wording.numbers import finite, interval_text, number, points
from analyses.wording.phrases import listing, plural
from gradflow.errors import RunError
from gradflow.runs.reading.run import Run

SOURCES = (
    "Schmeiser 1982, Batch size effects in the analysis of simulation output",
    "Murphy & Myors 1999, Testing the hypothesis that treatments have negligible effects",
    "Benjamini & Hochberg 1995, Controlling the false discovery rate",
    "Benjamini & Yekutieli 2005, False discovery rate-adjusted multiple confidence intervals",
)


def compare_runs(first: Run, second: Run, margins: Margins = DEFAULT_MARGINS) -> AnalysisResult:
    """Compare any two runs, layer by layer.

    Args:
        first, second: the runs; ratios are second over first.
        margins: what counts as a change: a ratio beyond 1.25, or a difference of fractions above
            5 points, at a false-discovery rate of 5 % over all layers and quantities.

    Raises `RunError` if the runs recorded no quantity at an aligned layer in the same step.
    """
    alignment = align_layers(first, second)
    changes = run_changes(first, second, alignment, margins)
    if changes.empty:
        raise RunError(
            f"{first.folder} and {second.folder} cannot be compared: they recorded no quantity of "
            "an aligned layer at the same step; record both with the same schedule"
        )
    names = run_names(first, second)
    finding = _finding(names, changes, (first, second), margins)
    return AnalysisResult(
        summary=f"{finding.meaning} {_alignment_in_words(alignment)}",
        findings=(finding,),
        figures=(changes_by_depth(names, changes, margins),),
        tables=comparison_tables(names, (first, second), alignment, changes),
        method=(
            "Layers of equal name and role are aligned, then the others by role, depth and order. "
            "At each step that both runs recorded, the effect is ln(second / first), or "
            "second - first for fractions (zeros, dead channels, skip share); activations and "
            "gradients by their root mean square, which does not grow with a tensor's size as the "
            "norm does. Its mean over steps has an error from non-overlapping batch means, batches "
            "four times as long as the block length of Carlstein 1986, and Student's t over them. "
            f"A quantity has changed if it lies beyond a ratio of {margins.ratio:g} or "
            f"{100 * margins.fraction:g} points (minimum-effect test), at a false-discovery rate "
            f"of {margins.alpha:g} over all layers and quantities (Benjamini & Hochberg); its "
            "interval is widened to account for the selection (level 1 - alpha R / m, R changed of "
            "m tested; Benjamini & Yekutieli). Zeros and values that are not finite have no "
            "logarithm; if one run has more of them, a table says so."
        ),
        sources=SOURCES,
    )


def run_names(first: Run, second: Run) -> tuple[str, str]:
    """Different names for the two runs, made from the names of their folders."""
    if first.name != second.name:
        return first.name, second.name
    parents = (first.folder.resolve().parent.name, second.folder.resolve().parent.name)
    if parents[0] != parents[1]:
        return f"{parents[0]}/{first.name}", f"{parents[1]}/{second.name}"
    return f"{first.name} (first)", f"{second.name} (second)"


def _finding(
    names: tuple[str, str],
    changes: pd.DataFrame,
    runs: tuple[Run, Run],
    margins: Margins,
) -> Finding:
    tested, changed = int(changes["p_value"].notna().sum()), int(changes["changed"].sum())
    beyond = f"a factor of {margins.ratio:g} or {100 * margins.fraction:g} points"
    verdict = _verdict(changes, margins)
    tops = [top for ratio in (True, False) if len(top := ranked_changes(changes, ratio).head(1))]
    estimates = [_estimate(top.iloc[0]) for top in tops]
    share = Estimate(
        "changed of all layers and quantities tested",
        changed / tested if tested else None,
        method=f"no interval: {changed} of {tested} at a false-discovery rate of {margins.alpha:g}",
    )
    words = {
        Verdict.SUPPORTED: f"{names[1]} differs from {names[0]}",
        Verdict.CONTRADICTED: f"{names[1]} hardly differs from {names[0]}",
        Verdict.INCONCLUSIVE: f"Whether {names[1]} differs from {names[0]} cannot be told",
    }[verdict]
    said = [_change_in_words(top.iloc[0]) for top in tops]
    most = f"; most in {listing(said)}" if said else ""
    return Finding(
        key="difference-between-runs",
        network=None,
        hypothesis=(f"{names[1]} differs from {names[0]} at some layer by more than {beyond}."),
        contradicted_by=f"95 % intervals that all lie within {beyond}.",
        verdict=verdict,
        estimates=(*estimates, share),
        threshold=(
            "supported if any layer and quantity changes by more than that, at a "
            f"false-discovery rate of {margins.alpha:g} over all of them"
        ),
        meaning=(
            f"{words}: over common steps, {changed} of {tested} layers and quantities "
            f"changed by more than {beyond}{most}."
        ),
        next_step=_next_step(verdict, len(configuration_differences(*runs))),
        caveats=_caveats(*runs, changes),
        evidence=("changes-by-depth", "ratios", "fractions", "lost"),
    )


def _verdict(changes: pd.DataFrame, margins: Margins) -> Verdict:
    if changes["changed"].any():
        return Verdict.SUPPORTED
    bound = changes["ratio"].map(margins.of)
    # A missing interval compares as false: then no change is ruled out.
    inside = (changes["low"] > -bound) & (changes["high"] < bound)
    return Verdict.CONTRADICTED if inside.all() else Verdict.INCONCLUSIVE


def _next_step(verdict: Verdict, options: int) -> str:
    if verdict is Verdict.SUPPORTED:
        return (
            "Repeat both with other seeds: two runs that differ only in the seed differ too."
            if options
            else "Look for other differences than options: data, order of batches, seed, code."
        )
    if verdict is Verdict.CONTRADICTED:
        return "Take the two as equal in what was recorded, and look at accuracy for the rest."
    return "Record more steps, or every step: the intervals are too wide."


def _caveats(first: Run, second: Run, changes: pd.DataFrame) -> tuple[str, ...]:
    caveats = [
        "The intervals are about these two runs over their common steps, not about their options: "
        "other seeds may change the numbers as much.",
        "Steps depend on each other; if they depend over a twentieth of the run or longer, "
        "p-values may be too small.",
        "A difference that grows or shrinks through the run counts as variation too: its interval "
        "is wide, and the change may be missed.",
    ]
    sizes = [run.gradients["batch_size"].dropna().max() for run in (first, second)]
    if len(first.gradients) and len(second.gradients) and sizes[0] != sizes[1]:
        caveats.append(
            f"The batches differ ({sizes[0]:.0f} and {sizes[1]:.0f}): the gradient of a mean loss "
            "with respect to an activation shrinks with the batch."
        )
    untested = int(changes["p_value"].isna().sum())
    if untested:
        caveats.append(f"{plural(untested, 'row')} had too few usable steps to be tested.")
    return tuple(caveats)


def _estimate(row: pd.Series) -> Estimate:
    ends = (row["effect"], row["low_selected"], row["high_selected"])
    value, low, high = (
        finite(float(np.exp(end)) if row["ratio"] else 100 * float(end)) for end in ends
    )
    kind = "second over first" if row["ratio"] else "second less first"
    return Estimate(
        f"{row['quantity']} at {row['layer']}, {kind}",
        value,
        low,
        high,
        unit="" if row["ratio"] else "percentage points",
        method=f"batch means over {plural(int(row['steps']), 'step')}, widened for the selection",
    )


def _change_in_words(row: pd.Series) -> str:
    form = number if row["ratio"] else points
    ends = [row["effect"], row["low_selected"], row["high_selected"]]
    value, low, high = (float(np.exp(end)) if row["ratio"] else float(end) for end in ends)
    amount = f"times {form(value)}" if row["ratio"] else form(value)
    return f"{row['quantity']} at {row['layer']}, {amount} {interval_text(low, high, form)}"


def _alignment_in_words(alignment: Alignment) -> str:
    by_depth = int((alignment.pairs["aligned_by"] == BY_DEPTH).sum())
    named = len(alignment.pairs) - by_depth
    unmatched = [int((alignment.unmatched["run"] == which).sum()) for which in ("first", "second")]
    return (
        f"{plural(named, 'layer')} aligned by name, {by_depth} by role and depth; without a "
        f"partner: {unmatched[0]} of the first run, {unmatched[1]} of the second."
    )
