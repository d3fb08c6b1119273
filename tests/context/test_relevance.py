"""What matters more comes first; what was said is not overruled by what was only seen."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grym_nb.context.relevance import (
    PREFERENCE_HALF_LIFE,
    Preference,
    Weights,
    preferred,
    ranked,
    relevance,
    standing,
    strength_of,
)
from grym_nb.errors import ValidationError
from tests.context.made import item

nan, inf = float("nan"), float("inf")
FRESH = Weights(1, 0, 0)
USED = Weights(0, 1, 0)
ALIKE = Weights(0, 0, 1)

# -- the parts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "told"), [(0, 1.0), (600, 0.5), (1200, 0.25), (-50, 1.0), (1e300, 0.0), (300, 0.5**0.5)]
)
def test_recency_halves(age: float, told: float) -> None:
    assert relevance(item(updated=1000.0), now=1000.0 + age, weights=FRESH) == pytest.approx(told)


def test_frequency_grows_ever_more_slowly() -> None:
    told = [relevance(item(), now=0, uses=uses, weights=USED) for uses in (0, 1, 2, 3, 4, 10**300)]
    assert told[0] == 0.0 and told[-1] < 1
    gains = [later - earlier for earlier, later in pairwise(told[:-1])]
    assert gains == sorted(gains, reverse=True) and min(gains) > 0
    assert told[-1] > told[-2]


@pytest.mark.parametrize(
    ("content", "like", "told"),
    [
        ("slow jazz", "slow jazz", 2 / 6**0.5 / 2**0.5),
        ("", "audio parameters", 2 / 4**0.5 / 2**0.5),
        ("", "Song", 1 / 2),
        ("", "loud", 1 / 2),
        ({"genre": ["Jazz!"]}, {"x": "jazz genre"}, 2 / 6**0.5 / 3**0.5),
        ({"bpm": 3}, "metal", 0.0),
        ("x", "", 0.0),
        ("x", 3, 0.0),
    ],
)
def test_similarity_is_of_words(content: Any, like: Any, told: float) -> None:
    """Those of the type, the key, the tags, the content's texts and the names of its fields."""
    one = item(content, type="audio_parameters", key="song", tags=("loud",))
    assert relevance(one, now=0, like=like, weights=ALIKE) == pytest.approx(told)


def test_an_item_is_most_like_itself() -> None:
    one = item({"genre": "jazz", "mood": "calm"}, type="tempo", tags=("a", "b"))
    assert relevance(one, now=0, like=one, weights=ALIKE) == pytest.approx(1.0)
    assert relevance(one, now=0, like=one._replace(type="x"), weights=ALIKE) < 0.99


@pytest.mark.parametrize(
    ("content", "like", "told"),
    [
        (np.array([1.0, 0.0]), np.array([1, 1]), 0.5**0.5),
        (np.array([1.0, 0.0], np.float32), [2.0, 0.0], 1.0),
        ([1, 0], (0, 1), 0.0),
        (np.array([1.0]), np.array([-1.0]), 0.0),
        (np.array([1e200, 1e-200]), np.array([1e200, 1e-200]), 1.0),
        (np.array([1e-200, 0]), np.array([1e-200, 1e-200]), 0.5**0.5),
        (np.zeros(2), np.ones(2), 0.0),
        (np.array([nan, 1.0]), np.ones(2), 0.0),
        (np.ones(3), np.ones(2), 0.0),
        (np.ones((2, 1)), np.ones((2, 1)), 0.0),
        (np.array([True]), np.array([True]), 0.0),
        (np.ones(0), np.ones(0), 0.0),
        ("x", np.ones(2), 0.0),
    ],
)
def test_similarity_is_of_vectors_when_both_are(content: Any, like: Any, told: float) -> None:
    assert relevance(item(content), now=0, like=like, weights=ALIKE) == pytest.approx(told)


