"""Writing reports: formats, file names and error messages."""

from pathlib import Path

import pytest

from analyses.result import Length
from gradflow.errors import ConfigurationError, RunError
from reports import building
from reports.building import Written, make_report, report_name, write_report
from reports.formats import FORMATS, parse_formats

BEGINNINGS = {"html": b"<!DOCTYPE html>", "pdf": b"%PDF-", "md": b"## ", "json": b"{\n"}


@pytest.fixture(scope="module")
def report(experiment, outcomes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "run_all", lambda *_: outcomes)
        return make_report(experiment)


def test_every_format_writes_a_file_in_its_format(report, tmp_path):
    written = write_report(report, list(FORMATS.values()), tmp_path / "new" / "folder")
    assert [one.path.name for one in written] == [f"report.{name}" for name in BEGINNINGS]
    for one in written:
        content = one.path.read_bytes()
        assert content.startswith(BEGINNINGS[one.format.name])
        assert len(content) == one.size


def test_a_summary_leaves_the_longer_page_beside_it_and_links_to_it(experiment, outcomes, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "run_all", lambda *_: outcomes)
        alone, beside = (_summary(experiment, tmp_path, page) for page in (None, "report.html"))
    assert (alone.document.longer, beside.document.longer) == ("", "report.html")
    written = write_report(beside, list(FORMATS.values()), tmp_path)
    assert [one.path.name for one in written] == [
        "report-summary.html", "report-summary.pdf", "report-summary.md", "report.json",
    ]  # fmt: skip
    assert (tmp_path / "report.html").read_text() == "longer"


def _summary(experiment, folder, longer):
    if longer:
        (folder / longer).write_text("longer")
    return make_report(experiment, folder=folder, length=Length.SUMMARY)


@pytest.mark.parametrize(
    ("size", "said"), [(0, "0.0 kB"), (52_966, "53.0 kB"), (100_000, "0.1 MB"), (3e6, "3.0 MB")]
)
def test_written_file_is_described_with_its_size(size, said):
    written = Written(FORMATS["md"], Path("a") / "report.md", size, 1.23)
    assert str(written) == f"{Path('a') / 'report.md'} ({said}, 1.2 s)"


def test_formats_are_read_leniently():
    assert [one.name for one in parse_formats(" PDF, html,pdf")] == ["pdf", "html"]


@pytest.mark.parametrize("text", ["docx", "html,docx", "", ","])
def test_unknown_format_is_refused_and_the_known_ones_are_named(text):
    known = ", ".join(FORMATS)
    with pytest.raises(ConfigurationError, match=f"choose from {known} with --format"):
        parse_formats(text)


def test_a_folder_that_cannot_be_created_gives_one_error_sentence(report, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot be written .*: name another folder with --out"):
        write_report(report, [FORMATS["md"]], tmp_path / "file" / "folder")


@pytest.mark.parametrize(
    ("only", "name"),
    [
        ((), "report"),
        (("skip_carry", "lesions"), "report-skip_carry-lesions"),
        (("../../etc",), "report-------etc"),
    ],
)
def test_a_partial_report_has_another_file_name_than_the_full_one(only, name):
    assert report_name(only) == name
    assert len(report_name(["x" * 300])) == 100
