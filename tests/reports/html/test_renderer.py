"""The HTML file: self-contained, well ordered, and closed to foreign scripts and styles."""

import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise

import pytest

from reports.document.builder import build_document
from reports.document.primer import PRIMER
from reports.elements import EstimateRow
from reports.html.renderer import render_html
from reports.html.scripts import content_security_policy, data_block


@pytest.fixture(scope="module")
def document(experiment, outcomes):
    return build_document(experiment, outcomes)


@pytest.fixture(scope="module")
def page(document, page_of):
    return page_of(render_html(document))


def sources(page, name: str) -> list[str]:
    return [attributes[name] for _, attributes in page.tags if name in attributes]


def test_page_refers_to_nothing_outside_itself(document, page):
    assert not {"link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    assert sources(page, "src")
    assert all(source.startswith("data:") for source in sources(page, "src"))
    assert b"url(" not in render_html(document)
    assert b"@import" not in render_html(document)


def test_every_link_leads_to_one_place_in_the_page(page):
    ids = sources(page, "id")
    assert len(ids) == len(set(ids))
    assert {link.removeprefix("#") for link in sources(page, "href")} <= set(ids)


def test_headings_never_skip_a_level(page):
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_no_element_has_an_event_handler_or_a_style_of_its_own(page):
    names = {name for _, attributes in page.tags for name in attributes}
    assert not {name for name in names if name.startswith("on") or name == "style"}


def hashes(content: str, element: str) -> set[str]:
    texts = re.findall(rf"<{element}>(.*?)</{element}>", content, re.DOTALL)
    return {f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in texts}


def test_policy_allows_the_scripts_and_the_style_of_the_page_and_no_others(document, page_of):
    # A browser hashes the text between the tags.
    content = render_html(document).decode()
    found = [a["content"] for _, a in page_of(content.encode()).tags if "http-equiv" in a]
    rules = dict(rule.split(" ", 1) for rule in found[0].split("; "))
    assert set(rules["script-src"].split()) == hashes(content, "script")
    assert set(rules["style-src"].split()) == hashes(content, "style")
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"


def test_policy_without_scripts_lets_none_run():
    assert "script-src 'none'; style-src 'none'" in content_security_policy([], [])


def test_data_block_cannot_be_closed_by_its_content():
    block = str(data_block('{"name": "</script><script>alert(1)</script>"}', "explorer-data"))
    assert block.count("</script>") == 1
    assert block.count("<script") == 1


def test_section_begins_with_its_heading_and_background(document, page):
    section = document.sections[0]
    assert section.background == "Paired runs saw the same images."
    places = [
        page.text.index(part)
        for part in (
            f"\n{section.heading}\n{section.question}",
            section.background,
            section.claims[0].findings[0].meaning,
        )
    ]
    assert places == sorted(places)
    assert all(part.text in page.text for part in PRIMER)


def test_estimates_of_all_networks_stand_side_by_side(document, page_of):
    claim = document.sections[1].claims[0]
    first, second = claim.findings
    shared, own = EstimateRow("shared", "8 (no interval)", "x"), EstimateRow("own", "9", "y")
    findings = (replace(first, estimates=(shared,)), replace(second, estimates=(own, shared)))
    claim = replace(claim, findings=findings)
    section = replace(document.sections[1], claims=(claim,))
    content = render_html(replace(document, sections=(section,))).decode()
    table = re.search(r'<table class="estimates">(.*?)</table>', content, re.DOTALL)[1]
    heads = re.findall(r'<th scope="col">(.*?)</th>', table)
    assert heads == ["Estimate", "plain34", "resnet34"]
    cells = [
        re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<td>(.*?)</td>", table, re.DOTALL)
    ]
    assert [cell.strip() for cell in cells] == ["8 (no interval)", "8 (no interval)", "", "9"]


def test_estimates_with_no_names_in_common_stand_below_each_other(document):
    claim = document.sections[1].claims[0]
    findings = tuple(
        replace(finding, estimates=(EstimateRow(f"of {finding.line.network}", "1", ""),))
        for finding in claim.findings
    )
    section = replace(document.sections[1], claims=(replace(claim, findings=findings),))
    content = render_html(replace(document, sections=(section,))).decode()
    table = re.search(r'<table class="estimates">(.*?)</table>', content, re.DOTALL)[1]
    cells = re.findall(r"<t[hd](?: [^>]*)?>(.*?)</t[hd]>", table, re.DOTALL)
    rows = [re.sub(r"<[^>]*>", "", cell).strip() for cell in cells]
    assert rows[:3] == ["Estimate", "Network", "Number"]
    assert rows[3:] == ["of plain34", "plain34", "1", "of resnet34", "resnet34", "1"]


def test_all_estimates_with_the_same_name_are_shown(document):
    claim = document.sections[1].claims[0]
    rows = (EstimateRow("ratio", "123.4", "x"), EstimateRow("ratio", "567.8", "y"))
    claim = replace(claim, findings=(replace(claim.findings[0], estimates=rows),))
    section = replace(document.sections[1], claims=(claim,))
    content = render_html(replace(document, sections=(section,)))
    assert b"123.4" in content
    assert b"567.8" in content


def test_evidence_shown_earlier_is_linked(document):
    claims = document.sections[0].claims
    assert claims[1].shown_before == ("Figure 1",)
    content = render_html(document).decode()
    assert content.count('<a href="#figure-1">Figure 1</a>') == 2
    assert content.count('id="figure-1"') == 1
