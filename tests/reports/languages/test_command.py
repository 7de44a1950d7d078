"""`python -m reports.languages`: begins a catalogue, and renews one without losing its texts."""

import pytest

from reports.languages import catalogue
from reports.languages.__main__ import main, missing, read
from reports.languages.messages import messages


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "CATALOGUES", tmp_path)
    return tmp_path


def test_a_new_catalogue_has_every_text_and_says_where_it_is_said(folder, capsys):
    assert main(["pt-BR"]) == 0
    content = (folder / "pt-BR.po").read_text(encoding="utf-8")
    assert "#. the glossary\n" in content
    assert len(missing("pt-BR")) == len(messages())
    assert f"{len(messages())} to translate" in capsys.readouterr().out
    assert catalogue.catalogue_of("pt-BR").decimal == ","


def test_a_renewed_catalogue_keeps_translations_and_drops_what_is_said_no_more(folder):
    main(["fr"])
    file = folder / "fr.po"
    content = file.read_text(encoding="utf-8")
    content = content.replace('msgid "yes"\nmsgstr ""', 'msgid "yes"\nmsgstr "oui"')
    file.write_text(f'{content}\nmsgid "gone"\nmsgstr "parti"\n', encoding="utf-8")
    assert main(["fr"]) == 0
    renewed = read("fr")
    assert renewed.get("yes").string == "oui"
    assert renewed.get("gone") is None


@pytest.mark.parametrize("arguments", [[], ["en"], ["no such language"]])
def test_what_is_no_language_is_refused(arguments, folder, capsys):
    assert main(arguments) == 1
    assert "language" in capsys.readouterr().out
    assert not list(folder.iterdir())
