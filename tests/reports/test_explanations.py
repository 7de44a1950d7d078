"""A newcomer finds a sentence on the subject of every analysis of gradflow's own."""

from analyses.registry import BUILT_IN, COMPARING
from reports.explanations import explanation_of


def test_every_analysis_with_a_section_is_explained_in_one_sentence():
    # The overview is the opening picture and has no section.
    texts = {key: explanation_of(key) for key in {*BUILT_IN, *COMPARING} - {"overview"}}
    assert [key for key, text in texts.items() if not text] == []
    assert [key for key, text in texts.items() if text[-1] != "." or ". " in text] == []


def test_analysis_of_a_third_party_is_not_explained():
    assert explanation_of("third_party") == ""
