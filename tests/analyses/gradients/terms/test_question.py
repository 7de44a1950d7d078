"""What a report says and shows of the terms of a loss."""

import numpy as np
import pytest
import torch
from torch import nn

import gradflow
from analyses.gradients.terms.figures import draw_cosines, draw_shares
from analyses.gradients.terms.measure import MAX_COLUMNS, network_terms
from analyses.gradients.terms.question import ANALYSIS
from analyses.registry import NotApplicableError

STEPS = 70


class Halves(nn.Module):
    """Two outputs from one layer, so that two terms can agree or not."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, x):
        return self.head(torch.tanh(self.body(x)))


def trained(folder, terms_of, left_out=""):
    """Train on the sum of the terms, but for that which is `left_out`."""
    torch.manual_seed(0)
    model = Halves()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    description = {"network": "halves", "seed": 0}
    options = {"terms": 1, "description": description, "optimizer": optimizer}
    with gradflow.Tracer(model, folder, **options) as tracer:
        for _ in range(STEPS):
            outputs = model(torch.randn(16, 3))
            terms = terms_of(outputs)
            if terms:
                tracer.terms(terms)
            (outputs.sum() * 0 + sum(terms[name] for name in terms if name != left_out)).backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    return gradflow.open_experiment(folder)


def opposed(y):
    return {"up": -3 * y.mean(), "down": y.mean()}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("terms") / "run", opposed)


@pytest.fixture(scope="module")
def result(experiment):
    return ANALYSIS.run(experiment)


def test_the_shares_and_the_cosine_are_told(result):
    assert "75.0 % of the gradient comes from up and 25.0 % from down" in result.summary
    assert "70 steps were measured" in result.summary
    assert "up and down pull against each other: their cosine is -1" in result.summary
    assert "in 100.0 % of the measured steps" in result.summary
    assert "add up" not in result.summary


def test_the_tables_have_each_term_and_each_layer(result):
    terms, layers = (one.frame for one in result.tables)
    assert terms["term"].tolist() == ["up", "down"]
    assert terms["share"].tolist() == pytest.approx([0.75, 0.25])
    assert layers["layer"].tolist() == ["body", "head"]
    assert layers["share of up"].tolist() == pytest.approx([0.75, 0.75])
    assert layers["cosine of up and down"].tolist() == pytest.approx([-1, -1])
    assert layers["steps in conflict, up and down"].tolist() == [1, 1]


def test_the_figures_are_by_layer_and_time(result, experiment):
    assert [one.key for one in result.figures] == ["terms-halves", "term-cosines-halves"]
    assert result.figures[0].title == "up has 75.0 % of the gradient of halves"
    assert result.figures[1].title == "up and down pull against each other"
    reduced = network_terms("halves", list(experiment.runs))
    panels = draw_shares(reduced).axes[:2]
    assert [axis.get_title() for axis in panels] == ["up", "down"]
    for axis, share in zip(panels, (0.75, 0.25), strict=True):
        (mesh,) = axis.collections
        values = np.asarray(mesh.get_array())
        assert values.shape == (2, MAX_COLUMNS)
        assert values.ravel() == pytest.approx(share)
    assert draw_cosines(reduced).axes[0].get_title() == "up and down"


def test_terms_that_are_not_the_loss_are_named(tmp_path):
    def with_a_term_too_much(y):
        return {"up": 2 * y.mean(), "more": y.mean()}

    with pytest.warns(UserWarning, match="do not add up"):
        experiment = trained(tmp_path / "run", with_a_term_too_much, left_out="more")
    assert "The terms of halves do not add up to its loss" in ANALYSIS.run(experiment).summary


def test_a_run_without_terms_says_how_to_give_them(tmp_path):
    experiment = trained(tmp_path / "run", lambda y: {})
    with pytest.raises(NotApplicableError, match=r"call Tracer\.terms before the backward pass"):
        ANALYSIS.run(experiment)
