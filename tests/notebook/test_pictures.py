"""Small pictures, in text and as images, with what they show in words."""

from __future__ import annotations

import base64
import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from grym_nb.notebook.pictures import bar, graph_image, meter, spark, spark_image


def svg_of(html: str) -> ElementTree.Element:
    [data] = re.findall(r'base64,([^"]+)"', html)
    return ElementTree.fromstring(base64.b64decode(data).decode())


def test_a_line_of_blocks() -> None:
    assert spark([]) == "" and spark([None, None]) == "  "
    assert spark([5.0, 5.0]) == "▁▁" and spark([0.0, 1.0]) == "▁█"
    assert bar(0.0, width=4) == "····" and bar(2.0, width=4) == "████"
    assert meter(0.5, 'half of "it"') == (
        '<meter min="0" max="1" value="0.500" title="half of &quot;it&quot;">half of &quot;it&quot;</meter>'
    )


@given(st.lists(st.none() | st.floats(-1e9, 1e9), max_size=60))
def test_any_values_make_a_picture_or_words(values: list[float | None]) -> None:
    assert len(spark(values)) == len(values)
    html = spark_image(values, "p95 <now>")
    if any(value is not None for value in values):
        assert 'alt="p95 &lt;now&gt;"' in html
        for line in svg_of(html).iter("{http://www.w3.org/2000/svg}polyline"):
            for point in line.attrib["points"].split():
                x, y = map(float, point.split(","))
                assert 0 <= x <= 120.1 and 0 <= y <= 24
    else:
        assert html == "p95 &lt;now&gt;"


def test_a_graph_has_those_that_are_needed_to_the_right() -> None:
    nodes = dict.fromkeys(("top", "middle", "base", "<alone>"), ("ready, healthy", "#2e7d32"))
    edges = [
        ("top", "middle", "solid"),
        ("middle", "base", "solid"),
        ("top", "base", "dashed"),
        ("x", "top", "solid"),
    ]
    svg = svg_of(graph_image(nodes, edges, "who needs whom"))
    texts = {
        element.text: float(element.attrib["x"])
        for element in svg.iter("{http://www.w3.org/2000/svg}text")
        if element.attrib["font-size"] == "13"
    }
    assert texts["top"] < texts["middle"] < texts["base"] and "<alone>" in texts
    assert len(list(svg.iter("{http://www.w3.org/2000/svg}path"))) == 1 + 3


def test_a_circle_is_drawn_too() -> None:
    nodes = dict.fromkeys("abc", ("", "#000000"))
    edges = [("a", "b", "solid"), ("b", "c", "solid"), ("c", "a", "dashed"), ("a", "a", "solid")]
    assert len(list(svg_of(graph_image(nodes, edges, "")).iter("{http://www.w3.org/2000/svg}rect"))) == 3
