"""What a value is, whoever made it."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from grym_nb.clip import Clip
from grym_nb.context.values import dotted, is_array, number_of, numbers_in

nan, inf = float("nan"), float("inf")


class Shapeless:
    def __len__(self) -> int:
        return 1

    @property
    def shape(self) -> Any:
        raise RuntimeError("never")


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, 3.0),
        (-0.5, -0.5),
        (np.float16(0.5), 0.5),
        (np.int64(7), 7.0),
        (Fraction(1, 4), 0.25),
        *((no, None) for no in (True, np.bool_(True), nan, inf, 10**400, "3", None, 1j, [3], Decimal(3))),
        (np.float32("nan"), None),
        (np.array(3.0), None),
    ],
)
def test_a_number_is_finite_real_and_no_bool(value: Any, number: float | None) -> None:
    told = number_of(value)
    assert told == number and type(told) is type(number)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (np.zeros(3), True),
        (np.array(1.0), True),
        (np.ma.masked_array([1.0]), True),
        *((no, False) for no in (np.float32(1), np.str_("ab"), np.bytes_(b"ab"), [1.0], "ab", Shapeless())),
        (Clip([0.1], 8000), False),
    ],
)
def test_an_array_has_a_shape_and_a_kind(value: Any, told: bool) -> None:
    assert is_array(value) is told


def test_only_real_numbers_are_read_from_an_array() -> None:
    assert numbers_in(np.array([1, 2], np.int8)).tolist() == [1.0, 2.0]
    for strange in (np.array([1j]), np.array([True]), np.array(["1"]), np.array([None], object)):
        assert numbers_in(strange) is None


@pytest.mark.parametrize(
    ("path", "name", "told"),
    [
        ("", "bpm", "bpm"),
        ("rhythm", "bpm", "rhythm.bpm"),
        ("a", "two words", "a.two words"),
        ("", "a.b", "['a.b']"),
        ("a", "b.c", "a['b.c']"),
        ("a", "", "a['']"),
        ("a", " b", "a[' b']"),
        ("a", "b: c", "a['b: c']"),
        ("a", "b\nc", "a['b\\nc']"),
        ("a", "[0]", "a['[0]']"),
        ("a", 0, "a[0]"),
        ("a", "0", "a.0"),
        ("a", (1, 2), "a[(1, 2)]"),
    ],
)
def test_no_two_fields_share_a_path(path: str, name: Any, told: str) -> None:
    assert dotted(path, name) == told
