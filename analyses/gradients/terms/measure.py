"""Reduces the tables `terms` and `term_pairs` to matrices by layer and time, and to medians."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.reading.loss_terms import LossTerms, Pair, loss_terms
from analyses.statistics.batch_means import batch_mean
from gradflow.runs.format.term_tables import LAYER_KIND
from gradflow.runs.reading.run import Run

MAX_COLUMNS = 60  # of a picture: more steps are gathered
FEWEST, MOST = 8, 20  # of the last measured steps in a median: fewer have no interval


@dataclass(frozen=True)
class PairCosine:
    """How two terms stand to each other over the parameters that both reach, in the last steps.

    Fields:
        pair: the terms.
        value, low, high: mean of the cosine with its 95 % interval; None if it is not known.
        worst: the layer whose parameters conflict in the most steps; empty without any.
        score: the share of the measured steps in which they do there (Shi et al. 2023).
    """

    pair: Pair
    value: float | None
    low: float | None
    high: float | None
    worst: str
    score: float


@dataclass(frozen=True)
class NetworkTerms:
    """The terms of the loss of one network, over all its seeds.

    Fields:
        network: its name.
        names: of the terms.
        steps: how many steps were measured, of all seeds.
        last: over how many of the last ones of a seed the medians run.
        shares: by term, its share of the gradient: [layers, steps].
        cosines: by pair, over the parameters of a layer: [layers, steps].
        pairs: the pairs that share a parameter.
        table: a row a term, medians over the last steps.
        by_layer: a row a layer, medians over the last steps.
        sum_error: how far the terms were from adding up to the loss at most; None if not known.
    """

    network: str
    names: tuple[str, ...]
    steps: int
    last: int
    shares: dict[str, pd.DataFrame]
    cosines: dict[Pair, pd.DataFrame]
    pairs: list[PairCosine]
    table: pd.DataFrame
    by_layer: pd.DataFrame
    sum_error: float | None


def network_terms(network: str, runs: Sequence[Run]) -> NetworkTerms | None:
    """Reduce the runs of one network; None if none of them has terms."""
    found = [one for one in map(loss_terms, runs) if one is not None]
    if not found:
        return None
    names = tuple(dict.fromkeys(name for one in found for name in one.names))
    measured = max(len(one.values) for one in found)
    last = min(measured, max(FEWEST, min(MOST, -(-measured // 3))))
    shares = {name: _median([_shares(one, name) for one in found]) for name in names}
    pairs = list(dict.fromkeys(pair for one in found for pair in one.pair_names("parameter")))
    cosines = {pair: _median([one.layer_cosines(pair) for one in found]) for pair in pairs}
    errors = pd.concat([one.terms["sum_error"].dropna() for one in found])
    return NetworkTerms(
        network=network,
        names=names,
        steps=sum(len(one.values) for one in found),
        last=last,
        shares={name: _gathered(matrix) for name, matrix in shares.items()},
        cosines={pair: _gathered(matrix) for pair, matrix in cosines.items()},
        pairs=[_pair(found, pair, last) for pair in pairs],
        table=_table(found, names, shares, last),
        by_layer=_by_layer(found, shares, cosines, last),
        sum_error=float(errors.max()) if len(errors) else None,
    )


def _shares(terms: LossTerms, name: str) -> pd.DataFrame:
    rows = terms.terms[(terms.terms["term"] == name) & (terms.terms["kind"] == LAYER_KIND)]
    matrix = rows.pivot(index="place", columns="step", values="share")
    return matrix.reindex(dict.fromkeys(rows["place"]))


def _median(matrices: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The medians over the seeds, with rows in their order."""
    rows = list(dict.fromkeys(name for one in matrices for name in one.index))
    stacked = pd.concat([one.astype(float) for one in matrices])
    return stacked.groupby(level=0, sort=False).median().reindex(rows).sort_index(axis=1)


def _gathered(matrix: pd.DataFrame) -> pd.DataFrame:
    """Medians over neighbouring steps, in at most `MAX_COLUMNS` columns."""
    count = matrix.shape[1]
    if count <= MAX_COLUMNS:
        return matrix
    places = np.arange(count) * MAX_COLUMNS // count
    medians: pd.DataFrame = matrix.T.groupby(places).median().T
    medians.columns = matrix.columns[np.unique(places, return_index=True)[1]]
    return medians


def _pair(found: Sequence[LossTerms], pair: Pair, last: int) -> PairCosine:
    tails = [one.shared_cosines(pair).tail(last) for one in found]
    values = np.concatenate([one.to_numpy(dtype=float) for one in tails])
    mean = batch_mean(values)
    low, high = mean.interval()
    by_run = [one.conflict_scores(pair) for one in found]
    scores = pd.concat(by_run).groupby(level=0, sort=False).mean()
    return PairCosine(
        pair,
        mean.value,
        low,
        high,
        str(scores.idxmax()) if len(scores) else "",
        float(scores.max()) if len(scores) else 0.0,
    )


def _table(
    found: Sequence[LossTerms], names: Sequence[str], shares: dict[str, pd.DataFrame], last: int
) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "term": name,
                "weight": _first([one.weights.get(name) for one in found]),
                "first value": _of_medians([one.values[name].dropna().head(1) for one in found]),
                "last value": _of_medians([one.values[name].dropna().tail(last) for one in found]),
                "gradient norm": _of_medians(
                    [one.norms[name].dropna().tail(last) for one in found]
                ),
                "share": _finite(shares[name].iloc[:, -last:].median(axis=1).median()),
            }
            for name in names
        ]
    )


def _by_layer(
    found: Sequence[LossTerms],
    shares: dict[str, pd.DataFrame],
    cosines: dict[Pair, pd.DataFrame],
    last: int,
) -> pd.DataFrame:
    columns = {
        f"share of {name}": one.iloc[:, -last:].median(axis=1) for name, one in shares.items()
    }
    for pair, matrix in cosines.items():
        scores = pd.concat([one.conflict_scores(pair) for one in found])
        columns[f"cosine of {' and '.join(pair)}"] = matrix.iloc[:, -last:].median(axis=1)
        columns[f"steps in conflict, {' and '.join(pair)}"] = scores.groupby(level=0).mean()
    rows = dict.fromkeys(
        name for one in (*shares.values(), *cosines.values()) for name in one.index
    )
    frame = pd.DataFrame(columns).reindex(list(rows))
    return frame.rename_axis("layer").reset_index()


def _of_medians(series: Sequence[pd.Series]) -> float | None:
    values = [float(one.median()) for one in series if len(one)]
    return _finite(float(np.median(values))) if values else None


def _first(values: Sequence[float | None]) -> float | None:
    return next((one for one in values if one is not None), None)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