def test_tensors_are_vectors() -> None:
    torch = pytest.importorskip("torch")
    like = torch.tensor([1.0, 1.0], requires_grad=True)
    assert relevance(item(np.array([3.0, 3.0])), now=0, like=like, weights=ALIKE) == pytest.approx(1.0)


def test_circles_and_strangers_say_nothing() -> None:
    class Unread(dict[str, str]):
        def items(self) -> Any:
            raise RuntimeError("never")

    content: dict[str, Any] = {"jazz": Unread(x="y")}
    content["self"] = content
    assert relevance(item(content), now=0, like="jazz", weights=ALIKE) > 0


# -- together --------------------------------------------------------------------------------------

weights = st.floats(0, 1e308)


@settings(max_examples=200)
@given(
    st.floats(-1e12, 1e12),
    st.integers(0, 10**6),
    st.sampled_from([None, "x", "a k", item("x")]),
    st.tuples(weights, weights, weights).filter(any),
)
def test_it_lies_between_its_parts(age: float, uses: int, like: Any, three: Any) -> None:
    one = item("x", updated=0.0)
    said: Any = {"now": age, "uses": uses, "like": like}
    told = relevance(one, **said, weights=Weights(*three))
    parts = [relevance(one, **said, weights=w) for w in (FRESH, USED, ALIKE)]
    counted = [part for part, weight in zip(parts[: 2 if like is None else 3], three, strict=False) if weight]
    assert 0 <= told <= 1
    assert not counted or min(counted) - 1e-9 <= told <= max(counted) + 1e-9


def test_without_like_similarity_is_left_out_of_the_mean() -> None:
    """It is not taken for 0."""
    assert relevance(item(), now=0, weights=Weights(1, 0, 9)) == 1.0
    assert relevance(item(), now=0, weights=ALIKE) == 0.0


@given(st.lists(st.integers(0, 3), max_size=8), st.one_of(st.none(), st.integers(0, 9)))
def test_the_best_come_first_and_equal_ones_stay_in_order(ages: list[int], limit: int | None) -> None:
    items = [item(updated=float(-age), id=str(9 - at)) for at, age in enumerate(ages)]
    told = ranked(items, now=0, limit=limit)
    expected = sorted(range(len(ages)), key=lambda at: ages[at])[:limit]
    assert [one.id for _, one in told] == [str(9 - at) for at in expected]
    assert [score for score, _ in told] == [relevance(one, now=0) for _, one in told]


def test_uses_and_likeness_rank_too() -> None:
    items = [item("metal", id="a"), item("jazz", id="b"), item("rock", id="c")]
    assert [one.id for _, one in ranked(items, now=0, uses={"c": 1, "gone": nan}, like="jazz")] == [
        "b",
        "c",
        "a",
    ]
    heavy = ranked(items, now=0, uses={"c": 3}, like="jazz", weights=Weights(1, 9, 1), half_life=1.0, limit=1)
    assert [one.id for _, one in heavy] == ["c"]


# -- what somebody prefers -------------------------------------------------------------------------


def seen(value: Any, now: float, strength: float, before: Any = (), **rest: Any) -> dict[str, Preference]:
    return preferred(dict(before), "genre", value, explicit=False, now=now, strength=strength, **rest)


def said(value: Any, now: float = 0.0, before: Any = ()) -> dict[str, Preference]:
    return preferred(dict(before), "genre", value, explicit=True, now=now)


def test_what_was_said_is_replaced_only_by_what_is_said() -> None:
    jazz = said("jazz")
    assert seen("rock", 1e9, 1.0, jazz) == jazz
    assert said("rock", 5.0, jazz) == {"genre": Preference("genre", "rock", 1.0, True, 5.0)}
    assert said("rock", 5.0, seen("jazz", 0, 1.0))["genre"].value == "rock"


