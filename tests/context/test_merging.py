"""One item of several: whose value each field has, and that the note of it is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from grym_nb.context import ContextStore
from grym_nb.context.difference import same
from grym_nb.context.item import ContextItem
from grym_nb.context.merging import STRATEGIES, merged, reconciled
from grym_nb.errors import ValidationError
from tests.context.made import item

nan = float("nan")


def whose(one: ContextItem) -> dict[str, list[str]]:
    """The ids of those that gave each field."""
    return {path: [by["id"] for by in gave] for path, gave in one.provenance.items()}


old = item({"bpm": 100, "key": "C", "rhythm": {"swing": 0.5}}, id="old", updated=1.0, priority=3)
new = item({"bpm": 120, "rhythm": {"swing": 0.7, "meter": "4/4"}}, id="new", updated=2.0, priority=0)

# -- each way --------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [[old, new], [new, old]])
@pytest.mark.parametrize(
    ("strategy", "bpm", "swing", "by"),
    [
        ("newest", 120, 0.7, ["new"]),
        ("highest_priority", 100, 0.5, ["old"]),
        ("weighted", 104.0, 0.54, ["old", "new"]),
        ("union", 120, 0.7, ["new"]),
    ],
)
def test_each_field_is_taken_by_the_strategy(
    order: list[ContextItem], strategy: str, bpm: float, swing: float, by: list[str]
) -> None:
    """A field that only one has is its own, nested ones too; the order does not matter."""
    one = merged(order, strategy, id="m")
    assert one.content == {
        "bpm": pytest.approx(bpm),
        "key": "C",
        "rhythm": {"swing": pytest.approx(swing), "meter": "4/4"},
    }
    told = {path: sorted(ids) for path, ids in whose(one).items()}
    gave = sorted(by)
    assert told == {"bpm": gave, "key": ["old"], "rhythm.swing": gave, "rhythm.meter": ["new"]}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(1, 3)), min_size=1, max_size=6))
def test_ties_are_broken_by_version_then_by_place(told: list[tuple[int, int, int]]) -> None:
    items = [
        item(at, id=str(at), priority=priority, updated=float(updated), version=version)
        for at, (priority, updated, version) in enumerate(told)
    ]
    newest = max(items, key=lambda i: (i.updated, i.version, -i.content))
    first = max(items, key=lambda i: (i.priority, i.updated, i.version, -i.content))
    assert merged(items, "newest", id="m").content == newest.content
    assert merged(items, "union", id="m").content == newest.content
    assert merged(items, "highest_priority", id="m").content == first.content


numbers = st.one_of(st.integers(-(10**6), 10**6), st.floats(allow_nan=False, allow_infinity=False))


@example([(0.7, 3.0), (0.7000000000000001, 0.7)])
@settings(max_examples=200)
@given(
    st.lists(st.tuples(numbers, st.floats(min_value=1e-3, max_value=1.7e308)), min_size=1, max_size=5),
)
def test_a_weighted_mean_lies_between_its_values(told: list[tuple[float, float]]) -> None:
    """Whatever the weights, however near to the largest float, and however the shares are rounded."""
    items = [item(value, metadata={"weight": weight}) for value, weight in told]
    mean = merged(items, "weighted", id="m").content
    assert min(value for value, _ in told) <= mean <= max(value for value, _ in told)


def test_weights_are_said_or_come_of_the_priority() -> None:
    items = [
        item(1.0, id="a", metadata={"weight": 3}),
        item(np.float32(2.0), id="b", priority=2),
        item(np.int64(9), id="c", metadata={"weight": 2.0}),
    ]
    one = merged(items, "weighted", id="m")
    assert one.content == pytest.approx((3 * 1 + 3 * 2 + 2 * 9) / 8)
    assert [by["weight"] for by in one.provenance["content"]] == [3.0, 3.0, 2.0]


@pytest.mark.parametrize("weight", [0, -1, True, "2", nan, float("inf"), 10**400])
def test_what_is_no_weight_is_told_for_all_items(weight: Any) -> None:
    items = [item(1, id="a", metadata={"weight": weight}), item(2), item(3, id="c", metadata={"weight": -2})]
    with pytest.raises(ValidationError) as raised:
        merged(items, "weighted", id="m")
    assert [p.path for p in raised.value.problems] == ["a.metadata.weight", "c.metadata.weight"]
    assert merged(items, "newest", id="m").content == 1  # nobody asks for the weight


@pytest.mark.parametrize(
    ("light", "heavy"),
    [(True, False), (1, True), (False, 2), (1.0, "2"), (nan, 1.0), (1.0, nan), (1, 10**400), (1, None)],
)
def test_what_is_no_number_is_the_heaviests(light: Any, heavy: Any) -> None:
    items = [item({"x": heavy}, id="heavy", priority=3), item({"x": light}, id="light", updated=9.0)]
    one = merged(items, "weighted", id="m")
    assert same(one.content, {"x": heavy})
    assert whose(one) == {"x": ["heavy"]}
    tie = merged([i._replace(priority=1) for i in items], "weighted", id="m")
    assert same(tie.content, {"x": light}), "of equal weights the newest"


def test_equal_numbers_stay_what_they_are() -> None:
    content = merged([item(4), item(4), item(4)], "weighted", id="m").content
    assert content == 4 and type(content) is int


def test_float_arrays_of_one_shape_are_averaged() -> None:
    one, other = np.array([0.0, 1.0, np.inf], np.float32), np.array([4.0, nan, -np.inf], np.float32)
    mean = merged([item(one, priority=2), item(other, priority=0)], "weighted", id="m").content
    assert mean.dtype == np.float32
    np.testing.assert_array_equal(mean, np.array([1.0, nan, nan], np.float32))
    for stranger in (np.zeros(2, np.float32), np.zeros(3, np.int16), [0.0, 1.0, 2.0]):
        assert merged([item(one, priority=2), item(stranger)], "weighted", id="m").content is one


# -- union -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "united"),
    [
        (["a", "b"], ["b", "c"], ["a", "b", "c"]),
        (("a",), ("b", "a"), ("a", "b")),
        (["a"], ("b",), ["a", "b"]),
        ({1}, {2}, {1, 2}),
        (frozenset({1}), frozenset({2}), frozenset({1, 2})),
        (frozenset({1}), {2}, {1, 2}),
        ([1], [True, 1.0], [1, True, 1.0]),
        ([nan], [float("nan"), 1], [nan, 1]),
        ([{"a": 1}], [{"a": 1}, {"a": 2}, [3]], [{"a": 1}, {"a": 2}, [3]]),
        ({"a": [1]}, {"a": [2], "b": 3}, {"a": [1, 2], "b": 3}),
        ({"a": {}}, {"a": {}}, {"a": {}}),
        ([1, 1, 2], [1, 1, 2], [1, 1, 2]),
        ("x", "y", "y"),
        (["x"], {"x"}, {"x"}),
        ([1], {"a": 1}, {"a": 1}),
    ],
)
def test_what_can_be_united_is(first: Any, second: Any, united: Any) -> None:
    """The second is the newer; what all give alike stays, repeats and all."""
    items = [item(first, updated=1.0), item(second, updated=2.0)]
    assert same(merged(items, "union", id="m").content, united)


def test_arrays_in_lists_are_compared_by_what_is_in_them() -> None:
    one, other = np.array([1.0, nan]), np.array([1.0, 2.0])
    united = merged([item([one]), item([one.copy(), other])], "union", id="m").content
    assert same(united, [one, other])


def test_all_that_gave_to_a_union_are_told() -> None:
    items = [item({"a": [1], "b": 1}, id="x"), item({"a": [2], "b": 1}, id="y"), item({"b": 2}, id="z")]
    assert whose(merged(items, "union", id="m")) == {"a": ["x", "y"], "b": ["x"]}


# -- whatever the way ------------------------------------------------------------------------------

contents = st.recursive(
    st.one_of(st.integers(0, 3), st.booleans(), st.sampled_from("xy"), st.floats()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "c.d"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def places(content: Any, path: str = "") -> dict[str, Any]:
    """Fields and what is in them, by an independent reckoning of their paths."""
    found = {path or "content": content}
    for name, value in content.items() if isinstance(content, dict) else ():
        found |= places(value, f"{path}['c.d']" if name == "c.d" else f"{path}.{name}" if path else name)
    return found


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(STRATEGIES)), st.lists(contents, min_size=1, max_size=4))
def test_the_provenance_names_every_field_and_who_has_it(strategy: str, told: list[Any]) -> None:
    """What one item gave is what it has there; what nobody is named for has fields that somebody is."""
    items = [item(content, id=str(at), updated=float(at % 2)) for at, content in enumerate(told)]
    one = merged(items, strategy, id="m")
    found = places(one.content)
    for path, gave in one.provenance.items():
        assert gave
        if len(gave) == 1:
            assert same(places(told[int(gave[0]["id"])])[path], found[path])
    for path, value in found.items():
        above = {at for at in one.provenance if path == at or path.startswith((f"{at}.", f"{at}["))}
        above |= one.provenance.keys() & {"content"}
        assert len(above) == 1 or (not above and isinstance(value, dict) and value)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(STRATEGIES)), contents, st.integers(1, 3))
def test_items_that_say_the_same_merge_to_what_they_say(strategy: str, content: Any, times: int) -> None:
    assert same(merged([item(content)] * times, strategy, id="m").content, content)


def test_contents_that_are_not_all_mappings_are_merged_as_one_value() -> None:
    items = [item({"a": 1}, id="x", priority=2), item("text", id="y", updated=1.0)]
    took = {strategy: whose(merged(items, strategy, id="m")) for strategy in STRATEGIES}
    assert took == {
        "newest": {"content": ["y"]},
        "highest_priority": {"content": ["x"]},
        "weighted": {"content": ["x"]},
        "union": {"content": ["y"]},
    }


def test_a_field_that_is_nested_in_one_item_only_is_taken_whole() -> None:
    items = [item({"a": {"b": 1}}, id="x"), item({"a": 2}, id="y", updated=1.0)]
    one = merged(items, "newest", id="m")
    assert (one.content, whose(one)) == ({"a": 2}, {"a": ["y"]})


def test_a_function_makes_the_content_of_the_items() -> None:
    one = merged([old, new], lambda items: [i.id for i in items], id="m")
    assert one.content == ["old", "new"]
    assert whose(one) == {"content": ["old", "new"]}


# -- what else an item has -------------------------------------------------------------------------


def test_the_rest_is_common_or_the_widest() -> None:
    first = item(
        1, key="k", source="s", workflow="w", task="t", priority=0, tags=("x", "y"), created=1.0, updated=5.0,
        metadata={"a": 1, "b": 1}, ttl=9.0, expires=14.0, version=7, pinned=True, durable=True,
    )  # fmt: skip
    second = item(
        1, key="k", source="r", workflow="w", priority=2, tags=("y", "z"), created=2.0, updated=3.0,
        metadata={"b": 2, "c": 2}, ttl=8.0, expires=11.0,
    )  # fmt: skip
    third = item(1, type="b", workflow="w", priority=1, updated=4.0)
    one = merged([first, second], "newest", id="m")
    assert one == item(
        1, id="m", key="k", source=None, workflow="w", task=None, priority=2, tags=("x", "y", "z"),
        created=1.0, updated=5.0, metadata={"a": 1, "b": 1, "c": 2}, ttl=8.0, expires=11.0,
        provenance=one.provenance,
    )  # fmt: skip
    assert one.provenance["content"] == ({"id": "ctx-1", "type": "a", "source": "s", "version": 7},)
    wide = merged([third, first], "newest", id="m")
    assert (wide.type, wide.key, wide.expires, wide.ttl) == ("merged", "k", 14.0, 9.0)
    lasting = merged([third, third], "newest", id="m")
    assert (lasting.type, lasting.expires, lasting.ttl) == ("b", None, None)


# -- two writes of one -----------------------------------------------------------------------------


def test_of_two_writes_yours_is_the_newer_whatever_the_times() -> None:
    theirs = item({"a": 1, "tags": ["x"]}, updated=9.0, version=5)
    yours = item({"a": 2, "tags": ["y"]}, updated=1.0, version=4)
    assert reconciled(theirs, yours, "newest")[0] == {"a": 2, "tags": ["y"]}
    assert reconciled(theirs, yours, "highest_priority")[0] == {"a": 2, "tags": ["y"]}
    content, provenance = reconciled(theirs, yours, "union")
    assert content == {"a": 2, "tags": ["x", "y"]}
    assert [by["version"] for by in provenance["tags"]] == [5, 4]
    assert reconciled(theirs, yours, lambda both: [i.version for i in both])[0] == [5, 4]


# -- what cannot be done ---------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["newst", "", None, 3, ["newest"]])
def test_a_strategy_that_is_none_is_told_with_the_closest(strategy: Any) -> None:
    with pytest.raises(ValidationError, match="newest, highest_priority") as raised:
        merged([old, new], strategy, id="m")
    assert ("Did you mean 'newest'?" in str(raised.value)) == (strategy in ("newst", ["newest"]))


def test_nothing_cannot_be_merged() -> None:
    with pytest.raises(ValidationError, match="nothing to merge"):
        merged([], "newest", id="m")


def test_a_function_may_return_one_of_the_items_it_was_given() -> None:
    """Its content is what is meant."""
    with ContextStore() as store:
        first = store.put({"n": 1}, type="m")
        store.update(first.id, {"n": 2})
        assert store.update(first.id, {"n": 3}, expect=1, merge=lambda items: items[0]).content == {"n": 2}
        assert store.for_model("any", merge=lambda items: items[-1])[0].content == {"n": 2}
