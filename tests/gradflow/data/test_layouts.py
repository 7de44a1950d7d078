"""Each layout in which people have images, with its classes, counts and split."""

import io
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gradflow.data import Reading, load, split
from gradflow.errors import DataError


class Pictures:
    """Writes images below a folder, each with pixels of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.made = 0

    def png(self):
        self.made += 1
        pixels = np.random.default_rng(self.made).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "png")
        return stream.getvalue()

    def add(self, *names):
        for name in names:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.png())

    def classes(self, place, **counts):
        for label, count in counts.items():
            self.add(*(f"{place}{label}/{number}.png" for number in range(count)))


@pytest.fixture
def pictures(tmp_path):
    return Pictures(tmp_path / "images")


def read(folder, **reading):
    return load(str(folder), image_size=8, reading=Reading(**reading))


def counts(data, seed=0):
    """The images of each class on each side: `(training, validation)`."""
    parts = split(data, validation_fraction=0.25, seed=seed)
    return {
        name: tuple(
            int((data.labels[side] == label).sum()) for side in (parts.training, parts.validation)
        )
        for label, name in enumerate(data.classes)
    }


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "test", "VAL"])
@pytest.mark.parametrize("training", ["train", "training", "Train"])
def test_a_folder_with_its_own_split_is_split_so(pictures, training, validation):
    pictures.classes(f"{training}/", cat=5, dog=4)
    pictures.classes(f"{validation}/", cat=2, dog=1)
    data = read(pictures.folder)
    assert data.classes == ("cat", "dog")
    assert counts(data, seed=0) == counts(data, seed=7) == {"cat": (5, 2), "dog": (4, 1)}
    validating = [data.names[index] for index in split(data, seed=1).validation.tolist()]
    assert validating == [f"{validation}/{name}.png" for name in ("cat/0", "cat/1", "dog/0")]
    assert data.notes == (
        f"the folder's own split is used: {training} trains, {validation} validates",
    )


def test_a_test_set_is_left_out_if_there_is_a_validation_set(pictures):
    for place, number in (("train", 4), ("val", 2), ("test", 3)):
        pictures.classes(f"{place}/", cat=number, dog=number)
    data = read(pictures.folder)
    assert counts(data) == {"cat": (4, 2), "dog": (4, 2)}
    assert data.notes[0].endswith("train trains, val validates, test is left out")


def test_a_test_set_without_labels_is_left_out_and_a_part_of_train_validates(pictures):
    pictures.classes("train/", cat=4, dog=4)
    pictures.add("test/1.png", "test/2.png")
    data = read(pictures.folder)
    assert counts(data) == {"cat": (3, 1), "dog": (3, 1)}
    assert data.official_validation is None
    assert data.notes == ("the folder has no validation images, so a part of train validates",)


def test_classes_named_like_a_split_are_classes_if_asked_for(pictures):
    pictures.add(*(f"{place}/{number}.png" for place in ("train", "test") for number in range(4)))
    with pytest.raises(DataError, match=r"train.* holds no folder for each class; .*--layout clas"):
        read(pictures.folder)
    data = read(pictures.folder, layout="classes")
    assert counts(data) == {"test": (3, 1), "train": (3, 1)}
    assert data.notes == ()

    pictures.classes("", plane=4)  # means of transport
    with pytest.raises(DataError, match=r"test, train, named like .* beside plane; give --layout"):
        read(pictures.folder)
    assert read(pictures.folder, layout="classes").classes == ("plane", "test", "train")


def test_one_class_named_like_a_side_beside_others_is_a_class(pictures):
    pictures.classes("", train=4, plane=4)
    assert counts(read(pictures.folder)) == {"plane": (3, 1), "train": (3, 1)}


def test_folders_beside_a_split_are_left_out_if_asked_for(pictures):
    pictures.classes("train/", cat=4, dog=4)
    pictures.classes("val/", cat=1, dog=1)
    pictures.classes("extra/", cat=1)
    with pytest.raises(DataError, match="beside extra; give --layout classes if all are classes"):
        read(pictures.folder)
    assert counts(read(pictures.folder, layout="split")) == {"cat": (4, 1), "dog": (4, 1)}


def test_a_folder_without_images_beside_a_split_does_not_matter(pictures):
    pictures.classes("train/", cat=4, dog=4)
    pictures.classes("val/", cat=1, dog=1)
    (pictures.folder / "models").mkdir()
    assert counts(read(pictures.folder)) == {"cat": (4, 1), "dog": (4, 1)}


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (["val", "valid", "train"], "both val and valid, which mean the same side"),
        (["val", "test"], "test and val but nothing to train on"),
    ],
)
def test_a_split_that_does_not_fit_together_is_refused(pictures, places, message):
    for place in places:
        pictures.classes(f"{place}/", cat=2, dog=2)
    with pytest.raises(DataError, match=message):
        read(pictures.folder)


def test_a_folder_around_the_data_set_is_said_to_be_one(pictures):
    pictures.classes("archive/train/", cat=2, dog=2)
    pictures.classes("archive/val/", cat=2, dog=2)
    with pytest.raises(
        DataError, match=r"only one class \(archive\); .* or give .*images/archive if"
    ):
        read(pictures.folder)


def test_a_split_is_refused_if_asked_for_where_there_is_none(pictures):
    pictures.classes("", cat=2, dog=2)
    with pytest.raises(DataError, match="has no folders named train and val"):
        read(pictures.folder, layout="split")


def test_a_class_on_one_side_only_is_named(pictures):
    pictures.classes("train/", cat=4, dog=4)
    pictures.classes("val/", cat=1, emu=2)
    with pytest.raises(DataError, match=r"no training .* the class emu; .*to that side of the sp"):
        split(read(pictures.folder), seed=0)


def test_a_training_image_that_validates_is_left_out_of_the_training_and_named(pictures):
    pictures.classes("train/", cat=5, dog=4)
    pictures.classes("val/", cat=1, dog=1)
    for number in (1, 3):
        shutil.copy(
            pictures.folder / f"train/cat/{number}.png", pictures.folder / f"val/cat/x{number}.png"
        )
    data = read(pictures.folder)
    assert counts(data) == {"cat": (3, 3), "dog": (4, 1)}
    assert not {"train/cat/1.png", "train/cat/3.png"} & set(data.names)
    parts = split(data, seed=0)
    fingerprints = [
        {data.fingerprints[at] for at in side.tolist()} for side in vars(parts).values()
    ]
    assert not fingerprints[0] & fingerprints[1]
    assert data.notes[1] == (
        "warning, training images that are also validation images, byte for byte: 2 "
        "(train/cat/1.png = val/cat/x1.png, train/cat/3.png = val/cat/x3.png); "
        "they are left out of the training"
    )


def table(folder, name, rows):
    (folder / name).write_text("".join(",".join(row) + "\n" for row in rows))


def test_kaggles_ids_without_an_ending_and_another_table_beside(pictures):
    ids = ["000bec18", "001cdf01", "002a0", "003.b"]
    pictures.add(*(f"train/{name}.jpg" for name in ids), "test/00.jpg")
    breeds = ["husky", "pug", "pug", "husky"]
    table(pictures.folder, "labels.csv", [("id", "breed"), *zip(ids, breeds, strict=True)])
    table(pictures.folder, "sample_submission.csv", [("id", "husky", "pug"), ("00", "1", "0")])
    columns = {"image": "id", "label": "breed"}
    data = read(pictures.folder, columns=columns)
    assert data.names == tuple(f"train/{name}.jpg" for name in ids)
    assert [data.classes[label] for label in data.labels] == breeds
    assert data.notes == ("of 2 tables, only labels.csv has the columns; it is used",)
    by_table = read(pictures.folder / "labels.csv", columns=columns)
    assert (by_table.names, by_table.fingerprints) == (data.names, data.fingerprints)
    with pytest.raises(DataError, match=r"several CSV files .* columns with --columns image=NAME"):
        read(pictures.folder)
    with pytest.raises(DataError, match=r"no column 'filename', it has id, breed; .* --columns"):
        read(pictures.folder / "labels.csv")


def test_names_with_several_endings_are_refused_rather_than_guessed(pictures):
    pictures.add("1.png", "1.jpg", "2.png", "3.png", "4.png")
    table(pictures.folder, "labels.csv", [("filename", "label"), *zip("1234", "xyxy", strict=True)])
    with pytest.raises(DataError, match=r"1 may mean 1.jpg and 1.png in .*; write the ending"):
        read(pictures.folder)


def test_images_of_a_table_are_found_in_folders_below(pictures):
    pictures.add("photos/2020/1.png", "photos/2021/2.png", "photos/2021/may/3.png", "other/4.png")
    rows = [("filename", "label"), ("1", "x"), ("2.png", "y"), ("3", "x"), ("4", "y")]
    table(pictures.folder, "labels.csv", rows)
    assert read(pictures.folder).names == (
        "other/4.png",
        "photos/2020/1.png",
        "photos/2021/2.png",
        "photos/2021/may/3.png",
    )
    pictures.add("other/1.png")
    with pytest.raises(DataError, match=r"names 1, which is both other/1.png and photos/2020/1.p"):
        read(pictures.folder)


@pytest.mark.parametrize("by_name", [True, False])
def test_a_table_makes_the_split_by_a_column_or_by_the_folders_in_its_names(pictures, by_name):
    sides = {"train": 4, "val": 2, "test": 1}
    rows = [("filename", "label", "part")]
    for side, number in sides.items():
        names = [f"{side}/{label}{at}.png" for label in "xy" for at in range(number)]
        pictures.add(*names)
        rows += [(name, name.split("/")[1][0], side if not by_name else "?") for name in names]
    table(pictures.folder, "labels.csv", rows)
    data = read(pictures.folder, columns={} if by_name else {"split": "part"})
    assert counts(data) == {"x": (4, 2), "y": (4, 2)}
    assert data.notes[0].endswith("train trains, val validates, test is left out")
    if by_name:
        literally = read(pictures.folder / "labels.csv", layout="classes")
        assert literally.official_validation is None
        with pytest.raises(DataError, match=r"gives train/x0.png the side '\?' in the column part"):
            read(pictures.folder, columns={"split": "part"})


def json_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("kind", ["metadata.csv", "metadata.jsonl"])
@pytest.mark.parametrize("of_each_side", [True, False])
def test_hugging_faces_image_folder(pictures, kind, of_each_side):
    rows = []
    for side, number in (("train", 4), ("test", 2)):
        own = [(f"{label}{at}.png", label) for label in "xy" for at in range(number)]
        pictures.add(*(f"{side}/{name}" for name, _ in own))
        rows.append((side, own))
    for place, some in (
        [(f"{side}/", own) for side, own in rows]
        if of_each_side
        else [("", [(f"{side}/{name}", label) for side, own in rows for name, label in own])]
    ):
        path = pictures.folder / place / kind
        if kind.endswith("csv"):
            table(path.parent, kind, [("file_name", "label"), *some])
        else:
            json_lines(path, [{"file_name": name, "label": label} for name, label in some])
    data = read(pictures.folder)
    assert counts(data) == {"x": (4, 2), "y": (4, 2)}
    assert data.names[0] == "test/x0.png"
    assert "test validates" in data.notes[0]


NAMES = {"info": {"features": {"label": {"names": ["pug", "husky"], "_type": "ClassLabel"}}}}


def parquet(path, contents, labels, *, metadata=NAMES, struct=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": one, "path": None} for one in contents] if struct else contents
    made = pa.table({"image": images, "label": labels})
    if metadata is not None:
        made = made.replace_schema_metadata({"huggingface": json.dumps(metadata)})
    pq.write_table(made, path)


@pytest.mark.parametrize("place", ["data/", "", "train/"])
def test_hugging_faces_parquet_files(pictures, place):
    for side, number in (("train", 4), ("test", 2)):
        folder = f"{side}/" if place == "train/" else place
        for part in range(2):
            contents = [pictures.png() for _ in range(number)]
            path = pictures.folder / f"{folder}{side}-0000{part}-of-00002.parquet"
            parquet(path, contents, [0, 1] * (number // 2))
    data = read(pictures.folder)
    assert counts(data) == {"husky": (4, 2), "pug": (4, 2)}
    assert (
        data.names[0] == f"{'test/' if place == 'train/' else place}test-00000-of-00002.parquet#0"
    )
    expected = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    at = data.names.index(f"{place}train-00000-of-00002.parquet#0")
    np.testing.assert_array_equal(data.images[at].permute(1, 2, 0).numpy(), expected)
    assert data.classes[data.labels[at]] == "pug"


def test_a_parquet_file_with_plain_bytes_and_numbers(pictures):
    path = pictures.folder / "birds.parquet"
    contents = [pictures.png() for _ in range(8)]
    parquet(path, contents, [3, 5] * 4, metadata=None, struct=False)
    assert counts(read(path)) == {"3": (3, 1), "5": (3, 1)}
    assert counts(read(pictures.folder)) == {"3": (3, 1), "5": (3, 1)}
    columns = {"image": "label", "label": "label"}
    with pytest.raises(DataError, match="no image bytes in the column 'label', but int64"):
        read(path, columns=columns)
    with pytest.raises(DataError, match=r"no column 'kind', it has image, label; say which to"):
        read(path, columns={"label": "kind"})
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"birds.parquet cannot be read as Parquet"):
        read(path)


def test_rows_of_a_parquet_file_without_a_label_are_counted(pictures):
    path = pictures.folder / "train.parquet"
    parquet(path, [pictures.png() for _ in range(10)], [0, 1, -1, 7, *[0, 1] * 3])
    with pytest.raises(DataError, match=r"rows of .*train.parquet without a label: 2 \(row 2, row"):
        read(path)
    assert counts(read(path, skip_bad=True)) == {"husky": (3, 1), "pug": (3, 1)}


def rows(*of, header="filename,label"):
    return "\n".join([header, *of, ""])


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train.csv", "val.csv"),
        ("Training.csv", "valid.csv"),
        ("train_labels.csv", "validation-labels.csv"),
        ("train.csv", "test.csv"),
        ("metadata_train.jsonl", "metadata_test.jsonl"),
    ],
)
def test_tables_side_by_side_make_the_split(pictures, train, val):
    pictures.add(*(f"pictures/{number}.png" for number in range(12)))
    labels = {number: "cat" if number % 2 else "dog" for number in range(12)}
    for name, numbers in ((train, range(8)), (val, range(8, 12))):
        if name.endswith(".jsonl"):
            objects = [
                json.dumps({"file_name": f"pictures/{n}.png", "label": labels[n]}) for n in numbers
            ]
            (pictures.folder / name).write_text("\n".join(objects))
        else:
            lines = [f"{number}.png,{labels[number]}" for number in numbers]
            (pictures.folder / name).write_text(rows(*lines))
    data = read(pictures.folder)
    assert counts(data) == {"cat": (4, 2), "dog": (4, 2)}
    note = f"the split of the tables is used: {train} trains, {val} validates"
    assert note in data.notes


def test_a_test_table_is_left_out_beside_a_validation_table_or_without_labels(pictures):
    pictures.add(*(f"{number}.png" for number in range(9)))
    for name, numbers in (("train", (0, 1, 2, 3)), ("val", (4, 5)), ("test", (6, 7, 8))):
        lines = [f"{number}.png,{'ab'[number % 2]}" for number in numbers]
        (pictures.folder / f"{name}.csv").write_text(rows(*lines))
    assert counts(read(pictures.folder)) == {"a": (2, 1), "b": (2, 1)}
    (pictures.folder / "test.csv").write_text("filename\n6.png\n")
    data = read(pictures.folder)
    assert counts(data) == {"a": (2, 1), "b": (2, 1)}
    assert data.notes[-1].endswith(", test.csv has no labels and is left out")


def test_images_on_both_sides_of_two_tables_are_found_by_name_and_by_content(pictures):
    pictures.add(*(f"{number}.png" for number in range(10)))
    shutil.copy(pictures.folder / "0.png", pictures.folder / "copy.png")
    trained = [f"{number}.png,{'ab'[number % 2]}" for number in range(8)]
    validating = ["8.png,a", "9.png,b", "3.png,b", "copy.png,a"]
    (pictures.folder / "train.csv").write_text(rows(*trained))
    (pictures.folder / "val.csv").write_text(rows(*validating))
    data = read(pictures.folder)
    assert counts(data) == {"a": (3, 2), "b": (3, 2)}
    _, by_name, by_content = data.notes
    assert by_name == (
        "warning, images that the tables name on both sides: 1 (3.png); they are left out of the "
        "training"
    )
    assert "byte for byte: 1 (0.png = copy.png)" in by_content


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"train": ["0.png,a", "1.png,b"], "val": ["0.png,b"]}, "0.png two labels, a to train on"),
        ({"train": ["0.png,a"], "train_labels": ["1.png,b"], "val": ["2.png,a"]}, "of one side"),
        ({"train": ["0.png,a"], "val": ["1.png,b"], "valid": ["2.png,a"]}, "mean the same side"),
        ({"train": ["0.png,a"], "val": ["1.png,b"], "extra": ["2.png,a"]}, "several CSV files"),
        ({"val": ["0.png,a"], "test": ["1.png,b"]}, "several CSV files"),
    ],
)
def test_tables_that_make_no_clear_split_are_refused(pictures, tables, message):
    pictures.add("0.png", "1.png", "2.png")
    for name, lines in tables.items():
        (pictures.folder / f"{name}.csv").write_text(rows(*lines))
    with pytest.raises(DataError, match=message):
        read(pictures.folder)


def test_a_side_table_that_leads_out_of_the_folder_is_refused(pictures, tmp_path):
    pictures.add("0.png", "1.png")
    (tmp_path / "elsewhere.csv").write_text(rows("0.png,a", "1.png,b"))
    (pictures.folder / "train.csv").write_text(rows("0.png,a", "1.png,b"))
    (pictures.folder / "val.csv").symlink_to(tmp_path / "elsewhere.csv")
    with pytest.raises(DataError, match="is a link that leads out of"):
        read(pictures.folder)


def test_parquet_files_named_after_the_sides_make_the_split(pictures):
    pictures.folder.mkdir()
    for name, number in (("train", 8), ("validation", 4)):
        table = pa.table(
            {"image": [pictures.png() for _ in range(number)], "label": ["a", "b"] * (number // 2)}
        )
        pq.write_table(table, pictures.folder / f"{name}.parquet")
    assert counts(read(pictures.folder)) == {"a": (4, 2), "b": (4, 2)}
