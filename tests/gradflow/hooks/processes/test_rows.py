"""Rows of numbers of several processes are put together to the record of the whole."""

import pytest
import torch

from gradflow.hooks.processes.rows import OwnRow
from gradflow.hooks.recording.records import JunctionRecord, StepRecord
from gradflow.hooks.reduction.fused import moments
from gradflow.hooks.reduction.parts import Part
from gradflow.hooks.reduction.statistics.from_moments import to_statistics

# Two shares of a batch [8, 6, 5] by two parts of what is split: 2 and 4 of the 6 channels, say.
SHARES = (slice(0, 4), slice(4, 8))
SPLIT = {
    Part.WHOLE: ((slice(None), slice(None)), 1),
    Part.CHANNELS: ((slice(0, 2), slice(2, 6)), 1),
    Part.POSITIONS: ((slice(0, 1), slice(1, 5)), 2),
    Part.BATCH: ((slice(0, 1), slice(1, 4)), 0),
}
PLACES = [(data, model) for data in (0, 1) for model in (0, 1)]


def whole():
    return torch.randn(8, 6, 5, generator=torch.Generator().manual_seed(0)) + 0.3


def held(part, data, model):
    slices, axis = SPLIT[part]
    index = [slice(None)] * 3
    index[axis] = slices[model]
    return whole()[SHARES[data]][tuple(index)]


def record_of(part, data, model):
    x = held(part, data, model)
    record = StepRecord(1, 0, histograms=True, loss_share=0.5)
    seen = moments(x, 1, histogram=True)
    # The loss of all is the mean of the shares' losses.
    gradient = moments(2 * x, 1, histogram=True)
    gradient.magnitudes = seen.magnitudes
    seen.part = gradient.part = part
    record.activations["layer"], record.gradients["layer"] = seen, gradient
    products = torch.full((7,), 4 * float(x.square().sum()), dtype=torch.float64)
    as_sum = part if part in (Part.WHOLE, Part.UNKNOWN) else Part.BATCH
    record.junctions["layer"] = JunctionRecord("identity", seen, None, products, as_sum)
    record.parameters = {
        "whole": {"weight_norm": 2.0, "gradient_norm": torch.tensor(3.0)},
        "split": {"weight_norm": 1.0},
    }
    return record


def joined(records, counts=True):
    own = [OwnRow(record, {"split": counts}, 0.5) for record in records]
    rows = [one.numbers("cpu") for one in own]
    assert len({repr(one.names()) for one in own}) == 1
    table = torch.zeros(len(rows), 2 + max(map(len, rows)), dtype=torch.float64)
    for row, place, numbers in zip(table, PLACES, rows, strict=True):
        row[:2] = torch.tensor(place)
        row[2 : 2 + len(numbers)] = numbers
    return records[0], own[0].join(table, data_count=2)


@pytest.mark.parametrize("part", list(SPLIT))
def test_parts_of_shares_are_joined_to_the_whole(part):
    record, left_out = joined([record_of(part, *place) for place in PLACES])
    assert not left_out.unknown
    assert not left_out.differing
    expected = moments(whole(), 1, histogram=True)
    for found in (record.activations["layer"], record.gradients["layer"]):
        assert found.part is Part.WHOLE
        assert (found.elements, found.batch_size, found.channels) == (8 * 6 * 5, 8, 6)
        assert torch.equal(found.magnitudes, expected.magnitudes)
        statistics, wanted = to_statistics([found]), to_statistics([expected])
        for name, values in wanted.items():
            assert statistics[name] == pytest.approx(values, rel=1e-9), name
    products = record.junctions["layer"].products
    assert products.tolist() == pytest.approx(7 * [float(whole().double().square().sum())])
    assert record.parameters["whole"] == {"weight_norm": 2.0, "gradient_norm": torch.tensor(3.0)}
    assert record.parameters["split"]["weight_norm"] == pytest.approx(2.0)


def test_an_unknown_part_is_left_out_and_named():
    records = [record_of(Part.WHOLE, *place) for place in PLACES]
    for one in records:
        one.activations["layer"].part = Part.UNKNOWN
        one.junctions["layer"].part = Part.UNKNOWN
    record, left_out = joined(records)
    assert list(left_out.unknown) == ["layer"]
    assert record.activations == {}
    assert record.junctions["layer"].skip is record.junctions["layer"].products is None
    assert "layer" in record.gradients
    assert "whole" in record.parameters


@pytest.mark.parametrize("what", ["activations", "products", "parameter"])
def test_copies_that_differ_are_left_out_and_named(what):
    records = [record_of(Part.WHOLE, *place) for place in PLACES]
    if what == "activations":
        records[1].activations["layer"] = moments(held(Part.WHOLE, 0, 0) * 1.01, 1, histogram=True)
    elif what == "products":
        records[1].junctions["layer"].products *= 1.01
    else:
        records[1].parameters["whole"]["gradient_norm"] *= 1.01
    record, left_out = joined(records)
    assert list(left_out.differing) == ["whole" if what == "parameter" else "layer"]
    assert ("layer" in record.activations) == (what != "activations")
    assert (record.junctions["layer"].products is None) == (what == "products")
    assert ("whole" in record.parameters) == (what != "parameter")
