"""How answers and written reports show themselves in a notebook."""

import re

import pytest

import gradflow


def words(content: str) -> str:
    return re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>", "", content))


@pytest.fixture
def made(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return gradflow.report(trained("vanishing"), formats="md,json", out=tmp_path / "out here")


def test_report_shows_its_answer_its_picture_and_links_to_its_files(made):
    content = made._repr_html_()
    assert made.document.question in words(content)
    assert "multiplied by" in words(content)
    assert content.count("<img ") == 1
    assert 'href="out%20here/report.md"' in content
    assert 'href="out%20here/report.json"' in content
    assert repr(made).startswith(f"WrittenReport({made.document.question!r}, ")


def test_answers_show_a_picture_and_the_findings_folded_after_the_first(made):
    content = made.answers._repr_html_()
    assert content.count("<img ") == 1
    assert content.count("<li>") == len(made.answers.findings)
    assert "! yes  (supported)" in words(content)


def test_cards_look_right_in_light_and_dark(made, trained, tmp_path, open_page):
    run = gradflow.open_run(trained("vanishing"))
    parts = [made, made.answers, run, made.answers.findings[0]]
    content = "".join(one._repr_html_() for one in parts)
    (tmp_path / "page.html").write_text(
        f"<!DOCTYPE html><meta charset=utf-8><body>{content}", encoding="utf-8"
    )
    for scheme in ("light", "dark"):
        page = open_page(
            tmp_path / "page.html", color_scheme=scheme, viewport={"width": 700, "height": 900}
        )
        assert page.locator(".gradflow-card").count() == len(parts)
        # Every picture has loaded, and nothing is wider than the page.
        assert page.evaluate("[...document.images].every(one => one.naturalWidth > 0)")
        assert page.evaluate("document.documentElement.scrollWidth") <= 700
