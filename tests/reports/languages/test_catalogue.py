"""Catalogues: what they must hold, and what is said where they hold it not."""

import pytest

from analyses.wording.numbers import number, percent, with_interval
from analyses.wording.phrases import listing, plural, with_network
from analyses.wording.translatable import Joined, Numeral, Said
from gradflow.errors import ConfigurationError
from reports.languages import catalogue
from reports.languages.__main__ import missing
from reports.languages.catalogue import Catalogue, catalogue_of, languages

INDONESIAN = catalogue_of("id")
OTHERS = [one for one in languages() if one != "en"]


@pytest.mark.parametrize("language", OTHERS)
def test_a_catalogue_holds_every_text_with_the_same_places(language):
    # A new sentence is translated with the change that brings it: docs/howto/translate.md.
    assert missing(language) == []


def test_numbers_have_the_signs_of_the_language():
    assert INDONESIAN.say(number(12345.6)) == "12.346"
    assert INDONESIAN.say(number(0.25)) == "0,25"
    assert INDONESIAN.say(number(-1.5e-7)) == "-1,5e-7"
    assert INDONESIAN.say(percent(0.4327)) == "43,3%"
    assert INDONESIAN.say(with_interval(54.3, 51.2, 57.9, "%")) == (
        "54,3% (interval 95%: 51,2 sampai 57,9)"
    )


def test_lists_and_counts_are_those_of_the_language():
    assert INDONESIAN.say(listing(["a", "b"])) == "a dan b"
    assert INDONESIAN.say(listing(["a", "b", "c"])) == "a, b, dan c"
    assert INDONESIAN.say(plural(1234, "epoch")) == "1.234 epoch"


def test_a_name_is_never_translated():
    for name in ("yes", "supported", "1.5", "Network", "{network}"):
        text = with_network("The gradients[ of {}] vanish toward the input.", name)
        assert INDONESIAN.say(text) == f"Gradien {name} menghilang ke arah masukan."


def test_a_sentence_with_an_unknown_part_is_english_as_a_whole():
    clause = Said("no catalogue has this clause")
    text = Said("In {place} {clause}", place="a", clause=clause)
    assert INDONESIAN.say(text) == "In a no catalogue has this clause"
    assert not INDONESIAN.holds(text)
    # Sentences one after another stand on their own.
    assert INDONESIAN.say(Joined((text, Said("yes")))) == f"{text} ya"


def test_what_is_said_is_an_ordinary_text():
    for text in (Said("yes"), Said("unknown"), Numeral("1.5"), "unknown"):
        assert type(INDONESIAN.say(text)) is str


def test_english_needs_no_catalogue():
    text = with_interval(54.3, 51.2, None, "points")
    assert catalogue_of("en") == Catalogue()
    assert catalogue_of("en").say(text) == text


@pytest.mark.parametrize("language", ["xx", "", "../id", "ID"])
def test_an_unknown_language_is_refused_with_those_there_are(language):
    with pytest.raises(ConfigurationError, match="choose from en, id"):
        catalogue_of(language)


def test_a_translation_that_loses_a_place_is_not_used(tmp_path, monkeypatch):
    header = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\n'
    entries = (
        'msgid "Table {number}"\nmsgstr "Tabelle"\n\n'
        'msgid "Figure {number}"\nmsgstr "Bild {number}"\n\n'
        '#, fuzzy\nmsgid "yes"\nmsgstr "vielleicht"\n'
    )
    (tmp_path / "de.po").write_text(header + entries, encoding="utf-8")
    monkeypatch.setattr(catalogue, "CATALOGUES", tmp_path)
    german = catalogue_of("de")
    assert german.say(Said("Table {number}", number="1")) == "Table 1"
    assert german.say(Said("Figure {number}", number="1")) == "Bild 1"
    assert german("yes") == "yes"
    assert german.say(percent(0.5)) == "50,0\u00a0%"
    assert missing("de")