def test_what_is_seen_again_grows_and_what_is_seen_otherwise_weakens() -> None:
    week = PREFERENCE_HALF_LIFE
    one = seen("jazz", 0.0, 0.4)
    assert seen("jazz", week, 0.3, one)["genre"] == Preference("genre", "jazz", 0.5, False, week)
    assert seen("jazz", 0.0, 0.9, one)["genre"].strength == 1.0
    weaker = seen("rock", week, 0.15, one)["genre"]
    assert (weaker.value, weaker.at) == ("jazz", week) and weaker.strength == pytest.approx(0.05)
    assert seen("rock", week, 0.2, one)["genre"] == Preference("genre", "jazz", 0.0, False, week)
    assert seen("rock", week, 0.25, one)["genre"] == Preference("genre", "rock", 0.25, False, week)
    assert seen("rock", 10.0, 0.15, one, half_life=5.0)["genre"].value == "rock"


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("xy"), st.booleans(), st.floats(0, 1e6), st.floats(0, 1, allow_subnormal=False)
        ),
        max_size=12,
    )
)
def test_however_it_goes_a_strength_is_one_and_the_last_said_stays(told: list[Any]) -> None:
    now, mapping = 0.0, dict[str, Preference]()
    last_said = None
    for value, explicit, passes, strength in told:
        now += passes
        before = dict(mapping)
        new = preferred(mapping, "p", value, explicit=explicit, now=now, strength=strength)
        assert mapping == before, "what was given is as it was"
        mapping, last_said = new, value if explicit else last_said
        assert 0 <= mapping["p"].strength <= 1
        assert last_said in (None, mapping["p"].value)


def test_arrays_may_be_preferred() -> None:
    one = seen(np.array([1.0, nan]), 0.0, 0.4)
    assert seen(np.array([1.0, nan]), 0.0, 0.4, one)["genre"].strength == 0.8


def test_only_what_is_still_strong_enough_stands() -> None:
    mapping = {**said("jazz"), "key": Preference("key", "C", 0.8, False, 0.0)}
    for weeks, stands in ((0, {"genre", "key"}), (4, {"genre", "key"}), (5, {"genre"})):
        assert set(standing(mapping, weeks * PREFERENCE_HALF_LIFE)) == stands
    assert standing(mapping, 5.0, least=0.3, half_life=5.0) == mapping
    assert strength_of(mapping["key"], -5.0) == 0.8, "a clock that was set back does not strengthen"
    assert strength_of(mapping["genre"], 1e12) == 1.0


# -- what cannot be reckoned with ------------------------------------------------------------------


@pytest.mark.parametrize("bad", [nan, inf, -1, "1", None, True])
def test_bad_numbers_are_refused(bad: Any) -> None:
    one = Preference("genre", "jazz", 0.5, False, 0.0)
    wrong: list[Any] = [
        lambda: relevance(item(), now=0, uses=bad),
        lambda: relevance(item(), now=0, half_life=bad),
        lambda: ranked([item()], now=0, uses={"ctx-1": bad}),
        lambda: ranked([], now=0, half_life=bad),
        lambda: Weights(recency=bad),
        lambda: Preference("genre", "jazz", bad, False, 0.0),
        lambda: seen("jazz", 0.0, bad),
        lambda: seen("jazz", 0.0, 0.5, half_life=bad),
        lambda: strength_of(one, 0.0, bad),
        lambda: standing({}, 0.0, least=bad),
    ]
    if bad != -1:
        wrong += [
            lambda: relevance(item(), now=bad),
            lambda: ranked([], now=bad),
            lambda: standing({}, bad),
            lambda: Preference("genre", "jazz", 0.5, False, bad),
        ]
    if bad is not None:
        wrong.append(lambda: ranked([], now=0, limit=bad))
    for attempt in wrong:
        with pytest.raises(ValidationError, match="found"):
            attempt()


def test_weights_that_weigh_nothing_and_names_that_name_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="only zeros"):
        Weights(0, 0, 0)
    with pytest.raises(ValidationError, match="name"):
        preferred({}, " ", 1, explicit=True, now=0.0)
    with pytest.raises(ValidationError) as raised:
        relevance(item(), now=nan, half_life=0, uses=-1)
    assert [p.path for p in raised.value.problems] == ["now", "half_life", "uses"]
