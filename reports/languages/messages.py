"""Lists what a report says in fixed words: the texts that a catalogue must hold.

They are read from the sources, so that a new sentence is missed as soon as it is written:

- what `Said`, `message`, a catalogue (`words`) or a template's `_` and `t` is given as a literal;
- nouns that `plural` counts, names and units of estimates, titles and heads of tables;
- hypotheses with a name in brackets (`analyses.wording.phrases.with_network`);
- every text of the modules that hold nothing else, such as those of the story and the glossary.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from analyses.health.conditions import CONDITIONS
from analyses.registry import built_in
from analyses.result import LOOK_ELSEWHERE, Verdict
from analyses.wording.phrases import named_template, nameless_template
from gradflow.runs.format.schema import TABLES
from reports.document.builder import SIGNS, SYMBOLS
from reports.document.methods import HEADINGS
from reports.document.primer import PRIMER
from reports.document.sections import IN_THE_ANSWER
from reports.document.shortcuts import BY_STEP, EXPLORER, WANTED
from reports.document.story import sentences
from reports.document.summary import FULLER, STATUS_WORDS
from reports.document.tour import QUESTIONS
from reports.document.wording import MONTHS
from reports.elements import ALL_NETWORKS
from reports.languages.catalogue import has_words

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("analyses", "reports")
# The calls whose first argument is a text to be translated.
_SAYING = {"Said", "message", "words", "_"}
_IN_TEMPLATE = re.compile(r"""\b(?:_|t)\("((?:[^"\\]|\\.)+)"\)""")
_WITH_NETWORK = re.compile(r"\[[^\]{}]*\{\}[^\]{}]*\]")


# Heads that are made of parts, or are columns of a table that pandas makes.
_FURTHER_HEADS = (
    "skip at its input", "branch at its input", "last training loss (nats)",
    "last validation loss (nats)", "last training accuracy", "last validation accuracy",
    "best validation accuracy", "new bests at", "running", "re-estimated", "band low", "band high",
    "part", "Spearman rho", "curvature", "factor per layer", "gradients are", "sets", "candidate",
    "unit", "rho with accuracy", "runs",
)  # fmt: skip


@cache
def messages() -> dict[str, str]:
    """Each English text that must be in a catalogue, and where it is said."""
    found: dict[str, str] = {}
    for where, text in (*_of_modules(), *_of_templates(), *_of_sources()):
        if has_words(text):
            found.setdefault(text, where)
    return found


def _of_modules() -> Iterator[tuple[str, str]]:
    for name, value in vars(sentences).items():
        if name.isupper():
            one_or_more = value.values() if isinstance(value, dict) else [value]
            yield from (("the first page", one) for one in one_or_more if type(one) is str)
    yield from (("verdicts", text) for one in Verdict for text in (one.answer, one.value))
    for part in PRIMER:
        yield from (("how to read a report", text) for text in (part.heading, part.text))
    for question in QUESTIONS:
        yield from (("the guided tour", text) for text in (question.text, question.look))
    yield from (("the first page", text) for text, _ in WANTED)
    yield from (("the first page", text) for text in BY_STEP.values())
    yield "the first page", EXPLORER
    for analysis in built_in():
        texts = (analysis.title, analysis.question, analysis.background)
        yield from ((f"the section {analysis.key}", text) for text in texts)
    for key, one in CONDITIONS.items():
        said = (one.holds, one.fails, one.unknown, one.link, one.next_step)
        yield from ((f"the condition {key}", text) for text in said)
    general = (
        ALL_NETWORKS,
        SIGNS,
        SYMBOLS,
        IN_THE_ANSWER,
        LOOK_ELSEWHERE,
        *HEADINGS,
        *MONTHS,
        *STATUS_WORDS.values(),
    )
    yield from (("the document", text) for text in general)
    yield from (("the document", has) for _, has in FULLER.values())
    yield from (("heads of tables", text) for text in _FURTHER_HEADS)
    for table in TABLES.values():
        yield "the glossary", table.row_meaning
        for term in table.columns:
            yield from (("the glossary", text) for text in (term.unit, term.formula))


def _of_templates() -> Iterator[tuple[str, str]]:
    for folder in ("html", "pdf"):
        for path in sorted((_ROOT / "reports" / folder / "templates").iterdir()):
            if path.suffix in (".j2", ".typ"):
                for text in _IN_TEMPLATE.findall(path.read_text(encoding="utf-8")):
                    yield path.name, text


def _of_sources() -> Iterator[tuple[str, str]]:
    for package in _PACKAGES:
        for path in sorted((_ROOT / package).rglob("*.py")):
            where = path.relative_to(_ROOT).as_posix()
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                yield from ((where, text) for text in _said_at(node))
                if package == "analyses":
                    yield from (("heads of tables", text) for text in _heads_at(node))


def _said_at(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant):
        text = node.value if isinstance(node.value, str) else ""
        if _WITH_NETWORK.search(text) and not set("\n`") & set(text):
            yield from (named_template(text), nameless_template(text))
        return
    if not isinstance(node, ast.Call) or not node.args:
        return
    called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    name = node.func.id if isinstance(node.func, ast.Name) else called
    if name in _SAYING:
        # The place of a lead: see `analyses.wording.sentences.sentence`.
        yield from (text.replace("{}", "{amounts}") for text in _literals(node.args[0]))
    elif name == "plural" and len(node.args) == 2:
        for noun in _literals(node.args[1]):
            ending = "es" if noun.endswith("s") else "s"
            yield from (f"{{count}} {noun}", f"{{count}} {noun}{ending}")
    elif name in ("Estimate", "estimate_of", "share_of"):
        yield from _literals(node.args[0])
        yield from (text for one in node.keywords if one.arg == "unit" for text in _literals(one))
        unit = 4 if name == "Estimate" else 2
        yield from (text for one in node.args[unit : unit + 1] for text in _literals(one))
    elif name == "Reading" and len(node.args) > 2:
        yield from _literals(node.args[2])
    elif name == "Table" and len(node.args) > 1:
        yield from _literals(node.args[1])


def _heads_at(node: ast.AST) -> Iterator[str]:
    """Heads of tables: keys of what becomes a row or a table, and what columns are renamed to."""
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        if node.targets[0].id in ("names", "columns") and isinstance(node.value, ast.Dict):
            values = [one for one in node.value.values if one is not None]
            yield from (text for one in values for text in _literals(one) if " " in text)
        if node.targets[0].id in ("rows", "row", "columns"):
            yield from _keys_in(node.value)
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("pd.DataFrame", "rows.append"):
        yield from _keys_in(*node.args)


def _keys_in(*nodes: ast.AST) -> Iterator[str]:
    for node in nodes:
        for one in ast.walk(node):
            if isinstance(one, ast.Dict):
                heads = [text for key in one.keys if key is not None for text in _literals(key)]
                yield from (text for text in heads if "_" not in text)


def _literals(node: ast.AST) -> Iterator[str]:
    """The texts that `node` can be: one, or two of which a condition chooses."""
    if isinstance(node, ast.keyword):
        yield from _literals(node.value)
    elif isinstance(node, ast.IfExp):
        yield from (*_literals(node.body), *_literals(node.orelse))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
