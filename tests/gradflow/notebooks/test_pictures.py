"""Small pictures: their colours, places and words, read back from the SVG."""

import math
import re
from base64 import b64decode
from io import BytesIO
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from gradflow.notebooks import pictures

ENDS = (("first", "last"), ("step 0", "step 9"))


def svg(content: str) -> ElementTree.Element:
    return ElementTree.fromstring(content)


def words(content: str) -> list[str]:
    return [one.text for one in svg(content).iter("text")]


def pixels(content: str) -> np.ndarray:
    first = next(svg(content).iter("image")).get("href")
    return np.asarray(Image.open(BytesIO(b64decode(first.partition(",")[2]))))


def test_heat_map_has_a_pixel_a_value_in_viridis_by_its_logarithm():
    shown = pixels(pictures.heat_map([[1e-6, 1e-3], [1e-3, 1.0]], *ENDS, "norm"))
    viridis = mpl.colormaps["viridis"]
    assert shown.shape == (2, 2, 3)
    for place, share in {(0, 0): 0.0, (0, 1): 0.5, (1, 0): 0.5, (1, 1): 1.0}.items():
        expected = 255 * np.array(viridis(share)[:3])
        assert np.abs(shown[place] - expected).max() < 4


def test_what_has_no_logarithm_is_grey():
    values = [[1.0, 0.0, math.nan], [math.inf, None, -1.0]]
    shown = pixels(pictures.heat_map(values, *ENDS, "norm"))
    grey = (shown == 136).all(axis=2)
    assert grey.tolist() == [[False, True, True], [True, True, True]]


def test_heat_map_names_its_ends_and_its_scale():
    content = pictures.heat_map([[1e-6, 1.0], [1.0, 1.0]], *ENDS, "norm")
    assert words(content) == ["first", "last", "step 0", "step 9", "1.0e-06", "1.0e+00  norm"]


@pytest.mark.parametrize("values", [[], [[]], [[None]], [[math.nan, 0.0]], [[5e-324, 1.7e308]]])
def test_heat_map_of_nothing_or_of_extremes_is_still_a_picture(values):
    assert svg(pictures.heat_map(values, *ENDS, "norm")).get("role") == "img"


def test_long_and_hostile_names_are_cut_and_escaped():
    content = pictures.heat_map([[1.0], [2.0]], ("<a&b>", "x" * 90 + "end"), ENDS[1], "norm")
    first, last, *_ = words(content)
    assert first == "<a&b>"
    assert last.startswith("…")
    assert last.endswith("end")
    assert len(last) == 20


def test_curves_run_from_lower_left_to_upper_right():
    series = {"a": [(1.0, 0.0), (2.0, 10.0)], "b": [(1.0, 5.0)]}
    content = pictures.curves(series, ["#111111", "#222222"])
    (line,) = svg(content).iter("polyline")
    (x0, y0), (x1, y1) = (map(float, one.split(",")) for one in line.get("points").split())
    assert x0 < x1
    assert y0 > y1  # in SVG y grows downward
    (dot,) = svg(content).iter("circle")
    assert float(dot.get("cy")) == pytest.approx((y0 + y1) / 2, abs=0.1)
    assert float(dot.get("cx")) == x0
    assert (line.get("stroke"), dot.get("fill")) == ("#111111", "#222222")
    assert words(content) == ["10", "0", "1", "2"]


def test_points_that_are_not_finite_are_left_out():
    content = pictures.curves({"a": [(1.0, math.nan), (2.0, 1.0), (3.0, math.inf)]}, ["#111111"])
    assert len(list(svg(content).iter("circle"))) == 1
    assert pictures.curves({"a": [(1.0, math.nan)]}, ["#111111"]) == ""


@pytest.mark.parametrize(
    ("value", "low", "high", "share"),
    [(2.0, 1.0, 5.0, 0.25), (10.0, 1.0, 1000.0, 1 / 3), (0.0, -1.0, 1.0, 0.5)],
)
def test_dot_of_an_interval_divides_it_as_the_value_does(value, low, high, share):
    content = pictures.interval(value, low, high, ("low", "value", "high"))
    (dot,) = svg(content).iter("circle")
    left, right = (float(one) for one in re.findall(r"M([\d.]+) 9v10", content))
    assert (float(dot.get("cx")) - left) / (right - left) == pytest.approx(share, abs=0.01)
    assert sorted(words(content)) == ["high", "low", "value"]


def test_interval_of_no_width_or_no_number():
    assert words(pictures.interval(1.0, 1.0, 1.0, ("a", "b", "c"))) == ["b"]
    assert pictures.interval(math.inf, 1.0, math.inf, ("a", "b", "c")) == ""
