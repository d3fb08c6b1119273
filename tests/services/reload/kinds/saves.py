"""Saves that are easily taken for what they are not: for none, or for ones that may be put in force."""

from __future__ import annotations

from tests.services.reload.kinds.kind import Kind, kind, service

__all__ = ["SAVES"]

_TEXT = service("return x + 1")

SAVES: tuple[Kind, ...] = (
    kind("a touch", _TEXT, {"m": _TEXT}, 4, 4, how="unchanged"),
    kind("as many bytes, within its second", _TEXT, ("x + 1", "x + 2"), 4, 5, at_once=True),
    kind("slower code", _TEXT, ("x + 1", "x + 2 + 0 * sum(range(10 ** 6))"), 4, 5),
    kind("what raises on a rare input", _TEXT, ("x + 1", "{3: 40, 2: 30}[x]"), 4, 10, then=(9,)),
)
