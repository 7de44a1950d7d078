"""Keeps the catalogues: `python -m reports.languages LANGUAGE` writes or renews one.

It needs the sources, which an editable install has: see docs/howto/translate.md.
"""

import sys
from collections.abc import Sequence

from babel.core import UnknownLocaleError
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po, write_po

from reports.languages.catalogue import ENGLISH, catalogue_file, same_places
from reports.languages.messages import messages

_HEADER = (
    "# Texts of gradflow's reports.\n"
    "# Places in braces keep their names. What has no translation stays English."
)


def main(argv: Sequence[str]) -> int:
    """Write or renew the catalogue of each language named in `argv`; 1 if one cannot be."""
    if not argv or ENGLISH in argv:
        print("name a language by its code, such as fr or pt-BR; English is in the sources")
        return 1
    for language in argv:
        try:
            catalogue = _renewed(language)
        except (UnknownLocaleError, ValueError) as error:
            print(f"{language!r} is no language that is known: {error}")
            return 1
        with catalogue_file(language).open("wb") as file:
            write_po(file, catalogue, width=100, sort_output=False, ignore_obsolete=True)
        wanting = missing(language)
        print(f"{catalogue_file(language)}: {len(catalogue)} texts, {len(wanting)} to translate")
    return 0


def missing(language: str) -> list[str]:
    """The texts that the catalogue of `language` lacks, or whose places it has changed."""
    known = {str(one.id): one for one in read(language)}
    return [
        text
        for text in messages()
        if (one := known.get(text)) is None
        or not one.string
        or one.fuzzy
        or not same_places(text, str(one.string))
    ]


def read(language: str) -> Catalog:
    """The catalogue as it is; an empty one if there is none yet."""
    file = catalogue_file(language)
    if not file.exists():
        return Catalog(locale=language.replace("-", "_"))
    with file.open("rb") as content:
        return read_po(content, locale=language.replace("-", "_"))


def _renewed(language: str) -> Catalog:
    """The catalogue with all present texts, and the translations that it has of them."""
    before = read(language)
    renewed = Catalog(
        locale=language.replace("-", "_"),
        project="gradflow",
        header_comment=_HEADER,
        creation_date=before.creation_date,
        revision_date=before.revision_date,
        last_translator=before.last_translator or "",
        language_team=before.language_team or "",
    )
    for text, where in messages().items():
        own = before.get(text)
        renewed.add(
            text,
            str(own.string) if own is not None else "",
            auto_comments=[where],
            flags=own.flags if own is not None else (),
        )
    return renewed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
