"""Every condition is whole: words, a bound, an answer from its own reader, and known effects."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch import nn

import gradflow
from analyses.health.conditions import CONDITIONS, Thresholds, ask_all
from analyses.wording.phrases import with_network, without_network


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradflow.Tracer(model, folder, optimizer=optimizer) as tracer:
        for _ in range(3):
            model(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    return gradflow.open_run(folder)


@pytest.mark.parametrize("key", CONDITIONS)
def test_a_condition_has_words_a_source_and_a_bound(key):
    one = CONDITIONS[key]
    assert one.key == key
    assert len({one.holds, one.fails, one.unknown}) == 3
    assert one.unknown.startswith("it cannot be told whether")
    assert with_network(one.hypothesis, "net") != without_network(one.hypothesis)
    assert one.contradicted_by.endswith(".")
    assert one.next_step.endswith(".")
    assert not one.to_ask or one.to_ask.endswith(".")
    assert one.source
    assert set(one.leads_to) <= set(CONDITIONS) - {key}
    assert not one.bound or hasattr(Thresholds(), one.bound)


def test_each_condition_has_a_row_in_the_docs():
    page = (Path(__file__).parents[4] / "docs" / "reference" / "analyses.md").read_text(
        encoding="utf-8"
    )
    section = page.partition("\n## health_check\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    assert {key for key in CONDITIONS if f"`{key}`" not in " ".join(rows)} == set()


def test_each_bound_is_explained_where_it_is_declared():
    for base in Thresholds.__mro__:
        for name in vars(base).get("__annotations__", {}):
            assert name in base.__doc__, (base, name)
    assert {one.bound for one in CONDITIONS.values()} <= {
        "", *(field.name for field in fields(Thresholds))
    }  # fmt: skip


def test_a_reader_answers_the_conditions_that_name_it_and_no_others(run):
    for read in {one.read for one in CONDITIONS.values()}:
        own = [key for key, one in CONDITIONS.items() if one.read is read]
        assert sorted(answer.condition for answer in read(run, Thresholds())) == sorted(own)


def test_each_condition_is_asked_or_has_a_reason(run):
    answers = ask_all(run)
    asked = [one.condition for one in answers.readings]
    reasons = {one.condition: one.reason for one in answers.not_asked}
    assert sorted([*asked, *reasons]) == sorted(CONDITIONS)
    assert asked == [key for key in CONDITIONS if key in asked]
    assert reasons["not-learning"] == "no loss was logged"
    assert reasons["saturated"] == "no layer is a tanh or sigmoid"
    assert not next(one for one in answers.not_asked if one.condition == "saturated").applies
    assert all(CONDITIONS[one.condition].to_ask for one in answers.not_asked if one.applies)
    assert reasons["shattered"] == "the probe of shattering did not run"
