import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from gradflow.data import Batch
from gradflow.data.batches import normalize
from gradflow.models import build
from gradflow.probes.attribution.measure import (
    CONDUCTANCE_IMAGES,
    FIRST_OF_CLASS,
    MOST_CONFIDENT_RIGHT,
    MOST_CONFIDENT_WRONG,
    PROBE,
    Predictions,
    choose_pictures,
    interleave_classes,
)
from gradflow.probes.network.blocks import find_blocks
from gradflow.probes.probe import NotMeasurableError, Subject
from gradflow.runs.format.schema import TABLES
from gradflow.runs.reading.run import open_run
from gradflow.runs.writing.run import RunWriter

TARGETS = torch.tensor([2, 2, 0, 1, 0, 2, 1, 0])


def raw(count):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=generator)


def subject_of(model, count=20):
    images = normalize(raw(count).float() / 255)
    targets = torch.arange(count) % 3
    parts = [range(0, 8), range(8, count)]

    def validation():
        for part in parts:
            places = torch.tensor(list(part))
            yield Batch(images[places], targets[places], places + 100)

    batch = next(iter(validation()))
    return Subject(model.eval(), 3, True, False, None, batch, lambda: [batch], validation, 0)


@pytest.fixture(scope="module")
def measured():
    model = build("resnet20", classes=3, seed=0)
    return model, PROBE.measure(subject_of(model))


def test_images_are_taken_from_the_classes_in_turn():
    assert interleave_classes(TARGETS) == [2, 3, 0, 4, 6, 1, 7, 5]


def test_pictures_show_the_first_of_each_class_and_the_most_confident_others():
    prediction = TARGETS.clone()
    prediction[[1, 3, 7]] += 1
    probability = torch.tensor([0.9, 0.6, 0.99, 0.98, 0.7, 0.8, 0.5, 0.65])
    predictions = Predictions(torch.arange(8), TARGETS, prediction, probability)
    assert choose_pictures(predictions) == [
        (2, FIRST_OF_CLASS),
        (3, FIRST_OF_CLASS),
        (0, FIRST_OF_CLASS),
        (7, MOST_CONFIDENT_WRONG),
        (5, MOST_CONFIDENT_RIGHT),
    ]


def test_without_a_wrong_prediction_none_is_pictured():
    predictions = Predictions(torch.arange(8), TARGETS, TARGETS, torch.rand(8))
    assert MOST_CONFIDENT_WRONG not in {rule for _, rule in choose_pictures(predictions)}


@pytest.mark.parametrize("classes", [1, 2, 9])
def test_no_image_is_pictured_twice_whatever_is_predicted(classes):
    generator = torch.Generator().manual_seed(classes)
    for count in range(1, 30):
        targets, prediction = torch.randint(classes, (2, count), generator=generator)
        probability = torch.rand(count, generator=generator)
        predictions = Predictions(torch.arange(count), targets, prediction, probability)
        chosen = choose_pictures(predictions)
        places = [place for place, _ in chosen]
        assert len(set(places)) == len(places)
        first = {place for place, rule in chosen if rule == FIRST_OF_CLASS}
        numbers = targets.tolist()
        assert first == {numbers.index(number) for number in sorted(set(numbers))[:6]}
        for rule, right in ((MOST_CONFIDENT_WRONG, False), (MOST_CONFIDENT_RIGHT, True)):
            others = [
                place
                for place in range(count)
                if place not in first and bool(prediction[place] == targets[place]) == right
            ]
            wanted = [max(others, key=lambda place: probability[place])] if others else []
            assert [place for place, why in chosen if why == rule] == wanted


def test_the_tables_have_the_columns_of_the_schema(measured):
    for name, columns in measured[1].items():
        wanted = {quantity.name for quantity in TABLES[name].columns} - {"epoch"}
        assert set(columns) == wanted
        assert len({len(column) for column in columns.values()}) == 1
    assert set(measured[1]) == set(PROBE.tables)


def test_conductances_are_complete_for_every_block_and_image(measured):
    model, tables = measured
    table = {name: np.array(column) for name, column in tables["conductance"].items()}
    assert len(table["image"]) == CONDUCTANCE_IMAGES * len(find_blocks(model))
    assert set(table["image"]) == set(range(100, 100 + CONDUCTANCE_IMAGES))
    error = abs(table["skip"] + table["branch"] - table["difference"])
    assert table["completeness_error"] == pytest.approx(error / abs(table["difference"]))
    with torch.no_grad():
        images = normalize(torch.stack([raw(20)[3], torch.zeros(3, 16, 16)]).float() / 255)
        logits = model(images)
    predicted = logits[0].argmax()
    differences = table["difference"][table["image"] == 103]
    assert differences == pytest.approx(float((logits[0] - logits[1])[predicted]), rel=1e-4)


def test_a_picture_has_the_bytes_and_the_prediction_of_its_image(measured):
    model, tables = measured
    table = tables["attribution_pictures"]
    for row, image in enumerate(table["image"]):
        assert table["pixels"][row] == raw(20)[image - 100].numpy().tobytes()
        assert len(table["values"][row]) == table["height"][row] * table["width"][row] == 256
        with torch.no_grad():
            probability = model(normalize(raw(20)[image - 100][None].float() / 255)).softmax(1)[0]
        assert table["prediction"][row] == int(probability.argmax())
        assert table["probability"][row] == pytest.approx(float(probability.max()), rel=1e-4)
        assert table["target"][row] == (image - 100) % 3
        cam = table["method"][row] == "Grad-CAM"
        assert (table["completeness_error"][row] is None) == cam
        assert (table["layer"][row] is None) != cam


def test_networks_of_a_seed_are_pictured_on_the_same_first_images(measured):
    plain = PROBE.measure(subject_of(build("plain20", classes=3, seed=1)))
    assert "conductance" not in plain
    tables = (measured[1]["attribution_pictures"], plain["attribution_pictures"])
    first, second = (
        [
            image
            for image, rule in zip(table["image"], table["rule"], strict=True)
            if rule == FIRST_OF_CLASS
        ]
        for table in tables
    )
    assert first == second == [100, 101, 102] * 2


def test_a_network_without_blocks_cannot_be_measured():
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
    with pytest.raises(NotMeasurableError, match="no blocks"):
        PROBE.measure(subject_of(model))


def test_pictures_are_complete_if_the_network_is_linear_between_black_and_image():
    # If all ReLUs are on or all are off, integrated gradients are weight times difference.
    model = build("plain20", classes=3, norm="none", seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
        model.conv1.bias.fill_(1e3)
    table = PROBE.measure(subject_of(model, 12))["attribution_pictures"]
    errors = [error for error in table["completeness_error"] if error is not None]
    assert len(errors) == len(table["image"]) / 2
    assert max(errors) < 1e-3


def test_the_tables_are_read_back_as_they_were_stored(measured, tmp_path):
    writer = RunWriter(tmp_path / "run", {})
    for name, columns in measured[1].items():
        epoch = [3] * len(columns["image"])
        writer.append(name, {"epoch": epoch, **columns}, 0, 0)
    writer.close("complete")
    run = open_run(tmp_path / "run")
    for name, columns in measured[1].items():
        frame = run.table(name)
        assert set(frame["epoch"]) == {3}
        for column, values in columns.items():
            for found, wanted in zip(frame[column], values, strict=True):
                if wanted is None:
                    assert pd.isna(found)
                else:
                    assert np.array_equal(found, wanted)
