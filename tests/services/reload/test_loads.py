"""Whether other code would load other weights."""

from __future__ import annotations

from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest

from grym_nb.services.reload.loads import changed_in_load, load_of

TEXT = """
    import math
    import helper
    WIDTH = 3
    UNRELATED = 4
    class Net:
        def __init__(self, width):
            self.width = width
            self.rows = build(width) * self.DEPTH
        DEPTH = 2
        def forward(self):
            return self.width
    def build(width):
        return [math.sqrt(at) for at in range(width)]
    def cell():
        return lambda: Net(WIDTH)
    class Model:
        def load(self):
            self.net = self.made()
            self.more = helper.more()
        def made(self):
            return cell()()
        def run(self, x):
            return x * UNRELATED
"""
HELPER = "LARGE = [0] * 100\ndef more(): return LARGE\ndef other(): return 1\n"


def made(text: str, helper: ModuleType) -> Any:
    space: dict[str, Any] = {"__name__": "mine", "helper": helper}
    exec(dedent(text).replace("import helper", ""), space)
    return space["Model"]


def helping(text: str) -> ModuleType:
    helper = ModuleType("helper")
    exec(text, vars(helper))
    return helper


def changed(old: type, new: type) -> tuple[str, ...]:
    return changed_in_load(load_of(old), load_of(new))


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        ("return x * UNRELATED", "return x + UNRELATED", ()),
        ("UNRELATED = 4", "UNRELATED = 5", ()),
        ("WIDTH = 3", "WIDTH = 4", ("mine.WIDTH",)),
        ("math.sqrt(at)", "math.exp(at)", ("mine.build",)),
        ("self.width = width", "self.width = width + 1", ("mine.Net.__init__",)),
        ("DEPTH = 2", "DEPTH = 3", ("mine.Net.DEPTH",)),
        ("return self.width", "return -self.width", ()),
        ("class Net:", "class Net(list):", ("mine.Net",)),
        ("return cell()()", "return cell()", ("self.made",)),
        ("self.more = helper.more()", "self.more = None", ("self.load", "helper.more", "helper.LARGE")),
        ("# nothing", "# nothing", ()),
    ],
)
def test_what_a_load_leads_to(was: str, now: str, told: tuple[str, ...]) -> None:
    helper = helping(HELPER)
    assert was in TEXT or told == ()
    assert set(changed(made(TEXT, helper), made(TEXT.replace(was, now), helper))) == set(told)


def test_a_helper_counts_by_what_is_used_of_it() -> None:
    helper = helping(HELPER)
    other, more = helping(HELPER), helping(HELPER)
    other.LARGE, other.more = helper.LARGE, helper.more
    assert changed(made(TEXT, helper), made(TEXT, other)) == ()
    assert changed(made(TEXT, helper), made(TEXT, more)) == ("helper.LARGE",)


@pytest.mark.parametrize(
    ("value", "other"),
    [
        ("[1, 2]", "[1, 3]"),
        ("{'a': [1]}", "{'a': [True]}"),
        ("(1, (2, 3))", "(1, (2, 4))"),
        ("pathlib.Path('a')", "pathlib.Path('b')"),
        ("numpy.zeros(2)", "numpy.ones(2)"),
        ("functools.partial(int, '3')", "functools.partial(int, '4')"),
        ("threading.Lock()", "[]"),
    ],
)
def test_what_stands_in_a_class_is_made_anew_with_it(value: str, other: str) -> None:
    """So it counts by its content: else each edit of a task would load anew."""
    text = (
        "import functools, numpy, pathlib, threading\n"
        f"class S:\n    at = {value}\n    def load(self): self.n = self.at\n    def task(self): return 1\n"
    )
    spaces: list[dict[str, Any]] = [{"__name__": "mine"} for _ in range(3)]
    edited = text.replace("1\n", "2\n"), text.replace(value, other)
    for space, its in zip(spaces, (text, *edited), strict=True):
        exec(its, space)
    assert changed(spaces[0]["S"], spaces[1]["S"]) == ()
    assert changed(spaces[0]["S"], spaces[2]["S"]) == ("self.at",)


def test_a_class_without_a_load_loads_nothing() -> None:
    assert changed(type("A", (), {}), type("A", (), {})) == ()
