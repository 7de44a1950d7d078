"""Reports of all lengths: what each holds, how long it is, and that nothing is said twice."""

import re
from dataclasses import replace
from io import BytesIO

import pytest
import torch
from pypdf import PdfReader
from torch import nn

import gradflow
from analyses.registry import run_all
from analyses.result import Length
from gradflow.errors import ConfigurationError
from gradflow.runs.reading.run import open_experiment
from reports.document.builder import build_document
from reports.document.selection import figures_shown, parse_length
from reports.document.topics import links_of
from reports.elements import Document
from reports.html.renderer import render_html
from reports.pdf.renderer import render_pdf


class Stack(nn.Module):
    """Three linear layers by names of its owner's; `frozen` is never given to an optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.frozen, self.leave = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.leave(torch.tanh(self.frozen(torch.tanh(self.enter(x)))))


def train(folder, *, ill: bool) -> None:
    torch.manual_seed(0)
    model = Stack()
    trained = [p for name, p in model.named_parameters() if not (ill and "frozen" in name)]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    inputs = torch.randn(64, 8)
    targets = inputs[:, :3].argmax(1)
    groups = {"ends": ["enter", "leave"]}
    with gradflow.Tracer(model, folder, optimizer=optimizer, groups=groups) as tracer:
        for _ in range(2):
            for _ in range(20):
                optimizer.zero_grad()
                given = inputs + 1e-4 * torch.randn_like(inputs)  # no two batches are the same
                loss = nn.functional.cross_entropy(model(given), targets)
                loss.backward()
                tracer.log(loss=loss)
                optimizer.step()
            tracer.end_epoch(train_loss=loss.item())


def not_drawn(_) -> str:
    return "not drawn here"


@pytest.fixture(scope="module")
def ill(tmp_path_factory) -> dict[Length, Document]:
    folder = tmp_path_factory.mktemp("own") / "stack"
    train(folder, ill=True)
    experiment = open_experiment(folder)
    outcomes = run_all(experiment)
    return {
        length: build_document(experiment, outcomes, length=length)
        for length in (Length.SUMMARY, Length.STANDARD, Length.FULL)
    }


@pytest.fixture(scope="module")
def well(tmp_path_factory) -> dict[Length, Document]:
    folder = tmp_path_factory.mktemp("own") / "stack"
    train(folder, ill=False)
    experiment = open_experiment(folder)
    document = build_document(
        experiment, run_all(experiment), None, not_drawn, length=Length.STANDARD
    )
    return {Length.STANDARD: document}


def pages_of(document: Document) -> int:
    return len(PdfReader(BytesIO(render_pdf(document))).pages)


def numbers_of(document: Document) -> dict[str, list[str]]:
    return {card.statement: [line.number for line in card.lines] for card in document.verdicts}


def claims_of(document: Document) -> dict[str, tuple]:
    return {
        claim.heading: tuple(finding.estimates for finding in claim.findings)
        for section in document.sections
        for claim in section.claims
    }


def addresses_in(reader: PdfReader) -> set[str]:
    """The addresses that a PDF links to."""
    actions = [
        one.get_object().get("/A", {}).get("/URI")
        for page in reader.pages
        for one in page.get("/Annots", [])
    ]
    return {str(one) for one in actions if one}


def sentences_of(document: Document) -> list[str]:
    """Every sentence of the sections, of some length: short ones may well come again."""
    texts = []
    for section in document.sections:
        texts += [section.summary, section.background, *section.caveats, *section.next_steps]
        for claim in section.claims:
            texts += [*claim.threshold, *claim.contradicted_by, *claim.caveats, *claim.next_steps]
            texts += [finding.meaning for finding in claim.findings]
    texts += [one.text for one in document.answer]
    sentences = [part for text in texts for part in re.split(r"(?<=[.?!]) ", text)]
    return [one for one in sentences if len(one) > 40]


def test_a_summary_has_two_pages_and_a_longer_report_more(ill):
    summary, standard, full = (pages_of(ill[length]) for length in sorted(ill))
    assert summary <= 2
    assert summary < standard <= 16
    assert standard < full


def test_all_lengths_have_the_same_numbers(ill):
    standard, full = ill[Length.STANDARD], ill[Length.FULL]
    assert numbers_of(ill[Length.SUMMARY]) == numbers_of(standard) == numbers_of(full)
    assert claims_of(standard).items() <= claims_of(full).items()
    assert [one.text for one in standard.answer] == [one.text for one in full.answer]


def test_a_shorter_report_holds_less_and_says_how_to_get_more(ill):
    figures = {
        length: sum(len(section.all_figures) for section in one.sections)
        for length, one in ill.items()
    }
    assert figures[Length.SUMMARY] < figures[Length.STANDARD] < figures[Length.FULL]
    assert "--length standard" in ill[Length.SUMMARY].fuller
    assert "--length full" in ill[Length.STANDARD].fuller
    assert ill[Length.FULL].fuller == ""


def test_no_figure_is_drawn_that_is_not_shown(outcomes):
    (first, *_), answered = outcomes[0].result.figures, outcomes[0]
    hidden = replace(first, length=Length.FULL)
    result = replace(answered.result, figures=(hidden, *answered.result.figures[1:]))
    shown = figures_shown(replace(answered, result=result), Length.STANDARD)
    assert hidden not in shown
    assert len(shown) == len(result.figures) - 1


@pytest.mark.parametrize("length", [Length.STANDARD, Length.FULL])
def test_links_lead_to_what_the_report_holds(ill, length, page_of):
    page = page_of(render_html(ill[length]))
    targets = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = [attributes.get("href") or "" for tag, attributes in page.tags if tag == "a"]
    assert {link[1:] for link in links if link.startswith("#")} <= targets


def test_links_of_a_summary_lead_into_the_longer_page_beside_it(experiment, outcomes, page_of):
    full = page_of(render_html(build_document(experiment, outcomes)))
    targets = {attributes["id"] for _, attributes in full.tags if "id" in attributes}
    summary = build_document(
        experiment, outcomes, length=Length.SUMMARY, longer="report.html", picture_of=not_drawn
    )
    page = page_of(render_html(summary))
    links = {attributes.get("href") or "" for tag, attributes in page.tags if tag == "a"}
    outside = {link.partition("#")[2] for link in links if link.startswith("report.html#")}
    # The explorer is made of a recording; here is none.
    outside -= {"explorer"}
    assert {card.anchor.partition("#")[2] for card in summary.cards} <= outside <= targets
    reader = PdfReader(BytesIO(render_pdf(summary)))
    assert {f"report.html#{anchor}" for anchor in outside} <= addresses_in(reader)


@pytest.mark.parametrize(
    ("length", "page"), [(Length.STANDARD, ""), (Length.SUMMARY, "report.html#")]
)
def test_a_claim_that_is_left_out_is_linked_to_its_section(experiment, outcomes, length, page):
    answered = next(one for one in outcomes if one.result and one.result.findings)
    hidden = tuple(replace(one, length=Length.FULL) for one in answered.result.findings)
    changed = replace(answered, result=replace(answered.result, findings=hidden))
    links = links_of(
        [changed if one is answered else one for one in outcomes], length, page.removesuffix("#")
    )
    (section,) = {
        links[answered.key, topic] for topic in ("", *(finding.topic for finding in hidden))
    }
    assert section.startswith(f"{page}section-")


def test_a_summary_alone_has_no_links_that_lead_nowhere(experiment, outcomes):
    summary = build_document(experiment, outcomes, length=Length.SUMMARY, picture_of=not_drawn)
    assert {card.anchor for card in summary.cards} == {""}
    assert summary.shortcuts == ()


@pytest.mark.parametrize("kind", ["ill", "well"])
def test_no_sentence_is_said_twice(kind, request):
    sentences = sentences_of(request.getfixturevalue(kind)[Length.STANDARD])
    assert sorted({one for one in sentences if sentences.count(one) > 1}) == []


def test_an_own_run_says_what_is_wrong_where_since_when_and_what_to_do(ill):
    document = ill[Length.STANDARD]
    assert document.question == (
        "Is something wrong in the training of Stack: what, where, and since when?"
    )
    told = document.answer[0].text
    assert "frozen" in told
    assert "never updated" in told
    assert "from the first to the last steps" in told
    assert any("optimizer" in one for one in document.to_do)
    assert "not-updated from step 0 on" in document.overview_figure.title


def test_an_own_run_in_which_nothing_is_wrong_says_so(well):
    document = well[Length.STANDARD]
    (told,) = document.answer
    assert told.text.startswith("Nothing was found")
    assert document.cards == ()
    health = next(one for one in document.sections if "Health" in one.heading)
    assert len(health.claims) == 1


def test_accuracy_is_not_asked_about_where_none_was_recorded(well, ill):
    for document in (*well.values(), *ill.values()):
        assert "accuracy" not in document.question


def test_what_was_not_asked_is_one_list_with_what_would_have_to_be_recorded(well, page_of):
    document = well[Length.STANDARD]
    assert not any(section.notice for section in document.sections)
    listed = [name for one in document.unanswered for name in one.questions]
    assert "Deleted blocks" in listed
    assert "shattered" in listed
    assert all(one.reason for one in document.unanswered)
    text = page_of(render_html(document)).text
    assert text.count("What was not asked") == 2  # in the contents, and above the list


def test_the_explorer_of_an_own_run_goes_by_named_layer_and_step(well):
    data = well[Length.STANDARD].explorer.data
    assert '"time":"step"' in data
    assert '"named":true' in data
    assert '"enter"' in data


def test_an_unknown_length_is_an_error_that_names_the_choices():
    with pytest.raises(ConfigurationError, match="choose from summary, standard, full"):
        parse_length("long")
