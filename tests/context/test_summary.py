"""A summary never takes more than its budget, and what is not in it is named."""

from __future__ import annotations

import re
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grym_nb.clip import Clip
from grym_nb.context import ContextStore
from grym_nb.context.summary import MODES, estimated_tokens, summarise
from grym_nb.errors import ValidationError

nan = float("nan")
words = st.lists(st.sampled_from(["tempo", "bass", "is", "a", "drum. ", "Yes! ", "x" * 60]), max_size=30).map(
    " ".join
)
contents = st.recursive(
    st.one_of(st.integers(), st.booleans(), words, st.just(np.zeros((3, 2))), st.binary(max_size=9)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=20), st.dictionaries(st.sampled_from("abcde"), inner, max_size=5)
    ),
    max_leaves=25,
)


def letters(text: str) -> int:
    return len(text)


def with_a_start(text: str) -> int:
    """As a tokenizer counts that begins each text with a token of its own."""
    return len(text.split()) + 1


def places(content: Any, path: str = "") -> list[tuple[str, Any]]:
    """Values with their paths, by an independent reckoning."""
    if isinstance(content, dict) and content:
        return [p for k, v in content.items() for p in places(v, f"{path}.{k}" if path else k)]
    if isinstance(content, list) and content:
        return [p for at, v in enumerate(content) for p in places(v, f"{path}[{at}]")]
    return [(path, content)]


def named(path: str, dropped: tuple[str, ...]) -> bool:
    """Whether a place, or the list that it is in, is named as left out."""
    told = [line.partition(":")[0] for line in dropped]
    return any(path == one or path.startswith((f"{one}[", f"{one}.")) or one == "content" for one in told)


def in_words(value: Any) -> str:
    """What has to stand in the text for a value that is there in full."""
    if isinstance(value, (int, str)):
        return str(value)
    return {np.ndarray: "float64 array (3, 2), 0 to 0", bytes: "bytes, ", list: "empty list"}.get(
        type(value), "empty dict"
    )


@settings(max_examples=300, deadline=None)
@given(
    contents,
    st.integers(1, 200),
    st.sampled_from(MODES),
    st.sampled_from([None, letters, with_a_start]),
)
def test_it_fits_and_whatever_is_not_there_is_named(content: Any, budget: int, mode: Any, count: Any) -> None:
    told = summarise(content, budget, mode=mode, count_tokens=count)
    assert told.tokens == (count or estimated_tokens)(told.text) <= budget
    for path, value in places(content):
        assert in_words(value) in told.text or named(path, told.dropped), path
    for line in told.dropped:
        assert re.search(r": (left out, |shortened to \d+ of )\S", line)


@settings(max_examples=200, deadline=None)
@given(contents, st.sampled_from(["minimal", "selective"]))
def test_nothing_is_dropped_without_need(content: Any, mode: Any) -> None:
    whole = summarise(content, None, mode=mode)
    assert whole.dropped == ()
    assert summarise(content, max(whole.tokens, 1), mode=mode) == whole
    if whole.tokens > 1:
        assert summarise(content, whole.tokens - 1, mode=mode).dropped


@settings(max_examples=100, deadline=None)
@given(contents, st.integers(1, 60))
def test_a_strange_count_does_not_lead_beyond_the_budget(content: Any, budget: int) -> None:
    """It goes up and down as it likes; only of nothing can no less be told."""

    def strange(text: str) -> int:
        return zlib.crc32(text.encode()) % 100

    told = summarise(content, budget, count_tokens=strange)
    assert strange(told.text) <= budget or told.text == ""


# -- how each kind is told -------------------------------------------------------------------------


class Stranger:
    def __repr__(self) -> str:
        return "a stranger"


