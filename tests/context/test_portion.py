"""How much a model is given: as many items, bytes or tokens as it takes, the most important first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from grym_nb.clip import Clip
from grym_nb.context import ContextStore, adapter
from grym_nb.errors import ValidationError


def test_the_most_important_come_first_then_the_newest() -> None:
    with ContextStore() as store:
        for n, priority in enumerate(("low", "high", "normal", "high")):
            store.put(n, type="a", priority=priority)
        assert [item.content for item in store.for_model("any")] == [3, 1, 2, 0]
        assert [item.content for item in store.for_model("any", limit=2)] == [3, 1]
        assert [item.content for item in store.for_model("any", min_priority="high")] == [3, 1]
        assert store.for_model("any", limit=0) == [] == store.for_model("any", type="b")


def test_what_is_too_large_for_the_rest_is_left_out_and_smaller_ones_are_not() -> None:
    with ContextStore() as store:
        for size in (10, 500, 20, 30):
            store.put("x" * size, type="a")
        assert [len(item.content) for item in store.for_model("any", max_bytes=300)] == [30, 20, 10]
        assert [len(item.content) for item in store.for_model("any", max_bytes="1KB")] == [30, 20, 500, 10]
        assert [len(item.content) for item in store.for_model("any", max_bytes=300, limit=2)] == [30, 20]


def test_tokens_are_counted_as_the_model_counts_them() -> None:
    with ContextStore() as store:
        for words in (3, 5, 1):
            store.put("word " * words, type="a")
        found = store.for_model("text", max_tokens=4, count_tokens=lambda text: len(text.split()))
        assert [item.content.split() for item in found] == [["word"], ["word"] * 3]


def test_limits_are_for_what_the_model_is_given_and_not_for_what_is_kept() -> None:
    """A second of sound at 8 kHz is twice as large at 16."""
    with ContextStore() as store:
        store.put(Clip(np.zeros(8000), 8000), type="audio")
        assert store.for_model("wav2vec2-base", max_bytes=40_000) == []
        [item] = store.for_model("wav2vec2-base", max_bytes=70_000)
        assert (item.content.rate, item.content.channels) == (16_000, 1)


def test_several_become_one_before_they_are_adapted() -> None:
    with ContextStore() as store:
        store.put({"tempo": 100.0, "mood": "calm"}, type="p", priority="low", source="one")
        store.put({"tempo": 130.0}, type="p", priority="normal", source="two")
        [item] = store.for_model("audioldm", merge="weighted")
        assert item.content == {
            "tempo": pytest.approx(120.0),
            "mood": "calm",
            "steps": 25,
            "guidance": 3.5,
            "duration": 10.0,
        }
        assert [by["source"] for by in item.provenance["tempo"]] == ["two", "one"]
        assert item.id not in store and store.for_model("audioldm", merge="newest", type="q") == []


@pytest.mark.parametrize("name", ["wav2vec2", "facebook/wav2vec2-base-960h", "Facebook/Wav2Vec2-Base"])
def test_models_are_known_with_and_without_their_owner(name: str) -> None:
    with ContextStore() as store:
        store.put(Clip(np.zeros(800), 8000), type="audio")
        assert store.for_model(name)[0].content.rate == 16_000


def test_a_function_that_cannot_merge_is_told_as_such() -> None:
    with ContextStore() as store:
        store.put(1, type="a")
        with pytest.raises(ValidationError, match="cannot make one of 1 items") as caught:
            store.for_model("any", merge=lambda items: items[7])
        assert "IndexError" in caught.value.cause


def test_what_a_model_itself_adapts_with_wins() -> None:
    @adapter("p", "tested")
    def registered(item: Any) -> str:
        return "registered"

    with ContextStore() as store:
        store.put(1, type="p")
        assert store.for_model("tested")[0].content == "registered"
        store.own_adapter = lambda model: (lambda item: f"{model}'s own") if model == "tested" else None
        assert store.for_model("tested")[0].content == "tested's own"
        assert store.for_model("other")[0].content == 1


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"limit": -1}, "limit"),
        ({"limit": 1.5}, "limit"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_bytes": "200"}, "max_bytes"),
        ({"typ": "a"}, "typ"),
        ({"merge": "newst"}, "merge"),
        ({"order": "oldest"}, "order"),
    ],
)
def test_what_is_no_limit_or_filter_is_refused(wrong: dict[str, Any], path: str) -> None:
    with ContextStore() as store:
        store.put({}, type="a")
        with pytest.raises(ValidationError) as caught:
            store.for_model("any", **wrong)
        assert [problem.path for problem in caught.value.problems] == [path]


# -- two who write at once -------------------------------------------------------------------------


def test_a_conflict_can_be_merged_and_says_what_came_from_whom() -> None:
    with ContextStore() as store:
        item = store.put({"tempo": 100.0, "key": "C"}, type="p")
        store.update(item.id, {"tempo": 110.0, "key": "D"})
        both = store.update(item.id, {"tempo": 120.0}, expect=1, merge="newest")
        assert (both.content, both.version) == ({"tempo": 120.0, "key": "D"}, 3)
        assert {name: by[0]["version"] for name, by in both.provenance.items()} == {"tempo": 3, "key": 2}
        assert store.update(item.id, {"tempo": 1.0}, expect=3, merge="newest").content == {"tempo": 1.0}
        with pytest.raises(ValidationError, match="to merge takes the version that was read"):
            store.update(item.id, {"tempo": 2.0}, merge="newest")


def test_who_merges_may_be_overtaken_again_and_again() -> None:
    """A function that makes one of both runs without a lock, and is asked anew when it took too long."""
    asked: list[list[int]] = []
    with ContextStore() as store:
        item = store.put([1], type="p")
        store.update(item.id, [2])

        def both(items: list[Any]) -> list[int]:
            asked.append([one.version for one in items])
            if len(asked) < 3:
                store.update(item.id, [10 * len(asked)])
            return sorted({value for one in items for value in one.content})

        told = store.update(item.id, [3], expect=1, merge=both)
        assert asked == [[2, 3], [3, 4], [4, 5]]
        assert (told.content, told.version) == ([3, 20], 5)
