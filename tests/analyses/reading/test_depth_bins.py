import numpy as np
import pandas as pd
import pytest

from analyses.reading.depth_bins import depth_bins

PARTS = ("attn.q", "attn.k", "mlp.up")


def names_of(blocks: int) -> list[str]:
    inside = [f"model.blocks.{block}.{part}" for block in range(blocks) for part in PARTS]
    return ["embed", *inside, "head"]


def test_of_few_layers_each_has_its_own_bin():
    names = names_of(10)
    bins = depth_bins(names)
    assert list(bins.places) == list(range(len(names)))
    assert not bins.gathered
    assert bins.note == ""
    matrix = pd.DataFrame({1: np.arange(len(names))}, index=range(1, len(names) + 1))
    assert bins.rows(matrix) is matrix
    assert list(bins.curve([1] * 32, range(32)).columns) == ["x", "value"]


@pytest.mark.parametrize(("blocks", "each"), [(40, 1), (98, 1), (250, 3), (1000, 11)])
def test_bins_hold_whole_blocks_and_nothing_beside_blocks(blocks, each):
    names = names_of(blocks)
    bins = depth_bins(names)
    assert bins.gathered
    assert bins.largest == 3 * each
    assert bins.places[0] == 0
    assert bins.places[1] == 1
    assert (bins.places == bins.places[-1]).sum() == 1
    assert (np.diff(bins.places) >= 0).all()
    assert (np.diff(bins.places) <= 1).all()
    inner = bins.places[1:-1].reshape(blocks, 3)
    assert (inner == inner[:, :1]).all()
    assert list(inner[:, 0] - 1) == [block // each for block in range(blocks)]


def test_inner_blocks_are_used_if_the_outer_ones_are_few():
    names = [f"stages.{stage}.{block}.conv" for stage in range(4) for block in range(50)]
    bins = depth_bins(names)
    assert bins.largest == 2
    assert len(set(bins.places)) == 100


@pytest.mark.parametrize("pattern", ["conv{}", "{}", "a{}.b"])
def test_names_without_blocks_are_split_evenly(pattern):
    bins = depth_bins([pattern.format(place) for place in range(1000)])
    assert np.unique(bins.places).size == 100
    assert set(np.bincount(bins.places)) == {10}


def test_rows_are_medians_and_curves_ranges():
    names = names_of(250)
    values = np.random.default_rng(0).normal(size=len(names))
    bins = depth_bins(names)
    curve = bins.curve(range(1, len(names) + 1), values)
    matrix = bins.rows(pd.DataFrame({7: values}, index=range(1, len(names) + 1)))
    second_bin = values[10:19]  # the embedding, then bins of three blocks of three layers
    assert curve.loc[2, "value"] == np.median(second_bin)
    assert curve.loc[2, "low"] == second_bin.min()
    assert curve.loc[2, "high"] == second_bin.max()
    assert curve.loc[2, "x"] == matrix.index[2] == 11
    assert matrix.loc[11, 7] == np.median(second_bin)
    assert "752 layers are too many" in bins.note
    assert "up to 9" in bins.note


def test_missing_values_are_left_out_of_their_bin():
    names = names_of(250)
    values = np.ones(len(names))
    values[1] = np.nan
    values[10:19] = np.nan
    curve = depth_bins(names).curve(range(len(names)), values)
    assert curve.loc[1, "value"] == 1
    assert np.isnan(curve.loc[2, ["value", "low", "high"]].astype(float)).all()