class Proxy:
    @property
    def __class__(self) -> Any:
        raise RuntimeError("never")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (120, "120"),
        (0.1, "0.1"),
        (True, "True"),
        (None, "None"),
        (np.float32(0.5), "0.5"),
        (np.bool_(True), "True"),
        ("", "empty text"),
        ([], "empty list"),
        ({}, "empty dict"),
        (["drums", "bass", 3], "drums, bass, 3"),
        (set("hgfedcba"), "a, b, c, d, e, f, g, h"),
        (["a\nb"], "[0]: a\nb"),
        (b"12345", "bytes, 5 B"),
        (np.array([0.1, 0.5, 0.6], np.float32), "float32 array (3,), 0.1 to 0.6, mean 0.4"),
        (np.array([[1, 44100]]), "int64 array (1, 2), 1 to 4.41e+04, mean 2.205e+04"),
        (np.array([nan, 1.0, np.inf]), "float64 array (3,), 1 to 1, mean 1, 2 not finite"),
        (np.array([nan]), "float64 array (1,), 1 not finite"),
        (np.zeros((0, 3)), "float64 array (0, 3)"),
        (np.full(3, 1.7e308), "float64 array (3,), 1.7e+308 to 1.7e+308, mean inf"),
        (np.array(["a"]), "<U1 array (1,)"),
        (np.array([True]), "bool array (1,)"),
        (np.array([object()], object), "object array (1,)"),
        (Clip(np.zeros(40_000), 16_000), "2.5 s of audio at 16 kHz, mono"),
        (Clip(np.zeros((2, 22_050)), 44_100), "500 ms of audio at 44.1 kHz, stereo"),
        (Stranger(), "a stranger"),
    ],
)
def test_a_value_is_told_by_what_it_is(value: Any, text: str) -> None:
    assert summarise(value, None).text == text
    assert summarise({"x": value}, None).text == (f"x{text}" if text.startswith("[") else f"x: {text}")


def test_a_proxy_that_hides_its_class_does_not_raise() -> None:
    assert summarise({"x": Proxy()}, None).text == "x: <Proxy, its repr raised RuntimeError>"


def test_a_number_of_thousands_of_digits_does_not_raise() -> None:
    assert summarise([{10**5000}], None).text.startswith("[0]: <int")


def test_tensors_are_told_like_arrays() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.tensor([0.0, 1.0], requires_grad=True)
    assert summarise(tensor, None).text == "float32 array (2,), 0 to 1, mean 0.5"
    assert summarise(tensor.bfloat16(), None).text == "bfloat16 array (2,)"


def test_each_field_has_a_line_with_its_path() -> None:
    content = {"song": {"bpm": 120, "parts": [{"at": 0.5}, {"at": 2}]}, "tags": ["a", "b"], "a.b": 1, 3: "x"}
    assert summarise(content, None).text.splitlines() == [
        "song.bpm: 120",
        "song.parts[0].at: 0.5",
        "song.parts[1].at: 2",
        "tags: a, b",
        "['a.b']: 1",
        "[3]: x",
    ]


def test_a_text_by_itself_is_itself() -> None:
    assert summarise("One line.\nAnother.", None).text == "One line.\nAnother."
    assert summarise("long " * 100, 1, count_tokens=letters).dropped == ("content: left out, 500 characters",)


def test_circles_end() -> None:
    content: dict[str, Any] = {"bpm": 1}
    content["self"] = content
    assert summarise(content, None).text == "bpm: 1\nself: the dict that this is in"


# -- what goes first -------------------------------------------------------------------------------

LYRICS = "One fine day in May. Two birds sang of it! Three hours they sang and would not stop."
content = {
    "bpm": 120,
    "lyrics": LYRICS,
    "spectrum": np.zeros((80, 300)),
    "beats": list(range(100, 130)),
    "deep": {"er": {"note": "a b"}},
}


def dropped(budget: int | None, mode: Any) -> list[str]:
    return [
        line.partition(":")[0] for line in summarise(content, budget, mode=mode, count_tokens=letters).dropped
    ]


def test_minimal_shortens_texts_before_it_drops_a_field() -> None:
    whole = summarise(content, None, count_tokens=letters).tokens
    told = summarise(content, whole - 1, mode="minimal", count_tokens=letters)
    assert told.dropped == ("lyrics: shortened to 42 of 84 characters",)
    assert "\nlyrics: One fine day in May. Two birds sang of it! …\n" in told.text
    told = summarise(content, whole - 50, mode="minimal", count_tokens=letters)
    assert "\nlyrics: One fine day in May. …\n" in told.text
    told = summarise(content, whole - 70, mode="minimal", count_tokens=letters)
    assert "\nlyrics: One fine day …\n" in told.text, "no sentence is that short: at a word's end"


