"""The manifest lists what was written; incomplete lines do not count."""

import json
import zlib

import pytest

from gradflow.errors import RunError
from gradflow.runs.format import manifest
from gradflow.runs.format.manifest import (
    MANIFEST_FILE,
    entry_of,
    read_manifest,
    record_change,
    shorten_manifest,
    write_listed,
)


@pytest.fixture
def one(tmp_path):
    """A file in a folder whose manifest lists it."""
    path = tmp_path / "epochs" / "part.parquet"
    path.parent.mkdir()
    path.write_bytes(b"rows")
    record_change(tmp_path, [path])
    return path


def test_entry_is_size_and_crc32_of_the_whole_file(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "_CHUNK", 3)
    content = bytes(range(256))
    (tmp_path / "file").write_bytes(content)
    entry = entry_of(tmp_path / "file")
    assert (entry.size, entry.crc32) == (256, zlib.crc32(content))
    assert entry.describes(content)
    assert not entry.describes(content[:-1])
    assert not entry.describes(content[::-1])


def test_file_that_cannot_be_read_again_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(RunError, match=r"written to .* cannot be read again: No such file"):
        record_change(tmp_path, [tmp_path / "gone"])


def test_folder_without_a_manifest_lists_nothing(tmp_path):
    found = read_manifest(tmp_path)
    assert (found.exists, found.files, found.damaged) == (False, {}, False)


def test_listed_file_contradicts_any_other_content(one, tmp_path):
    found = read_manifest(tmp_path)
    assert found.lists(one)
    assert not found.contradicts(one, b"rows")
    assert found.contradicts(one, b"rowt")
    assert not found.contradicts(tmp_path / "another.pt", b"anything")


def test_removed_file_is_not_listed_until_it_is_written_again(one, tmp_path):
    record_change(tmp_path, removed=[one])
    assert read_manifest(tmp_path).removed == {"epochs/part.parquet"}
    assert not read_manifest(tmp_path).lists(one)
    record_change(tmp_path, [one])
    assert read_manifest(tmp_path).lists(one)
    assert not read_manifest(tmp_path).removed


def test_merged_file_and_those_it_was_made_of_change_in_one_line(one, tmp_path):
    merged = tmp_path / "epochs" / "merged.parquet"
    merged.write_bytes(b"more rows")
    record_change(tmp_path, [merged], [one])
    content = (tmp_path / MANIFEST_FILE).read_bytes()
    whole = read_manifest(tmp_path)
    assert (list(whole.files), whole.removed) == (
        ["epochs/merged.parquet"],
        {"epochs/part.parquet"},
    )
    last_line = content.rstrip(b"\n").rfind(b"\n") + 1
    for length in range(last_line, len(content)):  # torn anywhere, it never happened
        (tmp_path / MANIFEST_FILE).write_bytes(content[:length])
        torn = read_manifest(tmp_path)
        assert (list(torn.files), torn.removed) == (["epochs/part.parquet"], frozenset())
        assert not torn.damaged


def test_line_after_a_torn_one_counts(one, tmp_path):
    path = tmp_path / MANIFEST_FILE
    path.write_bytes(path.read_bytes() + b'{"written": {"epochs/oth')
    another = tmp_path / "another.pt"
    another.write_bytes(b"")
    record_change(tmp_path, [another])
    found = read_manifest(tmp_path)
    assert set(found.files) == {"epochs/part.parquet", "another.pt"}
    assert not found.damaged


def test_any_flipped_bit_is_noticed(one, tmp_path):
    path = tmp_path / MANIFEST_FILE
    content = path.read_bytes()
    expected = read_manifest(tmp_path).files
    for place in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            found = read_manifest(tmp_path)
            # A lost last newline makes the line look incomplete; a blank is not content.
            assert found.damaged or not found.files or found.files == expected
    assert not found.files  # the last bits were those of the newline


def test_damaged_manifest_is_refused_in_a_sentence(one, tmp_path):
    with (tmp_path / MANIFEST_FILE).open("ab") as file:
        file.write(b"nonsense\n")
    with pytest.raises(RunError, match=r"manifest\.jsonl is damaged.*check FOLDER --repair"):
        read_manifest(tmp_path).require_undamaged()


@pytest.mark.parametrize(
    "name",
    [
        *("../a.pt", "/etc/a.pt", "a/../../b.pt", "a\\..\\b.pt", "./a.pt", 3),
        *(
            ".",
            "",
            "run.json",
            "manifest.jsonl",
            ".lock",
            "gradients",
            "damaged/best.pt",
            "a/b/c.pt",
        ),
    ],
)
def test_names_of_what_is_never_listed_do_not_count(tmp_path, name):
    content = {"written": {name: [[1, 2]]}} if isinstance(name, str) else {"gone": [name]}
    check = zlib.crc32(json.dumps(content).encode())
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(content | {"check": check}) + "\n")
    found = read_manifest(tmp_path)
    assert not found.files
    assert found.damaged


def test_replaced_file_is_known_with_either_content_at_every_point(
    tmp_path, small_run, monkeypatch, unflushed
):
    path = tmp_path / "best.pt"
    reached = 0
    for at in range(1, 20):
        path.unlink(missing_ok=True)
        (tmp_path / MANIFEST_FILE).unlink(missing_ok=True)
        write_listed(tmp_path, path, lambda one: one.write_bytes(b"first"))
        # Twice, because the entry of a replacement that never happened must do no harm.
        for again in (b"second", b"third"):
            try:
                with small_run.interrupted(monkeypatch, at):
                    write_listed(tmp_path, path, lambda one, new=again: one.write_bytes(new))
            except small_run.interruption:
                reached = at
            assert not read_manifest(tmp_path).contradicts(path, path.read_bytes())
    assert 3 < reached < 19
    assert path.read_bytes() == b"third"


def test_tidying_changes_nothing_but_the_length(one, tmp_path):
    other = tmp_path / "left.pt"
    other.write_bytes(b"left over")
    record_change(tmp_path, [other], [])
    record_change(tmp_path, [], [other])
    for content in (b"a", b"bc", b"def"):
        write_listed(tmp_path, one, lambda path, new=content: path.write_bytes(new))
    before = read_manifest(tmp_path)
    length = (tmp_path / MANIFEST_FILE).stat().st_size
    shorten_manifest(tmp_path)
    assert read_manifest(tmp_path) == before
    assert (tmp_path / MANIFEST_FILE).stat().st_size < length
    other.unlink()
    shorten_manifest(tmp_path)
    assert not read_manifest(tmp_path).removed
