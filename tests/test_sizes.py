"""Sizes are read as people write them; what may mean two things is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_nb.errors import ConfigError, Problem
from grym_nb.render import size
from grym_nb.sizes import large_size, parse_size, sizes_of

MiB = 1024**2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (0, 0),
        (123, 123),
        ("7 B", 7),
        ("2GB", 2 * 10**9),
        (4e9, 4 * 10**9),
        ("2 gb", 2 * 10**9),
        ("2G", 2 * 10**9),
        ("1.5 TB", 1_500_000_000_000),
        ("200MB", 200_000_000),
        ("  512 MiB ", 512 * MiB),
        ("512mi", 512 * MiB),
        ("1 KiB", 1024),
        ("1kB", 1000),
        ("0.5GiB", 1024**3 // 2),
        ("9007199254740993 B", 9007199254740993),
    ],
)
def test_it_reads_units_of_1000_and_of_1024(text: str | int, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "GB",
        "2XB",
        "-1",
        -1,
        "1e9",
        "2 GB of it",
        "iB",
        "1 i",
        "1,5 GB",
        "٣ GB",
        True,
        1.5,
        None,
    ],
)
def test_anything_else_is_refused_with_what_is_accepted(text: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_size(text)
    expected = "text with a unit such as '2GB' or '512 MiB', or bytes as a number"
    assert caught.value.problems == (Problem("size", repr(text), expected),)


@pytest.mark.parametrize("text", ["200", " 1000000000 "])
def test_a_text_without_a_unit_is_told_how_to_say_it(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_size(text)
    [problem] = caught.value.problems
    assert problem.expected == f"a unit: '{text.strip()}B' are so many bytes"
    assert parse_size(f"{text.strip()}B") == int(text)


@given(st.integers(0, 10**15))
def test_it_reads_what_render_writes_to_the_digits_that_are_shown(number: int) -> None:
    assert parse_size(size(number)) == pytest.approx(number, rel=0.051, abs=0.5)


@given(st.text(max_size=12) | st.from_regex(r"[0-9.]{1,5} ?[kKmMgG]?i?[bB]?", fullmatch=True))
def test_whatever_the_text_it_is_a_size_or_a_config_error(text: str) -> None:
    try:
        assert parse_size(text) >= 0
    except ConfigError as error:
        assert error.problems


def test_one_size_is_of_all_and_several_are_by_what_they_are_of() -> None:
    assert sizes_of(None) == {} and sizes_of("4GB") == {"total": 4 * 10**9}
    assert sizes_of({"cuda:0": "20GB", "cpu": 70_000}) == {"cuda:0": 20 * 10**9, "cpu": 70_000}
    assert sizes_of({"cuda:0": "7B", "cpu": None}) == {"cuda:0": 7}
    with pytest.raises(ConfigError):
        sizes_of({"cpu": "lots"})


@pytest.mark.parametrize("number", [0, 4, 9999])
def test_a_small_number_may_have_meant_gigabytes(number: int) -> None:
    with pytest.raises(ConfigError, match=rf"'{number}GB', or '{number}B'"):
        sizes_of(number)
    with pytest.raises(ConfigError):
        large_size(number)
    assert large_size(f"{number}B") == number and large_size(10_000) == 10_000
