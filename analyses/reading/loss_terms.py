"""The terms of a loss in one run: their values, and how their gradients compare where they meet."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from gradflow.runs.format.term_tables import LAYER_KIND, MODEL_KIND, PARAMETER_KIND
from gradflow.runs.reading.run import Run

# A cosine below is one of conflict, in the score of Shi et al. 2023 (Recon), sections 3 and 5.
IN_CONFLICT = -0.02
# A gradient this small beside the largest of its term is rounding: that of a bias before a batch
# norm, say.
ROUNDING = 1e-6

Pair = tuple[str, str]


@dataclass(frozen=True)
class LossTerms:
    """The terms of the loss of one run.

    Fields:
        names: in the order in which they were given.
        values: [measured steps, terms] of the terms with their weights; nan where not given.
        norms: [measured steps, terms] of their gradients by all parameters.
        weights: by term, the weight in the last step that had one; only of those given with one.
        terms, pairs: the tables of the run.
    """

    names: tuple[str, ...]
    values: pd.DataFrame
    norms: pd.DataFrame
    weights: dict[str, float]
    terms: pd.DataFrame
    pairs: pd.DataFrame

    def pair_names(self, kind: str = LAYER_KIND) -> list[Pair]:
        """The pairs of terms that meet in a place of that kind."""
        met = self.pairs.loc[self.pairs["kind"] == kind, ["term", "other"]].drop_duplicates()
        return list(met.itertuples(index=False, name=None))

    def log_ratios(self, pair: Pair) -> pd.DataFrame:
        """log10 of the gradient norms' ratio at each layer that both reach: [steps, layers]."""
        rows = self._rows(pair, LAYER_KIND)
        ratios = rows.pivot_table(index="step", columns="place", values="norm_ratio", sort=False)
        with np.errstate(divide="ignore"):
            logs: pd.DataFrame = np.log10(ratios.astype(float)).replace([np.inf, -np.inf], np.nan)
        return logs

    def shared_cosines(self, pair: Pair) -> pd.Series:
        """The cosine of the two gradients of all parameters that both reach, by step.

        sum(g_a g_b) / sqrt(sum |g_a|^2 sum |g_b|^2) over these parameters (Yu et al. 2020).
        """
        return _cosines(self._products(pair), ["step"]).dropna()

    def layer_cosines(self, pair: Pair) -> pd.DataFrame:
        """The same over the parameters of each layer: [layers, steps], in the model's order."""
        products = self._products(pair)
        cosines = _cosines(products, ["layer", "step"]).unstack("step")
        return cosines.reindex(dict.fromkeys(products["layer"]))

    def conflict_scores(self, pair: Pair) -> pd.Series:
        """The share of the measured steps in which the terms are in conflict, by layer.

        In the order of the model; those of which all gradients are rounding are left out.
        """
        cosines = self.layer_cosines(pair).dropna(how="all")
        scores: pd.Series = (cosines < IN_CONFLICT).sum(axis=1) / cosines.notna().sum(axis=1)
        return scores

    def _products(self, pair: Pair) -> pd.DataFrame:
        """Step, layer, product and squares of the norms by parameter, but for rounding."""
        rows = self._with_norms(pair)
        largest = rows.groupby("step")[["norm", "other_norm"]].transform("max")
        rows = rows[
            (rows["norm"] > ROUNDING * largest["norm"])
            & (rows["other_norm"] > ROUNDING * largest["other_norm"])
        ]
        return pd.DataFrame(
            {
                "step": rows["step"],
                "layer": [place.rpartition(".")[0] or place for place in rows["place"]],
                "product": rows["cosine"].fillna(0.0) * rows["norm"] * rows["other_norm"],
                "mine": rows["norm"] ** 2,
                "theirs": rows["other_norm"] ** 2,
            }
        )

    def _rows(self, pair: Pair, kind: str) -> pd.DataFrame:
        table = self.pairs
        chosen = (table["term"] == pair[0]) & (table["other"] == pair[1]) & (table["kind"] == kind)
        return table[chosen]

    def _with_norms(self, pair: Pair) -> pd.DataFrame:
        """The rows of a pair at parameters, with both norms."""
        norms = self.terms.loc[
            self.terms["kind"] == PARAMETER_KIND, ["step", "place", "term", "gradient_norm"]
        ]
        rows = self._rows(pair, PARAMETER_KIND)
        mine = norms.rename(columns={"gradient_norm": "norm"})
        theirs = norms.rename(columns={"gradient_norm": "other_norm", "term": "other"})
        rows = rows.merge(mine, on=["step", "place", "term"], how="left", sort=False)
        return rows.merge(theirs, on=["step", "place", "other"], how="left", sort=False)


def loss_terms(run: Run) -> LossTerms | None:
    """The terms of the loss of `run`; None if none were measured."""
    terms, pairs = run.table("terms"), run.table("term_pairs")
    if not len(terms):
        return None
    terms, pairs = (
        one.assign(**{name: one[name].astype(str) for name in names})
        for one, names in (
            (terms, ("kind", "place", "term")),
            (pairs, ("kind", "place", "term", "other")),
        )
    )
    whole = terms[terms["kind"] == MODEL_KIND]
    names = tuple(dict.fromkeys(whole["term"]))
    values, norms = (
        whole.pivot(index="step", columns="term", values=name).reindex(columns=names)
        for name in ("value", "gradient_norm")
    )
    weighted = whole.dropna(subset=["weight"])
    weights = {name: float(rows["weight"].iloc[-1]) for name, rows in weighted.groupby("term")}
    return LossTerms(names, values, norms, weights, terms, pairs)


def _cosines(products: pd.DataFrame, by: list[str]) -> pd.Series:
    sums = products.groupby(by, sort=False)[["product", "mine", "theirs"]].sum()
    size = np.sqrt(sums["mine"] * sums["theirs"])
    cosines: pd.Series = sums["product"] / size.where(size > 0)
    return cosines
