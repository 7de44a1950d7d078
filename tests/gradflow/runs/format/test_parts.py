"""Which files of a table count, and in which order."""

import pyarrow.parquet as pq
import pytest

from gradflow.errors import RunError
from gradflow.runs.format.manifest import read_manifest, record_change
from gradflow.runs.format.parts import leftover_files, parse_part_name, part_name, parts_of


@pytest.fixture
def touch(tmp_path):
    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        return [tmp_path / name for name in names]

    return make


def names(folder, table="epochs"):
    return [part.path.name for part in parts_of(read_manifest(folder), table)]


FIRST, SECOND, THIRD = (part_name(step, step + 1) for step in (0, 2, 4))
MERGED = part_name(0, 3, merged=True)


def test_name_and_part_are_each_others_inverse(tmp_path):
    part = parse_part_name(tmp_path / part_name(3, 12, merged=True))
    assert (part.first, part.last, part.is_merged) == (3, 12, True)
    assert not parse_part_name(tmp_path / part_name(3, 12)).is_merged
    assert parse_part_name(tmp_path / "part-3-12.parquet") is None
    assert parse_part_name(tmp_path / f"{part_name(3, 12)}.tmp") is None


def test_parts_are_in_order_of_step_and_other_files_are_none(tmp_path, touch):
    touch(f"epochs/{THIRD}", f"epochs/{FIRST}", "epochs/notes.parquet", f"steps/{FIRST}")
    assert names(tmp_path) == [FIRST, THIRD]


def test_missing_part_counts_so_that_it_is_missed(tmp_path, touch):
    first, second = touch(f"epochs/{FIRST}", f"epochs/{SECOND}")
    record_change(tmp_path, [first, second])
    second.unlink()
    assert names(tmp_path) == [FIRST, SECOND]


def test_part_written_just_before_an_interruption_counts_a_merged_one_does_not(tmp_path, touch):
    record_change(tmp_path, touch(f"epochs/{FIRST}", f"epochs/{SECOND}"))
    touch(f"epochs/{THIRD}", f"epochs/{MERGED}")
    assert names(tmp_path) == [FIRST, SECOND, THIRD]
    assert leftover_files(read_manifest(tmp_path)) == [tmp_path / "epochs" / MERGED]


def test_merged_part_takes_the_place_of_those_it_was_made_of_as_soon_as_it_is_listed(
    tmp_path, touch
):
    first, second, merged = touch(f"epochs/{FIRST}", f"epochs/{SECOND}", f"epochs/{MERGED}")
    record_change(tmp_path, [first, second])
    record_change(tmp_path, [merged], [first, second])
    assert names(tmp_path) == [MERGED]
    assert leftover_files(read_manifest(tmp_path)) == [first, second]


def test_lost_manifest_is_an_error_only_where_it_is_needed(tmp_path, touch):
    touch(f"epochs/{MERGED}", f"epochs/{THIRD}")
    assert names(tmp_path) == [MERGED, THIRD]
    touch(f"epochs/{SECOND}")
    with pytest.raises(RunError, match=r"manifest\.jsonl is missing.*--repair"):
        names(tmp_path)


@pytest.mark.parametrize("at_once", [2, 1000])
def test_names_are_written_once_each_and_values_as_they_are(at_once, tmp_path, small_run, merging):
    merging(at_once)
    folder = small_run.record(tmp_path / "run", 2, tables=("gradients",))
    for path in folder.glob("gradients/*"):
        group = pq.read_metadata(path).row_group(0)
        columns = [group.column(index) for index in range(group.num_columns)]
        in_dictionaries = {
            column.path_in_schema for column in columns if column.has_dictionary_page
        }
        assert in_dictionaries == {"layer"}


@pytest.mark.parametrize(("first", "last"), [(-5, 3), (0, 10**10), (2**63, 2**63 - 1), (0, -1)])
def test_steps_out_of_range_are_refused(first, last):
    with pytest.raises(RunError, match=f"no part can hold rows of steps {first} to {last}: steps"):
        part_name(first, last)
    assert part_name(0, 10**10 - 1) == "part-0000000000-9999999999.parquet"
