"""Arrow arrays from columns, without a look at each value and without loading pandas.

`pyarrow.array` asks pandas of almost everything whether it is a frame or a series, and so loads it:
0.3 s and 30 MB in the training process, at the end of its first epoch. What is not converted here
is left to it: whole numbers beyond 64 bits, mixed types, dates and other objects.
"""

from collections.abc import Sequence
from itertools import repeat
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa

_NAMES = pa.dictionary(pa.int32(), pa.string())
_NUMBERS = {np.dtype(np.float64): pa.float64(), np.dtype(np.int64): pa.int64()}
_COUNTS = pa.list_(pa.int64())
_DTYPE, _AXES = attrgetter("dtype"), attrgetter("ndim")


def to_array(values: Any, kind: pa.DataType | None = None) -> pa.Array:
    """The Arrow array of `values`, as `pyarrow.array(values, type=kind)` returns it.

    `values` are an array, a masked one, or a sequence; masked values and None are null, nan is not.

    Raises `pyarrow.ArrowException`, `TypeError` or `ValueError` if they are not of that kind.
    """
    if isinstance(values, list | tuple) and all(value is None for value in values):
        return pa.nulls(len(values), kind)
    data, mask = _split(values)
    found = None
    if data is not None and data.dtype in _NUMBERS and data.ndim == 1:
        found = _numbers(data, mask, kind)
    elif data is not None and data.dtype == bool and data.ndim == 1:
        found = _booleans(data, mask) if kind in (None, pa.bool_()) else None
    elif data is not None and data.dtype == object and data.ndim == 1:
        found = _objects(data, mask, kind)
    return pa.array(values, type=kind) if found is None else found


def _split(values: Any) -> tuple["np.ndarray[Any, Any] | None", "np.ndarray[Any, Any] | None"]:
    """The values without their mask, and the mask; None if nothing is masked or no array fits."""
    if isinstance(values, np.ndarray):
        hidden = np.ma.getmaskarray(values)
        return np.ma.getdata(values), hidden if hidden.any() else None
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        return None, None
    given = list(values)
    mask = np.array([value is None for value in given], dtype=bool)
    kinds = {type(value) for value in given if value is not None}
    if len(kinds) != 1:
        return None, None
    (kind,) = kinds
    if kind not in (float, int, bool, str):
        return None, None
    filled = [kind() if value is None else value for value in given]
    try:
        data = np.array(
            filled, dtype={float: np.float64, int: np.int64, bool: bool}.get(kind, object)
        )
    except OverflowError:
        return None, None
    return data, mask if mask.any() else None


def _validity(mask: "np.ndarray[Any, Any] | None") -> pa.Buffer | None:
    return None if mask is None else pa.py_buffer(np.packbits(~mask, bitorder="little"))


def _numbers(
    data: "np.ndarray[Any, Any]", mask: "np.ndarray[Any, Any] | None", kind: pa.DataType | None
) -> pa.Array | None:
    own = _NUMBERS[data.dtype]
    if kind not in (None, own, pa.int32()) or (kind == pa.int32() and own != pa.int64()):
        return None
    buffers = [_validity(mask), pa.py_buffer(np.ascontiguousarray(data))]
    array = pa.Array.from_buffers(own, len(data), buffers)
    return array if kind in (None, own) else array.cast(kind)


def _booleans(data: "np.ndarray[Any, Any]", mask: "np.ndarray[Any, Any] | None") -> pa.Array:
    packed = pa.py_buffer(np.packbits(data, bitorder="little"))
    return pa.Array.from_buffers(pa.bool_(), len(data), [_validity(mask), packed])


def _objects(
    data: "np.ndarray[Any, Any]", mask: "np.ndarray[Any, Any] | None", kind: pa.DataType | None
) -> pa.Array | None:
    given = data.tolist()
    round_ = _round(given)
    kinds = set(map(type, round_))
    if kinds == {str} and kind == _NAMES:
        return _dictionary(given, round_, mask)
    if kinds == {str} and kind in (None, pa.string()) and mask is None:
        return _strings(given)
    if kinds == {np.ndarray} and kind == _COUNTS and mask is None:
        return _lists(given)
    return None


def _round(given: list[Any]) -> list[Any]:
    """What `given` repeats over and over, such as the layers of a step; all of it, if nothing.

    Comparing names that are the same objects takes far less than looking for each of them.
    """
    if not given or not isinstance(given[0], str):
        return given
    try:
        size = given.index(given[0], 1)
        times, rest = divmod(len(given), size)
        return given[:size] if not rest and given[:size] * times == given else given
    except ValueError:  # the first one is there once, or some do not compare
        return given


def _strings(given: list[str]) -> pa.Array:
    joined = "".join(given)
    # Letters of ASCII have a byte each.
    lengths = map(len, given if joined.isascii() else [text.encode() for text in given])
    ends = np.cumsum([0, *lengths])
    if ends[-1] > np.iinfo(np.int32).max:
        return pa.array(given, type=pa.string())
    buffers = [None, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(joined.encode())]
    return pa.Array.from_buffers(pa.string(), len(given), buffers)


def _dictionary(
    given: list[str], round_: list[str], mask: "np.ndarray[Any, Any] | None"
) -> pa.Array:
    """`given` as places in the list of different names, in order of appearance."""
    shown = round_
    if mask is not None:
        shown = [one for one, hidden in zip(given, mask, strict=True) if not hidden]
    places = {name: place for place, name in enumerate(dict.fromkeys(shown))}
    codes = np.fromiter(map(places.get, round_, repeat(0)), np.int32, len(round_))
    if len(round_) < len(given):
        codes = np.broadcast_to(codes, (len(given) // len(round_), len(round_))).reshape(-1)
    buffers = [_validity(mask), pa.py_buffer(np.ascontiguousarray(codes))]
    indices = pa.Array.from_buffers(pa.int32(), len(codes), buffers)
    return pa.DictionaryArray.from_arrays(indices, _strings(list(places)))


def _lists(given: "list[np.ndarray[Any, Any]]") -> pa.Array | None:
    """Lists of whole numbers, of which each is an array."""
    if set(map(_DTYPE, given)) != {np.dtype(np.int64)} or set(map(_AXES, given)) != {1}:
        return None
    ends = np.cumsum([0, *map(len, given)])
    flat = np.concatenate(given)
    buffers = [None, pa.py_buffer(ends.astype(np.int32))]
    values = pa.Array.from_buffers(pa.int64(), len(flat), [None, pa.py_buffer(flat)])
    return pa.Array.from_buffers(_COUNTS, len(given), buffers, children=[values])
