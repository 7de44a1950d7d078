"""Where else the numbers went: links and commands, in every format, whatever run.json says."""

import json
import re
import shlex
from io import BytesIO, StringIO
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from markdown_it import MarkdownIt
from pypdf import PdfReader
from rich.console import Console

import reports
from gradflow.runs.reading.run import open_experiment
from gradflow.runs.writing.run import ExperimentWriter, RunWriter
from reports.document.builder import build_document
from reports.document.destinations import destinations_of, web_address
from reports.html.renderer import render_html
from reports.json.renderer import render_json
from reports.markdown.renderer import render_markdown
from reports.pdf.renderer import render_pdf
from reports.terminal import answer_text

PAGE = "https://wandb.ai/me/mine/runs/ab12"
SINKS = [
    {"kind": "TensorBoard", "place": "logs", "path": "tensorboard", "prefix": "gradflow"},
    {"kind": "W&B", "place": PAGE, "address": PAGE, "dropped_steps": 48},
    {"kind": "MLflow", "place": "mlruns, run 1", "path": "../../my runs", "problem": "OSError: no"},
    {"kind": "Trackio", "place": "project mine, run a", "project": "mine", "run": "a"},
]
JAVASCRIPT = "javascript:alert(document.domain)"
HOSTILE = [
    {"kind": "W&B", "place": JAVASCRIPT, "address": JAVASCRIPT, "path": JAVASCRIPT},
    {"kind": "<b>", "place": "<script>alert(1)</script>", "path": "a\x1b[2J\u202eb"},
    {"kind": "W&B", "place": "x", "address": "https://wandb.ai@evil.example/", "path": "/etc"},
    {"kind": "TensorBoard", "place": 3, "path": "x; rm -rf ~ #", "prefix": None},
    {"kind": "Trackio", "place": ["a"], "project": "--x=$(reboot)", "path": "a\\b"},
    {"kind": "Aim", "address": {"a": 1}, "path": "//host/share", "earlier_paths": 3},
    {"kind": "MLflow", "address": "https://[", "path": "--host=0.0.0.0"},
    {
        "kind": "W&B",
        "address": 'https://x.example/"onmouseover="alert(1)',
        "earlier_paths": ["../a"],
    },
    {},
]


def write(folder, sinks, names=("plain20-seed1",)):
    ExperimentWriter(folder, {"runs": list(names)})
    for name in names:
        description = {"network": name.partition("-")[0], "sinks": sinks}
        RunWriter(folder / name, description).close("complete")
    return open_experiment(folder)


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    experiment = write(tmp_path_factory.mktemp("runs") / "mine", SINKS)
    return build_document(experiment, ())


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    experiment = write(tmp_path_factory.mktemp("runs") / "mine", HOSTILE)
    return build_document(experiment, ())


def links(page):
    return [a["href"] for tag, a in page.tags if tag == "a" and not a["href"].startswith("#")]


def test_pages_on_the_web_and_files_are_linked_on_the_page(document, page_of):
    page = page_of(render_html(document))
    assert links(page) == ["./plain20-seed1/tensorboard", PAGE, "../my%20runs"]
    assert "W&B, without 48 steps for which it was too slow" in page.text
    assert "MLflow, not complete: OSError: no" in page.text


def test_a_live_page_links_no_files_since_it_is_served_alone(document, page_of):
    assert links(page_of(render_html(document, live="1"))) == [PAGE]


def test_links_are_as_seen_from_where_the_report_is_written(tmp_path):
    experiment = write(tmp_path / "runs" / "mine", SINKS)
    found = destinations_of(experiment, tmp_path / "reports" / "today")
    assert [one.places[0].link for one in found] == [
        "../../runs/mine/plain20-seed1/tensorboard",
        PAGE,
        "../../runs/my%20runs",
        "",
    ]


def test_commands_show_what_is_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sinks = [
        *SINKS,
        {"kind": "W&B", "path": "../wandb/b", "earlier_paths": ["../wandb/a"], "prefix": "x"},
        {"kind": "MLflow", "path": "../../my.db", "place": "sqlite:///my.db, run 1"},
        {"kind": "Aim", "path": "../../aim"},
    ]
    names = ("plain20-seed1", "plain20-seed2")
    experiment = write(Path("runs/mine"), sinks, names)
    commands = [one.commands for one in destinations_of(experiment, experiment.folder)]
    assert commands == [
        ("tensorboard --logdir runs/mine",),  # both runs side by side
        (),
        ("mlflow ui --backend-store-uri 'runs/my runs'",),
        ("trackio show --project mine",),
        ("wandb sync runs/mine/wandb/a runs/mine/wandb/b",),
        ("mlflow ui --backend-store-uri sqlite:///runs/my.db",),
        ("aim up --repo runs/aim",),
    ]


def test_runs_in_one_place_are_named_together(tmp_path):
    experiment = write(tmp_path / "mine", [{"kind": "MLflow", "path": "../mlruns"}], ("a", "b"))
    (found,) = destinations_of(experiment, experiment.folder)
    assert [(one.run, one.link) for one in found.places] == [("a, b", "./mlruns")]


