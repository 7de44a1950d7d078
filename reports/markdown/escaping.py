"""Escapes texts for GitHub Flavored Markdown, so that each shows as it is and does nothing.

Beside the markup of CommonMark and its table and strikethrough extensions, GitHub makes links of
web and mail addresses, and turns names after @, numbers after #, hashes of commits, :names: of
pictures and formulas between dollars into something else. None of these heed a backslash, since
they look at the text after the markup is gone: a zero-width space parts what they look for.
"""

import re
from html import escape

LONGEST_TEXT = 2_000  # characters of one text: a longer one is no sentence
ZERO_WIDTH_SPACE = "\u200b"
# Line ends and other controls would start a new block, end a table's row, or turn the text around.
_SPACES = re.compile(r"[ \t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_PUNCTUATION = re.compile(r"[\\`*_{}\[\]<>#|~&]")
# Only at the start of a line are these markup: lists, headings underlined, rules.
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
# What GitHub's manual prescribes for a dollar that opens no formula.
_DOLLAR = "<span>$</span>"


def escape_inline(text: str) -> str:
    """`text` within a line of Markdown, or as a paragraph, item or cell of its own."""
    escaped = _PUNCTUATION.sub(r"\\\g<0>", _without_active_text(text))
    escaped = _LINE_START_MARKUP.sub(r"\\\1", _NUMBERED_ITEM.sub(r"\1\\\2", escaped))
    return escaped.replace("$", _DOLLAR)


def escape_in_html(text: str) -> str:
    """`text` within an element of HTML, where no Markdown is read."""
    return escape(_without_active_text(text)).replace("$", _DOLLAR)


def _without_active_text(text: str) -> str:
    """`text` on one line, without controls, and with nothing that becomes a link by itself."""
    flat = _CONTROLS.sub("\ufffd", _SPACES.sub(" ", text).strip())
    if len(flat) > LONGEST_TEXT:
        flat = f"{flat[:LONGEST_TEXT]} … (shortened)"
    for pattern, parted in _LINK_TRIGGERS:
        flat = pattern.sub(parted, flat)
    return _HASH.sub(lambda found: _SIX_CHARACTERS.sub(rf"\g<0>{ZERO_WIDTH_SPACE}", found[0]), flat)
