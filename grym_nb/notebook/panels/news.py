"""What is new in views since they were last sent: whole rows by their id, and points by their time."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from grym_nb.notebook.panels.sheets import Shown

__all__ = ["Views", "news_of", "packed"]

#: by name
Views = Mapping[str, Shown]


def news_of(before: Views, after: Views) -> dict[str, dict[str, Any]]:
    """Return, for each view that has changed, its new values; rows that changed, and the ids of all of them.

    ``{"head": {...}, "rows": [...], "order": [...]}``, each only where there is something in it; of series
    the points after the last one that is as before.
    """
    found = {name: _new(before.get(name, {}), view) for name, view in after.items()}
    return {name: new for name, new in found.items() if new}


def _new(before: Shown, after: Shown) -> dict[str, Any]:
    new: dict[str, Any] = {}
    plain = after.keys() - {"rows", "series"}
    if head := {key: after[key] for key in sorted(plain) if key not in before or before[key] != after[key]}:
        new["head"] = head
    known = {row["id"]: row for row in before.get("rows", ())}
    rows = after.get("rows", ())
    if changed := [row for row in rows if known.get(row["id"]) != row]:
        new["rows"] = changed
    if (order := [row["id"] for row in rows]) != list(known):
        new["order"] = order
    if points := _grown(before, after):
        new["points"] = points
    return new


def _grown(before: Shown, after: Shown) -> dict[str, list[Any]]:
    """Return by series until when it is as before, None where it is not, and the points after that."""
    grown: dict[str, list[Any]] = {}
    for name, points in after.get("series", {}).items():
        known = before.get("series", {}).get(name)
        same = _same(known or (), points)
        # A point that is now too old is no change: whoever draws leaves it out.
        if known is None or same < len(points) or _later(known, points):
            grown[name] = [points[same - 1][0] if same else None, _bytes(points[same:])]
    return grown


def _same(before: Sequence[Sequence[float]], after: Sequence[Sequence[float]]) -> int:
    known = {point[0]: point[1] for point in before}
    for number, (at, value) in enumerate(after):
        if known.get(at) != value:
            return number
    return len(after)


def _later(before: Sequence[Sequence[float]], after: Sequence[Sequence[float]]) -> bool:
    """Tell whether there were points after those that are left."""
    return bool(before) and bool(after) and before[-1][0] > after[-1][0]


def packed(views: Views) -> dict[str, dict[str, Any]]:
    """Return views with their points as bytes: pairs of float64, a time and a value."""
    return {
        name: {
            **view,
            **(
                {"series": {key: _bytes(its) for key, its in view["series"].items()}}
                if "series" in view
                else {}
            ),
        }
        for name, view in views.items()
    }


def _bytes(points: Sequence[Sequence[float]]) -> bytes:
    return array("d", [number for point in points for number in point]).tobytes()
