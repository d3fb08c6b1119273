"""Small pictures of figures: as text, and as images that survive where outputs are sanitised.

>>> spark([1.0, 2.0, 4.0, None, 8.0])
'▁▂▄ █'
>>> bar(0.5, width=8)
'████····'
"""

from __future__ import annotations

import html
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["COLOURS", "bar", "graph_image", "image", "meter", "spark", "spark_image"]

_BLOCKS = "▁▂▃▄▅▆▇█"
#: of a state or a verdict; its word stands beside it, always
COLOURS: Mapping[str, str] = {
    "healthy": "#2e7d32",
    "degraded": "#b26a00",
    "unhealthy": "#c62828",
    "unknown": "#616161",
}
_INK = "#5c6bc0"  # on dark and on light


def spark(values: Sequence[float | None]) -> str:
    """Return a line of blocks, one for each value; nothing where there is none."""
    known = [value for value in values if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    span = high - low

    def block(value: float | None) -> str:
        if value is None:
            return " "
        return _BLOCKS[round((value - low) / span * 7)] if span else _BLOCKS[0]

    return "".join(map(block, values))


def bar(share: float, *, width: int = 20) -> str:
    """Return how much of a whole there is, as a bar of blocks."""
    full = round(max(0.0, min(1.0, share)) * width)
    return "█" * full + "·" * (width - full)


def meter(share: float, words: str) -> str:
    """Return the same as HTML, which says it in words to those who do not see it."""
    told = html.escape(words)
    return f'<meter min="0" max="1" value="{max(0.0, min(1.0, share)):.3f}" title="{told}">{told}</meter>'


def image(svg: str, words: str) -> str:
    """Return an SVG as an image in HTML, with what it shows in words."""
    data = b64encode(svg.encode()).decode()
    return f'<img alt="{html.escape(words)}" src="data:image/svg+xml;base64,{data}">'


def spark_image(
    values: Sequence[float | None], words: str, *, width: int = 120, height: int = 24, colour: str = _INK
) -> str:
    """Return values as a line in a small image; a gap where there is none."""
    known = [value for value in values if value is not None]
    if not known:
        return html.escape(words)
    low, span = min(known), (max(known) - min(known)) or 1.0
    step = width / max(1, len(values) - 1)

    def point(at: int, value: float) -> str:
        return f"{at * step:.1f},{height - 2 - (value - low) / span * (height - 4):.1f}"

    lines = [
        f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{" ".join(line)}"/>'
        for line in _pieces([None if v is None else point(i, v) for i, v in enumerate(values)])
    ]
    return image(_svg(width, height, "".join(lines), words), words)


def _pieces(points: Iterable[str | None]) -> list[list[str]]:
    pieces: list[list[str]] = [[]]
    for point in points:
        if point is None:
            pieces.append([])
        else:
            pieces[-1].append(point)
    return [piece if len(piece) > 1 else piece * 2 for piece in pieces if piece]


def _svg(width: float, height: float, inside: str, words: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img"><title>{html.escape(words)}</title>{inside}</svg>'
    )


# -- a graph ---------------------------------------------------------------------------------------

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y = 150, 44, 60, 18


def graph_image(
    nodes: Mapping[str, tuple[str, str]], edges: Iterable[tuple[str, str, str]], words: str
) -> str:
    """Return services as boxes in layers, who needs somebody left of whom it needs, as an image.

    `nodes` has a second line and a colour by name; `edges` are from, to, and ``"solid"`` or ``"dashed"``.
    """
    arrows = [edge for edge in edges if edge[0] in nodes and edge[1] in nodes]
    layers = _layers(list(nodes), [(source, target) for source, target, _ in arrows])
    at: dict[str, tuple[float, float]] = {}
    for x, names in enumerate(layers):
        for y, name in enumerate(names):
            at[name] = (10 + x * (_WIDTH + _GAP_X), 10 + y * (_HEIGHT + _GAP_Y))
    width = 20 + len(layers) * (_WIDTH + _GAP_X) - _GAP_X
    height = 20 + max((len(names) for names in layers), default=1) * (_HEIGHT + _GAP_Y) - _GAP_Y
    drawn = [_arrow(at[source], at[target], kind) for source, target, kind in arrows]
    drawn += [_box(at[name], name, second, colour) for name, (second, colour) in nodes.items()]
    return image(_svg(max(width, 20), max(height, 20), _MARKER + "".join(drawn), words), words)


def _layers(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Return the names by how far they are from those that nobody leads to; a circle is cut anywhere."""
    depth = dict.fromkeys(names, 0)
    for _ in names:
        for source, target in edges:
            if source != target and depth[target] <= depth[source] < len(names) - 1:
                depth[target] = depth[source] + 1
    layers: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for name in names:
        layers[depth[name]].append(name)
    return [layer for layer in layers if layer]


_MARKER = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto"><path d="M0 0L8 4L0 8z" fill="#757575"/></marker></defs>'
)


def _arrow(source: tuple[float, float], target: tuple[float, float], kind: str) -> str:
    x1, y1 = source[0] + _WIDTH, source[1] + _HEIGHT / 2
    x2, y2 = target[0], target[1] + _HEIGHT / 2
    if x2 <= source[0]:  # backwards: around below
        x1, x2 = source[0], target[0] + _WIDTH
    middle = (x1 + x2) / 2
    dashed = ' stroke-dasharray="4 3"' if kind == "dashed" else ""
    return (
        f'<path d="M{x1:.0f} {y1:.0f}C{middle:.0f} {y1:.0f} {middle:.0f} {y2:.0f} {x2:.0f} {y2:.0f}" '
        f'fill="none" stroke="#757575" stroke-width="1.5"{dashed} marker-end="url(#tip)"/>'
    )


def _box(at: tuple[float, float], name: str, second: str, colour: str) -> str:
    x, y = at
    style = 'font-family="sans-serif" text-anchor="middle"'
    return (
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" fill="#ffffff" '
        f'stroke="{colour}" stroke-width="2"/>'
        f'<text x="{x + _WIDTH / 2:.0f}" y="{y + 18:.0f}" font-size="13" fill="#212121" {style}>'
        f"{html.escape(_cut(name, 19))}</text>"
        f'<text x="{x + _WIDTH / 2:.0f}" y="{y + 34:.0f}" font-size="11" fill="{colour}" {style}>'
        f"{html.escape(_cut(second, 24))}</text>"
    )


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
