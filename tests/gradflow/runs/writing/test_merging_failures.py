"""A failed merge is skipped; rows never count twice, and damage stays visible."""

import shutil
from pathlib import Path

import pytest

import gradflow
from gradflow.errors import RunError
from gradflow.runs.writing import merging
from gradflow.runs.writing.run import RunWriter


@pytest.fixture
def writer(tmp_path, monkeypatch):
    monkeypatch.setattr(merging, "PARTS_PER_MERGE", 2)
    with RunWriter(tmp_path / "run", {}) as writer:
        yield writer


def append(writer, step):
    """One row for one step in each of two tables, one of them with names."""
    costs = {"epoch": [step + 1], "probe": ["lesions"], "seconds": [1.0], "skipped": [None]}
    writer.append("probe_costs", costs, step, step)
    writer.append("epochs", {"epoch": [step + 1], "step": [step]}, step, step)


def epochs(writer, name="epochs"):
    return gradflow.open_run(writer.folder).table(name)["epoch"].tolist()


def parts(writer, name="epochs"):
    return sorted(path.name for path in writer.folder.glob(f"{name}/*.parquet"))


def test_a_damaged_part_is_not_merged_but_named(writer):
    append(writer, 0)
    (part,) = writer.folder.glob("epochs/*.parquet")
    content = bytearray(part.read_bytes())
    content[len(content) // 3] ^= 1
    part.write_bytes(content)
    for step in (1, 2):
        append(writer, step)
    assert len(parts(writer)) == 3
    with pytest.raises(RunError, match=part.name):
        epochs(writer)
    assert epochs(writer, "probe_costs") == [1, 2, 3]


def test_parts_that_cannot_be_removed_after_a_merge_count_no_more(writer, monkeypatch):
    append(writer, 0)
    unlink = Path.unlink

    def refuse_parts(path, **options):
        if path.name.startswith("part-"):
            raise PermissionError(13, "held open by another program", str(path))
        unlink(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse_parts)
        append(writer, 1)
    assert len(parts(writer)) == 3
    append(writer, 2)
    assert epochs(writer) == epochs(writer, "probe_costs") == [1, 2, 3]
    writer.close("complete")
    assert parts(writer) == [
        "merged-0000000000-0000000001.parquet",
        "part-0000000002-0000000002.parquet",
    ]
    assert epochs(writer) == [1, 2, 3]


def test_a_merged_part_that_could_not_be_listed_goes_when_the_run_is_complete(writer):
    append(writer, 0)
    (part,) = writer.folder.glob("epochs/*.parquet")
    shutil.copy(part, part.with_name("merged-0000000000-0000000001.parquet"))
    assert epochs(writer) == [1]
    writer.close("complete")
    assert parts(writer) == [part.name]
    assert epochs(writer) == [1]


def test_rows_given_again_after_an_interruption_while_they_were_merged_count_once(
    writer, monkeypatch
):
    def interrupt(_):
        raise KeyboardInterrupt

    append(writer, 0)
    row = {"epoch": [2], "step": [1]}
    with monkeypatch.context() as patch:
        patch.setattr(merging, "shorten_manifest", interrupt)  # the parts merged are gone already
        with pytest.raises(KeyboardInterrupt):
            writer.append("epochs", row, 1, 1)
    writer.append("epochs", row, 1, 1)
    assert epochs(writer) == [1, 2]


def test_a_merged_part_that_was_cut_is_merged_again(writer):
    for step in range(4):
        append(writer, step)
    assert parts(writer) == ["merged-0000000000-0000000003.parquet"]
    writer.release()
    with RunWriter.resume(writer.folder, epoch=4, step=3) as resumed:
        for step in range(3, 8):
            append(resumed, step)
    assert epochs(resumed) == epochs(resumed, "probe_costs") == list(range(1, 9))
    assert len(parts(resumed)) == len(parts(resumed, "probe_costs")) == 2
