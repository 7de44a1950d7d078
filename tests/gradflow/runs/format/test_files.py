"""Written files are on the disk under their names; temporary files do not stay."""

import pytest

from gradflow.errors import RunError
from gradflow.runs.format import files


def test_a_new_folder_is_flushed_into_the_one_that_it_lies_in(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(files, "_flush_folder", flushed.append)
    files.make_folder(tmp_path / "one" / "two")
    assert set(flushed) == {tmp_path, tmp_path / "one"}
    files.make_folder(tmp_path / "one" / "two")
    assert len(flushed) == 2


def test_only_temporary_files_are_cleared_away(tmp_path):
    (tmp_path / "epochs").mkdir()
    kept = [tmp_path / "run.json", tmp_path / "epochs" / "part-0000000000-0000000001.parquet"]
    begun = [tmp_path / ".run.json.17.tmp", tmp_path / "epochs" / ".part.18.tmp"]
    for path in kept + begun:
        path.touch()
    files.remove_temporary_files(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == kept


def test_a_file_that_cannot_be_removed_is_named(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match="folder cannot be removed"):
        files.remove(tmp_path / "folder")
