"""What is new in views: a page that takes in all of it has the views themselves."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from grym_nb.notebook.panels.news import news_of, packed

Rows = st.dictionaries(st.sampled_from("abcde"), st.integers(0, 3))
Series = st.dictionaries(st.integers(0, 30), st.integers(0, 3), max_size=12)


def unpacked(data: bytes) -> list[list[float]]:
    numbers = struct.unpack(f"{len(data) // 8}d", data)
    return [list(pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]


def taken_in(views: dict[str, Any], news: dict[str, Any]) -> dict[str, Any]:
    """Do what the page does."""
    views = {**views}
    for name, new in news.items():
        view = {"rows": [], "series": {}, **views.get(name, {}), **new.get("head", {})}
        rows = {row["id"]: row for row in view["rows"]} | {row["id"]: row for row in new.get("rows", [])}
        view["rows"] = [rows[id] for id in new.get("order", [row["id"] for row in view["rows"]])]
        view["series"] = {**view["series"]}
        for key, (until, data) in new.get("points", {}).items():
            kept = [p for p in view["series"].get(key, []) if until is not None and p[0] <= until]
            view["series"][key] = [*kept, *unpacked(data)]
        views[name] = view
    return views


def view_of(rows: dict[str, int], series: dict[int, int], head: int) -> dict[str, Any]:
    points = [[float(at), float(value)] for at, value in sorted(series.items())]
    return {"head": head, "rows": [{"id": id, "value": v} for id, v in rows.items()], "series": {"p": points}}


@given(Rows, Rows, Series, Series, st.integers(0, 1), st.integers(0, 1))
def test_who_takes_in_the_news_has_what_is_there(
    rows: dict[str, int],
    later: dict[str, int],
    series: dict[int, int],
    longer: dict[int, int],
    one: int,
    two: int,
) -> None:
    """But for points that have become too old, which are left out as it is drawn."""
    before, after = {"v": view_of(rows, series, one)}, {"v": view_of(later, longer, two)}
    got = taken_in(taken_in({}, news_of({}, before)), news_of(before, after))["v"]
    want = after["v"]
    assert (got["head"], got["rows"]) == (want["head"], want["rows"])
    first = min(longer, default=99)
    assert [point for point in got["series"]["p"] if point[0] >= first] == want["series"]["p"]


def test_nothing_new_is_nothing() -> None:
    """Points that leave at the old end are no news."""
    view = view_of({"a": 1}, {1: 1, 2: 2}, 0)
    assert news_of({"v": view}, {"v": view}) == {}
    assert news_of({"v": view}, {"v": view_of({"a": 1}, {2: 2}, 0)}) == {}


def test_only_rows_that_changed_are_sent() -> None:
    """Of a hundred services the one that was called."""
    before = {"v": view_of(dict.fromkeys("abcde", 1), {1: 1}, 0)}
    after = {"v": view_of({**dict.fromkeys("abcde", 1), "c": 2}, {1: 1, 2: 5}, 0)}
    [(until, data)] = news_of(before, after)["v"]["points"].values()
    assert (until, unpacked(data)) == (1.0, [[2.0, 5.0]])
    assert news_of(before, after)["v"]["rows"] == [{"id": "c", "value": 2}]
    assert "order" not in news_of(before, after)["v"]


def test_all_of_it_has_its_points_as_bytes() -> None:
    """A time is no float32."""
    view = view_of({"a": 1}, {}, 0) | {"series": {"p": [[1_796_096_000.25, 2.0]]}}
    assert unpacked(packed({"v": view})["v"]["series"]["p"]) == [[1_796_096_000.25, 2.0]]
    assert packed({"v": {"rows": []}}) == {"v": {"rows": []}}
