"""SVG elements as text that a template may insert as it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

Point = tuple[float, float]


def element(tag: str, content: str = "", **attributes: str | float | None) -> Markup:
    """One element; everything but Markup is escaped.

    Args:
        tag: its name.
        content: text or other elements.
        **attributes: `class_` becomes `class` and `text_anchor` becomes `text-anchor`; None leaves one out. Numbers
            are rounded to a hundredth of a pixel.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{written}>{escape(content)}</{tag}>")


def joined(parts: Iterable[Markup]) -> Markup:
    """Elements one after the other."""
    return Markup("").join(parts)


def drawing(width: float, height: float, label: str, parts: Iterable[Markup]) -> Markup:
    """A whole picture that scales with the page and is read out as its label."""
    return element(
        "svg",
        joined([element("title", label), *parts]),
        viewBox=f"0 0 {_text(width)} {_text(height)}",
        role="img",
        class_="plot",
        style=f"max-width:{_text(width)}px",
    )


def line_path(points: Sequence[Point]) -> str:
    """The path through pixels; it is broken where a coordinate is not finite."""
    commands = []
    pen_is_down = False
    for x, y in points:
        is_finite = abs(x) + abs(y) < float("inf")  # False of NaN, too
        if is_finite:
            commands.append(f"{'L' if pen_is_down else 'M'}{_text(x)} {_text(y)}")
        pen_is_down = is_finite
    return "".join(commands)


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{round(float(value), 2):g}"
