"""Escapes texts for GitHub Flavored Markdown, so that they appear literally and link to nothing.

Beside the markup of CommonMark and its table and strikethrough extensions, GitHub converts web and
mail addresses, names after @, numbers after #, commit hashes, emoji :names: and formulas between
dollars. It does so after the markup is processed, so a backslash does not prevent it; a zero-width
space inside the pattern does.
"""

import re
from html import escape

LONGEST_TEXT = 2_000  # characters of one text; a longer text is shortened
ZERO_WIDTH_SPACE = "\u200b"
# Line ends and other controls would start a block, end a table row, or reverse the text direction.
_SPACES = re.compile(r"[ \t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_PUNCTUATION = re.compile(r"[\\`*_{}\[\]<>#|~&]")
# Markup only at the start of a line: lists, underlined headings, rules.
_NUMBERED_ITEM = re.compile(r"^(\d{1,9})([.)])(?=\s|$)")
_LINE_START_MARKUP = re.compile(r"^([-+](?=[\s-]|$)|=)")
_LINK_TRIGGERS = (
    (re.compile(r"@(?=\w)"), f"@{ZERO_WIDTH_SPACE}"),
    (re.compile(r"#(?=\d)"), f"#{ZERO_WIDTH_SPACE}"),
    (re.compile(r"\b(gh)-(?=\d)", re.IGNORECASE), rf"\1-{ZERO_WIDTH_SPACE}"),
    (re.compile(r":(?=[\w+-]+:)"), f":{ZERO_WIDTH_SPACE}"),
    (re.compile(r":(?=//)"), f":{ZERO_WIDTH_SPACE}"),
    (re.compile(r"(www)\.", re.IGNORECASE), rf"\1{ZERO_WIDTH_SPACE}."),
)
_HASH = re.compile(r"\b[0-9a-f]{7,40}\b", re.IGNORECASE)
_SIX_CHARACTERS = re.compile(r".{6}(?=.)")
# GitHub's documented way to write a dollar sign that does not start a formula.
_DOLLAR = "<span>$</span>"


def escape_inline(text: str) -> str:
    """Escape `text` for a line of Markdown, or for a whole paragraph, list item or cell."""
    escaped = _PUNCTUATION.sub(r"\\\g<0>", _without_active_text(text))
    escaped = _LINE_START_MARKUP.sub(r"\\\1", _NUMBERED_ITEM.sub(r"\1\\\2", escaped))
    return escaped.replace("$", _DOLLAR)


def escape_in_html(text: str) -> str:
    """Escape `text` for an HTML element, in which Markdown is not read."""
    return escape(_without_active_text(text)).replace("$", _DOLLAR)


def _without_active_text(text: str) -> str:
    """`text` on one line, without control characters or anything that GitHub turns into a link."""
    flat = _CONTROLS.sub("\ufffd", _SPACES.sub(" ", text).strip())
    if len(flat) > LONGEST_TEXT:
        flat = f"{flat[:LONGEST_TEXT]} … (shortened)"
    for pattern, replacement in _LINK_TRIGGERS:
        flat = pattern.sub(replacement, flat)
    return _HASH.sub(lambda found: _SIX_CHARACTERS.sub(rf"\g<0>{ZERO_WIDTH_SPACE}", found[0]), flat)
