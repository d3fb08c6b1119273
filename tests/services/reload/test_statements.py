"""A text as its statements: read in parts where it was read before, and the same as if read whole."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_nb.services.reload import statements as module
from grym_nb.services.reload.statements import Statement, statements_of

LINES = [
    "a = 1",
    "a = 1; b = 2",
    "b = a; c = (",
    ")",
    "import os, sys",
    "from .near import one, two",
    "def f(x):",
    "    return x + a",
    "    a.append(x)",
    "@f",
    "@f  # again",
    "class C(f):",
    "    def m(self): return b",
    "if a:",
    "    b = 3",
    "else:",
    "try:",
    "except ValueError: c = 1",
    "finally:",
    '"""',
    'text = """',
    "x = 1 + \\",
    "  ",
    "",
    "# said",
    "    # inside",
    "\x0c",
    "c = [",
    "    1, 2]",
    "global_ = lambda: a",
    "\tb = 1",
    "carriage = 'a\rb'",
]
IMPORTS = (ast.Import, ast.ImportFrom)
SEEN = {*Statement.__slots__, "first", "last"} - {"node", "lower"}
TEXTS = st.lists(st.sampled_from(LINES), max_size=14)


def told(found: list[Statement]) -> list[dict[str, Any]]:
    return [{name: getattr(one, name) for name in SEEN} for one in found]


def read(text: str, **known: Any) -> object:
    try:
        return told(statements_of(text, "home.m", **known))
    except SyntaxError as error:
        return str(error), error.lineno, error.offset, error.text


@given(TEXTS, TEXTS, TEXTS, TEXTS, st.booleans())
def test_a_text_is_read_as_if_nothing_had_been_read_before(
    head: list[str], was: list[str], now: list[str], tail: list[str], ends: bool
) -> None:
    end = "\n" if ends else ""
    before, after = ("\n".join([*head, *middle, *tail]) + end for middle in (was, now))
    try:
        known = statements_of(before, "home.m")
    except SyntaxError:
        return
    assert read(after, before=before, known=known) == read(after)


@given(TEXTS, TEXTS)
def test_what_python_reads_is_read(head: list[str], tail: list[str]) -> None:
    text = "\n".join([*head, "a = 1; \\", "b = 2 \\", "", *tail])
    try:
        places = [node.lineno for node in ast.parse(text).body if not isinstance(node, IMPORTS)]
    except SyntaxError:
        return
    found = statements_of(text, "home.m")
    assert [one.node.lineno for one in found if not isinstance(one.node, IMPORTS)] == places


@given(st.lists(TEXTS, min_size=2, max_size=5))
def test_edit_by_edit_it_stays_the_same(middles: list[list[str]]) -> None:
    text, known = "", list[Statement]()
    for middle in middles:
        new = "\n".join(["a = 1", "def f(x):", "    return x", *middle, "class C:", "    b = 2", "c = 3", ""])
        whole = read(new)
        assert read(new, before=text, known=known) == whole
        if isinstance(whole, list):
            text, known = new, statements_of(new, "home.m", before=text, known=known)


def test_only_what_was_edited_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    monkeypatch.setattr(module, "parsed", lambda text, path: parsed.append(text) or ast.parse(text, path))
    before = "".join(f"def f{at}(x):\n    return x + {at}\n\n\n" for at in range(9))
    known = statements_of(before, "m")
    parsed.clear()
    after = before.replace("x + 4", "x + 4 + y\n    # more")
    found = statements_of(after, "m", before=before, known=known)
    [text] = parsed
    assert text.strip() == "def f4(x):\n    return x + 4 + y\n    # more"
    assert [one.first for one in found] == [1, 5, 9, 13, 17, 22, 26, 30, 34]
    assert found[3] is known[3]
