"""How a figure with very many marks becomes a picture."""

from io import BytesIO

from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.figure import Figure

from analyses.result import Figure as Shown
from analyses.showing import drawing


def cloud(marks: int) -> Shown:
    def draw() -> Figure:
        figure = Figure(figsize=(3, 2), layout="constrained")
        axes = figure.subplots()
        for place in range(marks):
            axes.plot([place, place + 1], [0, 1])
        return figure

    return Shown("key", "Title", "Caption.", "Alt", draw)


def test_an_svg_that_is_too_large_is_not_drawn_to_its_end(monkeypatch):
    complete = drawing.draw(cloud(40))
    drawn = []
    original = RendererSVG.draw_path
    monkeypatch.setattr(
        RendererSVG, "draw_path", lambda *args, **kw: (drawn.append(1), original(*args, **kw))[1]
    )
    assert drawing.draw(cloud(40)) == complete
    in_full = len(drawn)
    drawn.clear()
    monkeypatch.setattr(drawing, "_LARGEST_SVG", len(complete.data) // 2)
    pixels = drawing.draw(cloud(40))
    assert (pixels.suffix, pixels.width, pixels.height) == ("png", complete.width, complete.height)
    assert 0 < len(drawn) < in_full


def test_a_picture_in_pixels_is_what_is_drawn_without_trying_svg(monkeypatch):
    monkeypatch.setattr(drawing, "_LARGEST_SVG", 10_000)
    stopped = drawing.draw(cloud(40)).data
    monkeypatch.setattr(drawing, "_Svg", BytesIO)
    assert drawing.draw(cloud(40)).data == stopped


def test_an_svg_of_just_the_largest_size_is_kept(monkeypatch):
    complete = drawing.draw(cloud(5))
    monkeypatch.setattr(drawing, "_LARGEST_SVG", len(complete.data))
    assert drawing.draw(cloud(5)) == complete
    monkeypatch.setattr(drawing, "_LARGEST_SVG", len(complete.data) - 1)
    assert drawing.draw(cloud(5)).suffix == "png"
