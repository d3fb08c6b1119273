"""Differences are found where they are, and nowhere else; nothing that is compared makes it raise."""

from __future__ import annotations

import copy
import pickle
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grym_nb.clip import Clip
from grym_nb.context.difference import ABSENT, Difference, differences, same, table_of

nan = float("nan")

scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
contents = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(max_size=3), inner, max_size=4),
        st.tuples(inner, inner),
        st.frozensets(st.integers(), max_size=3),
    ),
    max_leaves=12,
)


class Stranger:
    """Compares itself with nobody."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("never")

    __hash__ = object.__hash__


@settings(max_examples=200, deadline=None)
@given(contents)
def test_a_copy_does_not_differ(content: Any) -> None:
    """NaN and all: also after a pickle, which keeps no identity."""
    assert differences(content, pickle.loads(pickle.dumps(content))) == ()


@settings(max_examples=200, deadline=None)
@given(contents, contents)
def test_there_and_back_differ_in_the_same_places(one: Any, other: Any) -> None:
    there, back = differences(one, other), differences(other, one)
    assert {d.path for d in there} == {d.path for d in back}
    assert same(one, other) == (not there)
    assert len({d.path for d in there}) == len(there)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(max_size=3), contents, min_size=1, max_size=4), st.data())
def test_one_change_is_one_difference_at_its_path(content: dict[str, Any], data: st.DataObject) -> None:
    """The path is the expression that reads the value."""
    name = data.draw(st.sampled_from(sorted(content)))
    new = Clip([0.5], 8000)
    (found,) = differences(content, {**content, name: new})
    assert found.after is new and found.before is content[name]
    assert eval(found.path, {"content": content}) is content[name]


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}, [('content["a"][1]["b"]', 2, 3)]),
        ([1, 2], [1, 2, 3], [("content[2]", ABSENT, 3)]),
        ([1, 2, 3], [1], [("content[1]", 2, ABSENT), ("content[2]", 3, ABSENT)]),
        ({"a": 1}, {"b": 1}, [('content["a"]', 1, ABSENT), ('content["b"]', ABSENT, 1)]),
        ({"a": None}, {}, [('content["a"]', None, ABSENT)]),
        ({1: "x"}, {1: "y"}, [("content[1]", "x", "y")]),
        ({"x", "y"}, {"y", "z"}, [('content{"x"}', "x", ABSENT), ('content{"z"}', ABSENT, "z")]),
        (set("fedcba"), set(), [(f'content{{"{x}"}}', x, ABSENT) for x in "abcdef"]),
        ({1}, {True}, [("content{1}", 1, ABSENT), ("content{True}", ABSENT, True)]),
        (1, True, [("content", 1, True)]),
        (1, 1.0, [("content", 1, 1.0)]),
        ([1], (1,), [("content", [1], (1,))]),
        ({1}, frozenset({1}), [("content", {1}, frozenset({1}))]),
        ("a", b"a", [("content", "a", b"a")]),
        (0.0, -0.0, []),
        (nan, float("nan"), []),
        ({nan}, {float("nan")}, []),
        (np.float64("nan"), np.float64("nan"), []),
        ({"a": 1}, MappingProxyType({"a": 1}), []),
    ],
)
def test_what_differs_is_told_by_place(before: Any, after: Any, found: list[tuple[str, Any, Any]]) -> None:
    told = differences(before, after)
    assert [d.path for d in told] == [path for path, _, _ in found]
    for one, (_, old, new) in zip(told, found, strict=True):
        assert (type(one.before), type(one.after)) == (type(old), type(new))
        assert (one.before, one.after) == (old, new)


@pytest.mark.parametrize(
    ("before", "after", "equal"),
    [
        (np.array([1.0, nan]), np.array([1.0, nan]), True),
        (np.array([1.0, 2.0]), np.array([1.0, nan]), False),
        (np.array([1.0, 2.0]), np.array([1.0, 2.0], np.float32), False),
        (np.zeros((2, 1)), np.zeros((2, 3)), False),  # which would be stretched to fit
        (np.zeros((0, 2)), np.zeros((0, 3)), False),
        (np.zeros(0), np.zeros(0), True),
        (np.array(["a", "b"]), np.array(["a", "b"]), True),
        (np.array([{"a": 1}, None], object), np.array([{"a": 1}, None], object), True),
        (np.array([Stranger()], object), np.array([Stranger()], object), False),
        (np.array(["NaT"], "M8[s]"), np.array(["NaT"], "M8[s]"), True),
        (np.array([(1, nan)], "i4,f4"), np.array([(1, 2.0)], "i4,f4"), False),
        (np.float32(1), np.float64(1), False),
        (Clip([0.1, 0.2], 8000), Clip([0.1, 0.2], 8000), True),
        (Clip([0.1, 0.2], 8000), Clip([0.1, 0.2], 16000), False),
    ],
)
def test_arrays_and_clips_are_compared_as_a_whole(before: Any, after: Any, equal: bool) -> None:
    assert same(before, after) is equal
    assert [d.path for d in differences({"x": before}, {"x": after})] == ([] if equal else ['content["x"]'])


def test_tensors_are_compared_too() -> None:
    torch = pytest.importorskip("torch")
    one = torch.tensor([1.0, nan], requires_grad=True)
    assert same(one, torch.tensor([1.0, nan]))
    assert not same(one, torch.tensor([1.0, 2.0]))
    assert not same(one, torch.tensor([1.0, nan], dtype=torch.float64))


def test_strangers_differ_unless_they_are_one() -> None:
    """One that raises when it is compared, or when it is read, says nothing of the rest."""

    class Unread(dict[str, int]):
        def keys(self) -> Any:
            raise RuntimeError("never")

    one = Stranger()
    assert same([one], [one])
    assert [d.path for d in differences([one, 1], [Stranger(), 2])] == ["content[0]", "content[1]"]
    assert not same(MappingProxyType(Unread(a=1)), {"a": 2})


def test_circles_end() -> None:
    one: list[Any] = [1]
    one.append(one)
    other: list[Any] = [2]
    other.append(other)
    assert [d.path for d in differences(one, other)] == ["content[0]"]


def test_absent_is_one_and_says_so() -> None:
    assert copy.deepcopy(ABSENT) is ABSENT
    assert pickle.loads(pickle.dumps(Difference("content", ABSENT, 1))) == Difference("content", ABSENT, 1)
    assert repr(ABSENT) == "absent"


def test_the_table_shows_no_secrets_and_says_when_there_is_nothing() -> None:
    told = differences({"api_key": "s3cret", "bpm": 120, "token": 1}, {"api_key": "other", "tags": ["x"]})
    text = table_of(told).text()
    assert "s3cret" not in text and "other" not in text
    rows = [line.split() for line in text.splitlines()[3:]]
    assert rows == [
        ['content["api_key"]', "'***'", "'***'"],
        ['content["bpm"]', "120", "absent"],
        ['content["token"]', "'***'", "absent"],
        ['content["tags"]', "absent", "['x']"],
    ]
    assert table_of(()).text() == "what differs: nothing"


def test_a_secret_that_changed_is_not_shown() -> None:
    before, after = {"user": {"api_key": "hunter2"}}, {"user": {"api_key": "hunter3"}}
    [told] = differences(before, after)
    assert "hunter" not in repr(told) and "'***'" in repr(told)
    assert told.after == "hunter3"
