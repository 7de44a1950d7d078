"""What is recorded of the terms of a loss equals autograd by hand."""

import runpy
from copy import deepcopy
from pathlib import Path

import pandas as pd
import pytest
import torch

from gradflow import Tracer
from gradflow.runs.reading.run import open_run

_LOSSES = runpy.run_path(str(Path(__file__).with_name("losses.py")), run_name="losses")
CASES, by_hand = _LOSSES["CASES"], _LOSSES["by_hand"]

# A gradient that is 0 but for that has a norm below.
ROUNDING = 1e-10


@pytest.fixture(params=CASES, scope="module")
def traced(request, tmp_path_factory):
    """A training step of a case with its terms: the run, and the same step by hand."""
    case = CASES[request.param]
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    model = case.model()
    reference = deepcopy(model)
    folder = tmp_path_factory.mktemp(request.param) / "run"
    with Tracer(model, folder) as tracer:
        torch.manual_seed(1)
        terms = case.terms(model)
        tracer.terms(terms)
        sum(terms.values()).backward()
        tracer.step()
        tracer.end_epoch()
    torch.manual_seed(1)
    hand = by_hand(reference, case)
    gradients = {name: one.grad for name, one in model.named_parameters()}
    yield open_run(folder), hand, gradients
    torch.set_default_dtype(torch.float32)


def rows(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    return table[table["kind"] == kind]


def expected_by_place(by_term):
    """The gradients by place, then by term."""
    places = next(iter(by_term.values()))
    return {place: {term: found[place] for term, found in by_term.items()} for place in places}


def places_of(traced):
    _, hand, _ = traced
    yield from (("layer", *one) for one in expected_by_place(hand.layers).items())
    yield from (("parameter", *one) for one in expected_by_place(hand.parameters).items())


def test_the_norm_of_each_term_at_each_layer_and_parameter(traced):
    table = traced[0].table("terms")
    looked_at = 0
    for kind, place, by_term in places_of(traced):
        found = table[(table["kind"] == kind) & (table["place"] == place)].set_index("term")
        for term, gradient in by_term.items():
            norm = found["gradient_norm"][term]
            if gradient is None:
                assert pd.isna(norm)
            else:
                assert norm == pytest.approx(float(gradient.norm()), rel=1e-9, abs=ROUNDING)
                looked_at += 1
    assert looked_at > 10


def test_shares_and_contributions_are_those_of_the_sum(traced):
    table = traced[0].table("terms")
    for kind, place, by_term in places_of(traced):
        found = table[(table["kind"] == kind) & (table["place"] == place)].set_index("term")
        known = {term: one.double() for term, one in by_term.items() if one is not None}
        whole = sum(known.values())
        norms = sum(float(one.norm()) for one in known.values())
        if norms < ROUNDING:
            continue
        for term, gradient in known.items():
            assert found["share"][term] == pytest.approx(float(gradient.norm()) / norms, rel=1e-9)
            along = float((gradient * whole).sum() / whole.square().sum())
            assert found["contribution"][term] == pytest.approx(along, rel=1e-9, abs=1e-9)
        assert found["sum_norm"].tolist() == pytest.approx(
            [float(whole.norm())] * len(found), rel=1e-9
        )
        assert found["contribution"].sum() == pytest.approx(1)
        assert found["share"].sum() == pytest.approx(1)


def test_the_cosine_of_each_pair_that_reaches_a_place(traced):
    table = traced[0].table("term_pairs")
    looked_at = 0
    for kind, place, by_term in places_of(traced):
        found = table[(table["kind"] == kind) & (table["place"] == place)]
        terms = [term for term, gradient in by_term.items() if gradient is not None]
        assert len(found) == len(terms) * (len(terms) - 1) // 2
        for row in found.itertuples():
            one, other = by_term[row.term].flatten(), by_term[row.other].flatten()
            cosine = one @ other / (one.norm() * other.norm())
            assert row.cosine == pytest.approx(float(cosine), abs=1e-9)
            assert row.norm_ratio == pytest.approx(float(one.norm() / other.norm()), rel=1e-9)
            looked_at += 1
    assert looked_at > 3


def test_the_sum_of_the_terms_is_the_gradient_that_the_loss_has_left(traced):
    run, _, gradients = traced
    table = rows(run.table("terms"), "parameter").drop_duplicates("place").set_index("place")
    assert len(table) == len(gradients)
    for name, gradient in gradients.items():
        assert table["sum_norm"][name] == pytest.approx(
            float(gradient.norm()), rel=1e-9, abs=ROUNDING
        )
    whole = rows(run.table("terms"), "model").set_index("term")
    total = torch.cat([one.flatten() for one in gradients.values()]).norm()
    assert whole["sum_norm"].tolist() == pytest.approx([float(total)] * len(whole), rel=1e-9)
    of_layers = rows(run.table("terms"), "layer")
    assert of_layers["sum_error"].max() < 1e-9
    assert of_layers["sum_error"].notna().all()


def test_nothing_is_reported_and_the_run_names_the_terms(traced):
    run, hand, _ = traced
    assert run.description["terms"]["names"] == list(hand.parameters)
    assert run.description["terms"]["steps"] == 1
    assert "not_recorded" not in run.description
