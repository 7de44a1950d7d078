"""Which term of the loss drives which layer, and which pull against each other?

Description only: whether a term is drowned or held up is for the health check to say.
"""

from functools import partial

import pandas as pd

from analyses.gradients.terms.figures import MAX_PANELS, draw_cosines, draw_shares
from analyses.gradients.terms.measure import NetworkTerms, PairCosine, network_terms
from analyses.reading.loss_terms import IN_CONFLICT
from analyses.reading.runs import by_network
from analyses.registry import Analysis, NotApplicableError
from analyses.result import AnalysisResult, Figure, Table
from analyses.wording.numbers import number, percent, with_interval
from analyses.wording.phrases import listing, plural, slug
from gradflow.runs.reading.run import Experiment

ADDS_UP = 0.01  # a difference below may be rounding


def run(experiment: Experiment) -> AnalysisResult:
    """Show each term's share of the gradient by layer and time, and the cosines of pairs.

    Raises `NotApplicableError` if no run has terms.
    """
    reduced = [
        network_terms(name, runs) for name, runs in by_network(list(experiment.runs)).items()
    ]
    shown = [one for one in reduced if one is not None]
    if not shown:
        raise NotApplicableError(
            "no terms of the loss were given: call Tracer.terms before the backward pass of a loss "
            "that is a sum"
        )
    figures = [figure for one in shown for figure in _figures(one)]
    return AnalysisResult(
        summary=" ".join(map(_sentences, shown)),
        findings=(),
        figures=tuple(figures),
        tables=(
            Table("terms", "The terms of the loss", _with_network(shown, "table")),
            Table("terms-by-layer", "The terms by layer", _with_network(shown, "by_layer")),
        ),
        method=(
            "In the measured steps each term was differentiated by itself. A term's share is the "
            "norm of its gradient with respect to a layer's output over the sum of the norms of "
            "all terms there. The cosine of two terms is that of their gradients with respect to "
            "all parameters that both reach, of a layer or of all; parameters whose gradients are "
            f"rounding are left out. Two terms are in conflict below {number(IN_CONFLICT)}, the "
            "score of Recon. Medians over the last measured steps, a third of them, and over "
            "seeds; of the cosine over all parameters the mean, with an interval by batch means."
        ),
        sources=(
            "Wang, Teng & Perdikaris 2021, Understanding and mitigating gradient flow pathologies",
            "Yu et al. 2020, Gradient surgery for multi-task learning",
            "Shi et al. 2023, Recon: reducing conflicting gradients from the root",
        ),
    )


def _sentences(one: NetworkTerms) -> str:
    return " ".join(filter(None, (_share_sentence(one), _pair_sentence(one), _sum_sentence(one))))


def _share_sentence(one: NetworkTerms) -> str:
    known = one.table.dropna(subset=["share"]).sort_values("share", ascending=False)
    if known.empty:
        return f"No term of the loss of {one.network} reaches a layer."
    (_, first), *others = known.iterrows()
    shares = listing(
        [
            f"{percent(first['share'])} of the gradient comes from {first['term']}",
            *(f"{percent(row['share'])} from {row['term']}" for _, row in others),
        ]
    )
    return (
        f"At the layers of {one.network}, {shares} (medians over layers and the last measured "
        f"steps; {plural(one.steps, 'step')} were measured)."
    )


def _pair_sentence(one: NetworkTerms) -> str:
    known = [pair for pair in one.pairs if pair.value is not None]
    if not known:
        return "No two terms reach the same parameter." if len(one.names) > 1 else ""
    lowest = min(known, key=lambda pair: pair.value or 0.0)
    return f"{_stand(lowest)}{_where(lowest)}"


def _stand(pair: PairCosine) -> str:
    one, other = pair.pair
    cosine = with_interval(pair.value, pair.low, pair.high)
    if pair.low is None or pair.high is None:
        return f"{one} and {other} have a cosine of {cosine}: too few steps to tell its sign."
    if pair.high < 0:
        return f"{one} and {other} pull against each other: their cosine is {cosine}."
    if pair.low > 0:
        return f"{one} and {other} pull together: their cosine is {cosine}."
    return (
        f"{one} and {other} pull neither together nor against each other, beyond the noise: their "
        f"cosine is {cosine}."
    )


def _where(pair: PairCosine) -> str:
    if pair.high is None or pair.high >= 0 or not pair.worst:
        return ""
    return f" They conflict most at {pair.worst}: in {percent(pair.score)} of the measured steps."


def _sum_sentence(one: NetworkTerms) -> str:
    if one.sum_error is None or one.sum_error < ADDS_UP:
        return ""
    return (
        f"The terms of {one.network} do not add up to its loss: at a layer their gradients' sum is "
        f"{percent(one.sum_error)} off."
    )


def _figures(one: NetworkTerms) -> list[Figure]:
    more = f" The first {MAX_PANELS}; the tables have all."
    figures = [
        Figure(
            key=slug(f"terms-{one.network}"),
            title=_share_title(one),
            caption=(
                f"The share of each term of the loss of {one.network} in the gradient at a layer's "
                "output, by step; layers in order of execution, the first at the bottom. Grey: the "
                f"term does not reach the layer.{more if len(one.names) > MAX_PANELS else ''}"
            ),
            alt=_share_sentence(one),
            draw=partial(draw_shares, one),
        )
    ]
    if one.cosines:
        figures.append(
            Figure(
                key=slug(f"term-cosines-{one.network}"),
                title=_pair_sentence(one).split(":")[0].rstrip("."),
                caption=(
                    f"The cosine of the gradients of two terms of {one.network} over the "
                    "parameters of a layer, by step: red, they pull against each other; blue, "
                    f"together.{more if len(one.cosines) > MAX_PANELS else ''}"
                ),
                alt=_pair_sentence(one),
                draw=partial(draw_cosines, one),
            )
        )
    return figures


def _share_title(one: NetworkTerms) -> str:
    known = one.table.dropna(subset=["share"])
    if known.empty:
        return f"The terms of the loss of {one.network}"
    largest = known.loc[known["share"].astype(float).idxmax()]
    return f"{largest['term']} has {percent(largest['share'])} of the gradient of {one.network}"


def _with_network(shown: list[NetworkTerms], name: str) -> pd.DataFrame:
    frames = [getattr(one, name).assign(network=one.network) for one in shown]
    whole = pd.concat(frames, ignore_index=True)
    return whole[["network", *(column for column in whole if column != "network")]]


ANALYSIS = Analysis(
    key="terms",
    title="Terms of the loss",
    question="Which term of the loss drives which layer, and which pull against each other?",
    run=run,
    background=(
        "If a loss is a sum, its gradient is the sum of those of its terms: a large one drowns "
        "the others, and opposed ones cancel."
    ),
    order=128,
)
