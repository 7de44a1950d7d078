"""Lays out equal texts once: matplotlib lays out every text some ten times for one picture.

A layout takes a quarter of the time of a picture. It does not depend on the place of the text.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from matplotlib import rcParams
from matplotlib.artist import Artist
from matplotlib.text import Text

_METHOD = "_get_layout"
# What a text is besides its layout.
_NO_PART = {"_x", "_y", "_color", "_renderer", "_bbox_patch", "_antialiased", "_picker"}
# A layout depends on these settings besides the text.
_SETTINGS = ("font.", "mathtext.", "text.")
# Some figures have hundreds of numbers that no other has.
_MOST_LAYOUTS = 20_000

_kept: dict[Any, Any] = {}


@contextmanager
def layouts_kept() -> Iterator[None]:
    """Within this block each layout is computed once, also for later blocks."""
    original = getattr(Text, _METHOD, None)
    if original is None or getattr(original, "keeps", False):  # another matplotlib, or nested
        yield
        return
    if len(_kept) > _MOST_LAYOUTS:
        _kept.clear()
    setattr(Text, _METHOD, _keeping(original))
    try:
        yield
    finally:
        setattr(Text, _METHOD, original)


def _keeping(original: Callable[[Text, Any], Any]) -> Callable[[Text, Any], Any]:
    names = [(name, str(value)) for name, value in rcParams.items() if name.startswith(_SETTINGS)]
    settings = hash(tuple(names))

    def layout(text: Text, renderer: Any) -> Any:
        key = _key(text, renderer, settings)
        if key is None:
            return original(text, renderer)
        try:
            known = _kept.get(key)
        except TypeError:  # a part that cannot be compared
            return original(text, renderer)
        if known is None:
            known = _kept[key] = original(text, renderer)
        return known

    layout.keeps = True  # type: ignore[attr-defined]
    return layout


def _key(text: Text, renderer: Any, settings: int) -> Any:
    """What the layout of `text` depends on; None if on more than can be named."""
    figure = text.get_figure()
    if figure is None or text.get_wrap() or text.get_transform_rotates_text():
        return None
    parts = vars(text)
    font = hash(text.get_fontproperties())
    return (type(renderer), figure.dpi, settings, font, *[parts.get(name) for name in _parts()])


@cache
def _parts() -> tuple[str, ...]:
    """The names of what makes a text, in the installed matplotlib; its font counts by its hash."""
    return tuple(
        sorted(vars(Text()).keys() - vars(Artist()).keys() - _NO_PART - {"_fontproperties"})
    )
