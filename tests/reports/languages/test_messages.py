"""Which texts a catalogue must hold: they are found where they are written."""

import ast

import pytest

from reports.languages import messages as module
from reports.languages.messages import messages


def said(source):
    return [text for node in ast.walk(ast.parse(source)) for text in module._said_at(node)]


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ('Said("In {a} it " "holds.", a=b)', ["In {a} it holds."]),
        ('words("yes" if found else "no")', ["yes", "no"]),
        ('plural(count, "class")', ["{count} class", "{count} classes"]),
        ('X = "The skips[ of {}] carry most."', [
            "The skips of {network} carry most.", "The skips carry most.",
        ]),
        ('LEAD = message("the share is {}")', ["the share is {amounts}"]),
        ('Estimate("a share", 1.0, None, None, "points")', ["a share", "points"]),
        ('estimate_of("a share", mean, unit="points")', ["a share", "points"]),
        ('Table("key", "A table", frame)', ["A table"]),
        ('unrelated("a text")', []),
        ('Said(template, a=b)', []),
    ],
)  # fmt: skip
def test_a_new_text_is_found_in_the_source(source, texts):
    assert said(source) == texts


def test_templates_the_story_and_the_glossary_are_searched():
    found = messages()
    for text in (
        "What was claimed, and what was found",  # of the page and the PDF
        "This is one training; another may differ.",
        "sqrt(sum(x^2) / M)",
        "The gradients of {network} vanish toward the input.",
        "Gradients by depth",
        "Take the tour",
        "can't tell",
    ):
        assert text in found, text
    assert not any("\n" in text for text in found)
