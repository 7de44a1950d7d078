"""Puts a drawing into the page as an inline SVG, so that the slider's script can change it."""

import json
import re
from xml.etree import ElementTree

from markupsafe import Markup

from analyses.result import Slider
from analyses.showing.drawing import Picture

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
# All elements that matplotlib uses if nothing is clipped; other elements are removed.
_KEPT_ELEMENTS = {f"{_SVG}{name}" for name in ("svg", "g", "path", "use", "defs")}
_TRANSLATION = re.compile(
    r"translate\((?P<x>[-\d.]+) (?P<y>[-\d.]+)\)(?: scale\((?P<scale>[-\d.]+))?"
)
# Thin lines are hard to point at, so each arrow gets an invisible line of this width.
_POINTER_TARGET_WIDTH = "10"


def inline_svg(picture: Picture, slider: Slider, prefix: str) -> Markup:
    """The drawing as an `svg` element whose ids begin with `prefix`, without styles or scripts.

    Every arrow of `slider` can be pointed at; its title is its name and present text. Texts that
    the slider changes become text elements; other texts remain paths.

    Raises `ValueError` if the picture is not an SVG.
    """
    if picture.suffix != "svg":
        raise ValueError(f"a picture of type {picture.suffix} cannot be put inline into the page")
    root = ElementTree.fromstring(picture.data)
    _clean(root)
    _prefix_ids(root, prefix)
    _move_glyphs_to_front(root)
    by_id = {element.get("id"): element for element in root.iter() if element.get("id")}
    for gid, texts in slider.texts.items():
        element = by_id.get(f"{prefix}-{gid}")
        if element is None:
            continue
        if gid in slider.widths:
            _make_pointer_target(element, f"{slider.names.get(gid, gid)}: {texts[slider.shown]}")
        else:
            _replace_with_text(element, texts[slider.shown])
    # The page is HTML, not XML: inside `svg`, tag names without a namespace are read as SVG.
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {
        "width": f"{picture.width * 96 / 72:.0f}",
        "height": f"{picture.height * 96 / 72:.0f}",
        # matplotlib sets this in a style sheet, which would apply to the whole page.
        "stroke-linejoin": "round",
    }
    text = ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)
    return Markup(text)


def slider_data(slider: Slider) -> str:
    """The data of `slider` for the page's script, as JSON."""
    content = {
        "label": slider.label,
        "positions": slider.positions,
        "shown": slider.shown,
        "widths": dict(slider.widths),
        "sizes": dict(slider.sizes),
        "names": dict(slider.names),
        "texts": dict(slider.texts),
    }
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _clean(element: ElementTree.Element) -> None:
    """Remove other elements, and turn styles into attributes: the page's policy forbids styles."""
    for child in list(element):
        if child.tag in _KEPT_ELEMENTS:
            _clean(child)
        else:
            element.remove(child)
    for rule in element.attrib.pop("style", "").split(";"):
        name, _, value = rule.partition(":")
        if value:
            element.set(name.strip(), value.strip())


def _prefix_ids(root: ElementTree.Element, prefix: str) -> None:
    for element in root.iter():
        if "id" in element.attrib:
            element.set("id", f"{prefix}-{element.attrib['id']}")
        if _LINK in element.attrib:
            target = element.attrib.pop(_LINK)
            element.set("href", f"#{prefix}-{target.removeprefix('#')}")


def _move_glyphs_to_front(root: ElementTree.Element) -> None:
    """Move the glyph definitions to the front; matplotlib puts each where it is first used."""
    for parent in list(root.iter()):
        for child in parent.findall(f"{_SVG}defs"):
            parent.remove(child)
            root.insert(0, child)


def _make_pointer_target(element: ElementTree.Element, words: str) -> None:
    element.set("class", "arrow")
    element.set("role", "img")
    title = ElementTree.Element(f"{_SVG}title")
    title.text = words
    for line in element.findall(f"{_SVG}path"):
        target = ElementTree.SubElement(element, f"{_SVG}path", {"d": line.get("d", "")})
        target.attrib |= {"class": "target", "fill": "none", "stroke-width": _POINTER_TARGET_WIDTH}
    element.insert(0, title)


def _replace_with_text(element: ElementTree.Element, words: str) -> None:
    """Replace the paths of `element`, which draw a text, by a text element with `words`."""
    place = next(
        (
            match
            for inner in element.iter()
            if (match := _TRANSLATION.match(inner.get("transform", "")))
        ),
        None,
    )
    if place is None:
        return
    fills = [inner.attrib["fill"] for inner in element.iter() if "fill" in inner.attrib]
    for child in list(element):
        element.remove(child)
    # matplotlib scales glyphs by a hundredth of the font size.
    size = 100 * float(place["scale"] or 0.07)
    text = ElementTree.SubElement(element, f"{_SVG}text")
    text.attrib |= {
        "x": place["x"],
        "y": place["y"],
        "font-size": f"{size:g}",
        "fill": fills[0] if fills else "#000000",
    }
    text.text = words
