"""What commands show: text and HTML of the same thing, escaped, and never too large for a notebook's file."""

from __future__ import annotations

import json

import pytest

from grym_nb.notebook.sheet import Sheet
from grym_nb.render import Table

LIMIT = 20_000


def test_a_sheet_is_the_same_thing_as_text_and_as_html() -> None:
    """Title, tables and passages, in the order given."""
    sheet = Sheet("Title", (Table("caption", ("a", "b"), [("1", "2")]), "a passage"))
    assert sheet.text() == repr(sheet) == "Title\n\ncaption\na  b\n-  -\n1  2\n\na passage"
    assert sheet._repr_html_() == (
        '<p><b>Title</b></p><table class="grym-table"><caption>caption</caption><thead><tr>'
        '<th scope="col" style="text-align: left">a</th><th scope="col" style="text-align: left">b</th>'
        "</tr></thead><tbody><tr>"
        '<td style="text-align: left">1</td><td style="text-align: left">2</td></tr></tbody></table>'
        "<pre>a passage</pre>"
    )


def test_nothing_in_a_sheet_is_markup() -> None:
    """An error's text may hold anything."""
    evil = "<img src=x onerror='alert(1)'>\"&"
    html = Sheet(evil, (Table(evil, (evil,), [(evil,)]), evil))._repr_html_()
    assert "<img" not in html
    assert html.count("&lt;img src=x onerror=&#x27;alert(1)&#x27;&gt;&quot;&amp;") == 5


@pytest.mark.parametrize(
    "part",
    ["x" * 100_000, "ü<" * 50_000, Table("long", ("n",), [(f"row {n}",) for n in range(5000)])],
    ids=["text", "entities", "rows"],
)
def test_the_reprs_are_bounded_and_say_that_they_were_cut(part: str | Table) -> None:
    """A notebook's file keeps them; `text()` has everything."""
    sheet = Sheet("t", (part, "the end"))
    assert "…" in repr(sheet)
    assert "…" in sheet._repr_html_()
    assert len(repr(sheet).encode()) < LIMIT
    assert len(sheet._repr_html_().encode()) < LIMIT
    assert sheet.text().endswith("the end")


def test_many_parts_are_bounded_too() -> None:
    """Each fits by itself, all of them do not."""
    sheet = Sheet("", ["y" * 3000] * 50)
    assert len(sheet._repr_html_().encode()) < LIMIT
    assert sheet._repr_html_().startswith("<pre>yyy")


def test_half_a_character_does_not_break_the_output() -> None:
    """A file name that is not UTF-8 is a lone surrogate in Python, and cannot be sent as it is."""
    sheet = Sheet("\udcff", ("\udcff", Table("\udcff", ("a",), [("\udcff",)])))
    assert "?" in sheet._repr_html_()
    json.dumps([repr(sheet), sheet._repr_html_()], ensure_ascii=False).encode()
