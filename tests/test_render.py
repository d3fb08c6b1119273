"""Values are told in a few words, secrets are not told, and tables survive every front end."""

from __future__ import annotations

from html.parser import HTMLParser
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_nb.render import Table, brief, redacted, seconds, size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0 us"),
        (3.1e-6, "3.1 us"),
        (999.7e-6, "1 ms"),
        (0.25, "250 ms"),
        (0.9996, "1 s"),
        (59.9, "59.9 s"),
        (59.96, "1 min 0 s"),
        (125, "2 min 5 s"),
        (3599.9, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (-0.5, "-500 ms"),
        (inf, "inf s"),
        (nan, "nan s"),
    ],
)
def test_durations_are_read_at_a_glance(value: float | None, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KB"),
        (99_960, "100 KB"),
        (118_000, "118 KB"),
        (999_950, "1.0 MB"),
        (2_000_000_000, "2.0 GB"),
        (-2000, "-2.0 KB"),
        (5 * 10**14, "500.0 TB"),
    ],
)
def test_sizes_are_decimal_and_have_two_or_three_digits(value: int | None, text: str) -> None:
    assert size(value) == text


@given(st.floats(0, 1e7))
def test_a_duration_never_shows_an_exponent_above_a_microsecond(value: float) -> None:
    assert "e+" not in seconds(value)


class Shaped:
    shape = (2, 3)
    dtype = "float32"


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Shaped(), "Shaped float32 (2, 3)"),
        (b"12345", "bytes of 5 bytes"),
        ([1, 2, 3, 4], "[1, 2, 3, 4]"),
        (list(range(5)), "list of 5"),
        (dict.fromkeys("abcde"), "dict of 5"),
        ("short", "'short'"),
        ("a\n  b", r"'a\n b'"),
        (Rude(), "<Rude, its repr raised RuntimeError>"),
        (12.5, "12.5"),
    ],
)
def test_a_value_is_told_without_its_contents(value: object, text: str) -> None:
    assert brief(value) == text


@given(st.text() | st.lists(st.text()) | st.dictionaries(st.text(), st.text()), st.integers(5, 80))
def test_a_value_is_told_in_one_line_no_wider_than_asked(value: object, width: int) -> None:
    told = brief(value, width=width)
    assert "\n" not in told
    assert len(told) <= max(width, len("list of 1000"))


def test_a_numpy_array_is_told_by_type_and_shape() -> None:
    numpy = pytest.importorskip("numpy")
    assert brief(numpy.zeros((3, 4), dtype="float32")) == "ndarray float32 (3, 4)"


@pytest.mark.parametrize(
    ("config", "shown"),
    [
        ({"api_key": "x", "n": 3}, {"api_key": "'***'", "n": "3"}),
        ({"HF_TOKEN": "x", "Password": "y"}, {"HF_TOKEN": "'***'", "Password": "'***'"}),
        ({"auth": {"token": "x", "user": "me"}}, {"auth": "{'token': '***', 'user': 'me'}"}),
        (
            {"hosts": [{"secret": "x"}, ("a", {"api_key": "x"})]},
            {"hosts": "[{'secret': '***'}, ('a', {'api_key': '***'})]"},
        ),
        ({"deep": {"er": {**dict.fromkeys("abcde", 1), "token": "x"}}}, None),
    ],
)
def test_what_looks_like_a_secret_is_left_out_however_deep(config: Any, shown: Any) -> None:
    found = redacted(config)
    assert "'x'" not in str(found)
    assert shown is None or found == shown


def test_a_config_that_holds_itself_or_raises_is_still_told() -> None:
    loop: list[Any] = []
    loop.append(loop)

    class Broken(dict[str, int]):
        def items(self) -> Any:
            raise RuntimeError("no")

    assert redacted({"loop": loop, "broken": Broken(a=1)}) == {
        "loop": "[[[['…']]]]",
        "broken": "'<Broken>'",
    }


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text.append(data)


TABLE = Table("Services", ("name", "state"), [("a", "ready"), ("<b>", "failed & gone")])


def test_a_table_as_text_is_in_columns() -> None:
    assert TABLE.text() == ("Services\nname  state\n----  -------------\na     ready\n<b>   failed & gone")


def test_a_table_as_html_is_plain_and_escaped() -> None:
    parsed = Tags()
    parsed.feed(TABLE.html())
    assert parsed.tags == {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert parsed.attributes == {"class", "scope", "style"}
    assert parsed.text == ["Services", "name", "state", "a", "ready", "<b>", "failed & gone"]


def test_an_empty_table_says_so() -> None:
    empty = Table("Calls <1>", ("id",), [])
    assert (empty.text(), empty.html()) == ("Calls <1>: nothing yet", "<p>Calls &lt;1&gt;: nothing yet</p>")
