"""Trained parameters that no gradient reaches from some step on, though one did before."""

import pandas as pd

from analyses.health.readings import MIN_WINDOW
from gradflow.runs.format.update_tables import NO_OPTIMIZER
from gradflow.runs.reading.run import Run

_AT_ONCE = (
    "From that step on other parameters have a gradient that had none before: a stage of training "
    "that begins there looks like this too."
)
_NOT_THE_FIRST = (
    "A layer before these still gets a gradient: a term of the loss that is left out from there on "
    "looks like this too."
)


def cut_off_since(run: Run) -> tuple[list[str], int | None]:
    """Trained parameters that no gradient reaches from a recorded step on, and that step.

    Each of them had a gradient in every recorded step before, from its first one on, and has none
    in any from that step on, six at least. Its layer runs in each of these, which an expert does
    not that no router chooses any more, and no gradient reaches the output of its layer. Its
    optimizer has another parameter with a gradient in each of them, and a learning rate above 0 for
    this one. So it is no generator that waits for its discriminator, and nothing that was frozen on
    schedule: `requires_grad=False` ends the rows of a parameter.

    Of parameters that were cut off in several steps, those that were so last are given.
    """
    last = _last_with_gradient(run)
    if last.empty:
        return [], None
    steps = pd.Index(run.parameters["step"].unique()).sort_values()
    begun = {str(name): steps[steps > step] for name, step in last.items()}
    begun = {name: after for name, after in begun.items() if len(after) >= MIN_WINDOW}
    rows = run.parameters[run.parameters["parameter"].isin(begun)]
    by_name = dict(tuple(rows.groupby("parameter", sort=False)))
    found = {
        name: int(after[0]) for name, after in begun.items() if _is_cut(run, by_name[name], after)
    }
    if not found:
        return [], None
    since = max(found.values())
    return [name for name, step in found.items() if step == since], since


def why_open(run: Run, names: list[str], since: int) -> str:
    """Why it may be meant that no gradient reaches `names` any more; empty if that is not so."""
    rows = _with_gradient(run)
    if (rows.groupby("parameter")["step"].min() >= since).any():
        return _AT_ONCE
    reached = set(rows.loc[rows["step"] >= since, "parameter"])
    order = list(dict.fromkeys(run.layers["layer"]))
    places = {name: order.index(_module(name)) for name in names}
    before = order[: min(places.values())]
    return _NOT_THE_FIRST if any(_module(name) in before for name in reached) else ""


def _with_gradient(run: Run) -> pd.DataFrame:
    """The rows of parameters that have a gradient; one of exactly 0 may be what zero_grad left."""
    rows = run.parameters
    return rows[(rows[["backward_gradient_norm", "gradient_norm"]] > 0).any(axis=1)]


def _last_with_gradient(run: Run) -> pd.Series:
    """The last recorded step with a gradient, of each parameter that has none in the last step."""
    known = _with_gradient(run)
    last = known.groupby("parameter", sort=False)["step"].max()
    return last[last < run.parameters["step"].max()] if len(last) else last


def _is_cut(run: Run, rows: pd.DataFrame, after: pd.Index) -> bool:
    """Whether nothing reaches the parameter with these `rows` in the steps `after`."""
    own = rows.drop_duplicates("step", keep="last").set_index("step")
    has = (own[["backward_gradient_norm", "gradient_norm"]] > 0).any(axis=1)
    before = has[has.index < after[0]]
    late = own.reindex(after)
    optimizer = late["optimizer"].iloc[-1]
    if not before[before.idxmax() :].all() or late["weight_norm"].isna().any():
        return False
    if optimizer == NO_OPTIMIZER or not (late["learning_rate"].fillna(1.0) > 0).all():
        return False
    module = _module(str(rows["parameter"].iloc[0]))
    ran = set(run.activations.loc[run.activations["layer"] == module, "step"])
    reached = set(run.gradients.loc[run.gradients["layer"] == module, "step"])
    alive = _with_gradient(run)
    if isinstance(optimizer, str):
        alive = alive[alive["optimizer"] == optimizer]
    return set(after) <= ran & set(alive["step"]) and not set(after) & reached


def _module(parameter: str) -> str:
    return parameter.rpartition(".")[0] or parameter