def test_folders_far_apart_are_shown_one_by_one(tmp_path):
    for name in ("a", "b"):
        sinks = [{"kind": "TensorBoard", "path": f"../../{name}/far/away/logs"}]
        description = {"network": "n", "sinks": sinks}
        RunWriter(tmp_path / "mine" / name, description).close("complete")
    ExperimentWriter(tmp_path / "mine", {"runs": ["a", "b"]})
    (found,) = destinations_of(open_experiment(tmp_path / "mine"), tmp_path)
    assert [shlex.split(one)[-1] for one in found.commands] == [
        str(tmp_path / name / "far/away/logs") for name in ("a", "b")
    ]


def test_the_pdf_links_pages_on_the_web_and_names_the_rest(document):
    reader = PdfReader(BytesIO(render_pdf(document)))
    text = " ".join(page.extract_text() for page in reader.pages)
    assert uris(reader) == {PAGE}
    assert "tensorboard --logdir" in " ".join(text.split())
    assert "Also written to" in text


def uris(reader):
    found = set()
    for page in reader.pages:
        for one in page.get("/Annots") or []:
            action = one.get_object().get("/A") or {}
            if "/URI" in action:
                found.add(str(action["/URI"]))
    return found


def test_a_comment_links_pages_on_the_web_alone(document):
    page = MarkdownIt("commonmark").render(render_markdown(document).decode())
    assert re.findall(r'href="([^"]*)"', page) == [PAGE]
    assert "TensorBoard (names under gradflow/): plain20-seed1" in page


def test_the_terminal_names_addresses_and_commands_on_lines_that_can_be_copied(document):
    lines = answer_text(document, Console(file=StringIO(), width=40, highlight=False)).splitlines()
    assert f"    plain20-seed1: {PAGE}" in lines
    at = lines.index("  TensorBoard, names under gradflow/")
    assert lines[at + 1].startswith("    shown by: tensorboard --logdir ")


def test_the_json_has_them_as_data(document, tmp_path):
    experiment = write(tmp_path / "mine", SINKS)
    read = json.loads(render_json(experiment, (), document))
    schema = Path(reports.__file__).parent / "json" / "report.schema.json"
    Draft202012Validator(json.loads(schema.read_text(encoding="utf-8"))).validate(read)
    first, second, *_ = read["experiment"]["destinations"]
    assert first["places"][0]["link"] == "./plain20-seed1/tensorboard"
    assert second["places"] == [{"run": "plain20-seed1", "text": PAGE, "link": PAGE}]


def test_what_a_run_from_elsewhere_says_leads_nowhere_else(hostile, page_of, tmp_path):
    page = page_of(render_html(hostile))
    assert JAVASCRIPT in page.text
    # A relative path, even one with such a name, is that of a file.
    assert all(link.startswith(("./", "../")) for link in links(page))
    assert {tag for tag, _ in page.tags} & {"b", "iframe", "object"} == set()
    reader = PdfReader(BytesIO(render_pdf(hostile)))
    assert uris(reader) == set()
    page = MarkdownIt("commonmark").render(render_markdown(hostile).decode())
    assert "href" not in page
    text = answer_text(hostile, Console(file=StringIO(), width=80, highlight=False))
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_commands_of_a_run_from_elsewhere_have_its_words_as_one_word(hostile):
    commands = [shlex.split(command) for one in hostile.destinations for command in one.commands]
    words = {tuple(one[:2]) for one in commands}
    assert words <= {("wandb", "sync"), ("tensorboard", "--logdir"), ("mlflow", "ui")}
    for command in commands:
        assert not any(word.startswith("-") for word in command[3:])
        assert not any("reboot" in word for word in command)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("https://wandb.ai/me/p/runs/1?workspace=a&b=c#d", True),
        ("http://localhost:5000/#/experiments/1/runs/2", True),
        ("HTTPS://example.org/", False),
        ("https://", False),
        ("https:///etc/passwd", False),
        ("https://user:secret@example.org/", False),
        ("https://example.org/a b", False),
        ("https://example.org/\n", False),
        ("https://ex\u0430mple.org/", False),
        ("https://example.org:99999/", False),
        ("file:///etc/passwd", False),
        ("data:text/html,x", False),
        (" javascript:alert(1)", False),
        ("//example.org", False),
        (f"https://example.org/{'a' * 3000}", False),
        (None, False),
        (["https://example.org"], False),
    ],
)
def test_only_plain_addresses_of_pages_are_links(given, taken):
    assert web_address(given) == (given if taken else "")


def test_very_much_said_of_sinks_is_shortened(tmp_path):
    sinks = [{"kind": f"{'k' * 5000}{number}", "place": "p" * 5000} for number in range(200)]
    found = destinations_of(write(tmp_path / "mine", sinks), tmp_path)
    assert len(found) <= 24
    assert all(len(one.kind) < 500 and len(one.places[0].text) < 500 for one in found)


def test_a_run_without_sinks_says_nothing_of_them(tmp_path, page_of):
    document = build_document(write(tmp_path / "mine", []), ())
    assert document.destinations == ()
    assert "Also written to" not in page_of(render_html(document)).text
