"""What is shared cannot be changed by who reads it, and is to everyone else the plain value that was put."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_nb.context import ContextStore
from grym_nb.context.content import frozen, kept, plain_kind
from grym_nb.context.difference import same
from grym_nb.errors import ValidationError

members = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=3))
values = st.recursive(
    members,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.tuples(inner, inner),
        st.sets(members, max_size=3),
        st.frozensets(members, max_size=3),
    ),
    max_leaves=8,
)


def kinds_in(value: Any) -> list[type]:
    """The types of a value and of all that is in it; what is in a set are plain values."""
    inside = value.values() if isinstance(value, dict) else value
    deeper = inside if isinstance(value, (dict, list, tuple)) else ()
    return [type(value), *[kind for inner in deeper for kind in kinds_in(inner)]]


@given(values)
def test_a_frozen_value_is_equal_to_what_it_was_and_every_copy_of_it_is_plain(value: Any) -> None:
    for shared in (kept(value)[0], frozen(value), kept(kept(value)[0])[0]):
        assert shared == value and same(shared, value) and plain_kind(shared) is type(value)
        assert "Frozen" not in repr(shared)
        assert kinds_in(pickle.loads(pickle.dumps(shared)))[0] is type(value)
        back = copy.deepcopy(shared)
        assert back == value and kinds_in(back) == kinds_in(value)


CHANGES: dict[str, tuple[Any, list[Callable[[Any], object]]]] = {
    "dict": (
        {"a": 1},
        [
            lambda d: d.__setitem__("a", 2),
            lambda d: d.__delitem__("a"),
            lambda d: d.__ior__({"b": 1}),
            lambda d: d.clear(),
            lambda d: d.pop("a"),
            lambda d: d.popitem(),
            lambda d: d.setdefault("b", 1),
            lambda d: d.update(b=1),
        ],
    ),
    "list": (
        [2, 1],
        [
            lambda row: row.__setitem__(0, 2),
            lambda row: row.__delitem__(0),
            lambda row: row.__iadd__([1]),
            lambda row: row.__imul__(2),
            lambda row: row.append(1),
            lambda row: row.clear(),
            lambda row: row.extend([1]),
            lambda row: row.insert(0, 1),
            lambda row: row.pop(),
            lambda row: row.remove(1),
            lambda row: row.reverse(),
            lambda row: row.sort(),
        ],
    ),
    "set": (
        {1, 2},
        [
            lambda s: s.__iand__({1}),
            lambda s: s.__ior__({3}),
            lambda s: s.__isub__({1}),
            lambda s: s.__ixor__({1}),
            lambda s: s.add(3),
            lambda s: s.clear(),
            lambda s: s.discard(1),
            lambda s: s.pop(),
            lambda s: s.remove(1),
            lambda s: s.update({3}),
            lambda s: s.difference_update({1}),
            lambda s: s.intersection_update({1}),
            lambda s: s.symmetric_difference_update({1}),
        ],
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_no_way_to_change_a_container_is_open(name: str) -> None:
    value, changes = CHANGES[name]
    shared = kept(copy.copy(value))[0]
    for change in changes:
        with pytest.raises(ValidationError, match=f"this {name} is shared, and not to be changed") as told:
            change(shared)
        assert "copy" in told.value.hint
        assert shared == value
    tried = {code for change in changes for code in change.__code__.co_names}
    reads = {"copy"} | {
        "dict": {"get", "items", "keys", "values", "fromkeys"},
        "list": {"count", "index"},
        "set": {
            "difference", "intersection", "union", "symmetric_difference", "isdisjoint", "issubset",
            "issuperset",
        },
    }[name]  # fmt: skip
    in_place = {"__setitem__", "__delitem__"} | {
        f"__i{how}__" for how in ("add", "mul", "and", "or", "sub", "xor")
    }
    everything = {way for way in dir(type(value)) if not way.startswith("__") or way in in_place}
    assert everything - tried == reads  # a Python that knows one way more is told here
    changed = shared.copy()
    assert type(changed) is type(value)
    changed.clear()
    assert shared == value


@pytest.mark.parametrize("where", ["memory", "file"])
def test_what_a_reader_does_with_a_content_stays_with_the_reader(where: str, tmp_path: Path) -> None:
    path = None if where == "memory" else tmp_path / "c.db"
    content = {"beats": [1, 2], "marks": {"a"}, "wave": np.zeros(3), "at": ({"x": 1},)}
    with ContextStore(path) as store:
        id = store.put(content, type="t", metadata={"by": ["me"]}).id
    with ContextStore(path) if path else ContextStore() as store:
        item = store.get(id) if path else store.put(content, type="t", metadata={"by": ["me"]})
        assert same(item.content, content) and item.metadata == {"by": ["me"]}
        for change in (
            lambda: item.content["beats"].append(3),
            lambda: item.content["marks"].add("b"),
            lambda: item.content["at"][0].pop("x"),
            lambda: item.metadata["by"].append("you"),
            lambda: item.metadata.update(by="you"),  # type: ignore[attr-defined]
        ):
            with pytest.raises(ValidationError, match="is shared, and not to be changed"):
                change()
        with pytest.raises(ValueError, match="read-only"):
            item.content["wave"][0] = 1
        mine = copy.deepcopy(item.content)
        mine["beats"].append(3)
        mine["wave"][0] = 1
        after = store.update(item.id, mine, metadata={"to": {}})
        assert after.content["beats"] == [1, 2, 3] and item.content["beats"] == [1, 2]
        with pytest.raises(ValidationError, match="is shared"):
            after.metadata["to"]["x"] = 1
        with pytest.raises(ValidationError, match="is shared"):
            after.metadata["more"] = 1  # type: ignore[index]
        assert json.loads(json.dumps(after.content["beats"])) == [1, 2, 3]


class _Point(NamedTuple):
    at: float
    parts: list[float]


def test_what_is_in_a_named_tuple_refuses_too() -> None:
    parts = [1.0]
    with ContextStore() as store:
        item = store.put({"point": _Point(0.5, parts)}, type="a")
        point = item.content["point"]
        assert type(point) is _Point and point == (0.5, [1.0])
        with pytest.raises(ValidationError):
            point.parts.append(2.0)
        parts.append(3.0)
        assert point.parts == [1.0]


def test_an_array_cannot_be_made_writeable_again() -> None:
    with ContextStore() as store:
        array = store.put(np.arange(3.0), type="a").content
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


def test_a_bytearray_refuses_to_be_changed(tmp_path: Path) -> None:
    for path in (None, tmp_path / "context.db"):
        with ContextStore(path, max_bytes=None if path is None else 1) as store:
            item = store.put(bytearray(b"abc"), type="a", durable=path is not None)
            read = store.get(item.id).content
            with pytest.raises(ValidationError, match="this bytearray is shared"):
                read.extend(b"d")
            assert read == bytearray(b"abc") and repr(read) == "bytearray(b'abc')"
            assert type(copy.copy(read)) is bytearray and plain_kind(read) is bytearray


def test_the_buffer_of_a_bytearray_is_closed_too(tmp_path: Path) -> None:
    for path in (None, tmp_path / "context.db"):
        with ContextStore(path) as store:
            got = store.get(store.put({"b": bytearray(b"abc")}, type="a", durable=path is not None).id)
            shared = got.content["b"]
            with pytest.raises(ValueError, match="read-only"):
                np.frombuffer(shared, np.uint8)[0] = 9
            with pytest.raises(TypeError):
                memoryview(shared)[0] = 9
            assert shared == bytearray(b"abc") and type(copy.deepcopy(shared)) is bytearray
            with pytest.raises(TypeError, match="unhashable"):
                hash(shared)


@pytest.mark.parametrize("array", [np.zeros(1000), np.zeros(3), np.zeros((50, 50), order="F"), np.zeros(())])
def test_an_array_from_a_file_cannot_be_made_writeable_again(tmp_path: Path, array: Any) -> None:
    with ContextStore(tmp_path / "context.db") as store:
        store.put(array, type="a")
    with ContextStore(tmp_path / "context.db") as store:
        found = store.latest("a").content
        assert found.shape == array.shape
        while isinstance(found, np.ndarray):
            with pytest.raises(ValueError, match="WRITEABLE"):
                store.latest("a").content.flags.writeable = True
            found = found.base