def test_minimal_drops_the_deepest_first_and_then_the_longest() -> None:
    whole = summarise({**content, "lyrics": "One"}, None, count_tokens=letters).tokens
    assert dropped(whole - 4, "minimal") == ["lyrics", "deep.er.note"]
    assert dropped(whole - 30, "minimal") == ["beats"], "and then the short ones come back"


def test_texts_that_stay_when_a_field_goes_are_cut_no_more_than_they_have_to_be() -> None:
    told = summarise(
        {"story": LYRICS, "deep": {"row": [10**9] * 5}}, 50, mode="minimal", count_tokens=letters
    )
    assert told.text == "story: One fine day in May. …"


def test_what_is_in_a_long_list_goes_first_however_deep() -> None:
    told = summarise(
        {"beats": [{"at": {"s": n}} for n in range(17)], "text": LYRICS}, 120, count_tokens=letters
    )
    assert told.text.endswith(f"text: {LYRICS}") and told.dropped[0] == "beats[0].at.s: left out, a value"


def test_selective_drops_arrays_and_long_lists_before_it_shortens() -> None:
    whole = summarise(content, None, count_tokens=letters).tokens
    assert dropped(whole - 1, "selective") == ["beats"]
    assert dropped(whole - 170, "selective") == ["spectrum", "beats"]
    assert dropped(whole - 230, "selective") == ["lyrics", "spectrum", "beats"]
    assert "bpm: 120" in summarise(content, 10, count_tokens=letters).text


def test_aggressive_has_scalars_and_first_sentences_only() -> None:
    told = summarise(content, None, mode="aggressive")
    assert told.text == "bpm: 120\nlyrics: One fine day in May. …\ndeep.er.note: a b"
    assert [line.partition(":")[0] for line in told.dropped] == ["lyrics", "spectrum", "beats"]
    assert summarise(content, 9, mode="aggressive", count_tokens=letters).text == "bpm: 120"


def test_the_longest_text_is_shortened_and_the_short_one_stays() -> None:
    texts = {"short": "A word. Or two.", "long": "Some words here. " * 20}
    told = summarise(texts, 60, mode="minimal")
    assert "short: A word. Or two.\n" in told.text
    assert told.text.endswith("words here. …")


def test_scripts_without_spaces_are_shortened_too() -> None:
    told = summarise("\u97f3\u697d\u3092\u8074\u304f\u3002" * 20, 20)
    assert told.text.endswith("\u3002 …") and 60 < len(told.text) <= 80
    assert summarise("\u97f3" * 400, 20).text.startswith("\u97f3" * 72)


def test_a_budget_too_small_for_anything_leaves_nothing_and_names_all() -> None:
    told = summarise(content, 1, count_tokens=letters)
    assert (told.text, told.tokens) == ("", 0)
    assert len(told.dropped) == len(content)


# -- what cannot be done ---------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [0, -1, True, 2.5, "10", nan])
def test_a_budget_is_a_whole_number_above_zero(budget: Any) -> None:
    with pytest.raises(ValidationError, match="tokens above 0"):
        summarise("x", budget)


def test_a_mode_that_is_none_is_told_with_the_closest() -> None:
    with pytest.raises(ValidationError, match="Did you mean 'selective'"):
        summarise("x", None, mode="selctive")  # type: ignore[arg-type]


def test_a_count_that_counts_nothing_is_told() -> None:
    with pytest.raises(ValidationError, match="count_tokens"):
        summarise("x", 5, count_tokens=str.split)  # type: ignore[arg-type]


def test_the_estimate_is_no_less_than_the_words() -> None:
    assert [estimated_tokens(text) for text in ("", "abcde", "a b c")] == [0, 2, 3]


def test_an_item_is_summarised_by_its_content() -> None:
    with ContextStore() as store:
        item = store.put({"bpm": 120}, type="tempo")
    assert summarise(item, None).text == summarise({"bpm": 120}, None).text
