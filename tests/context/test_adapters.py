"""Which adapter an item goes through, what comes of it, and that all that is wrong is told at once."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_nb.clip import Clip
from grym_nb.context import ContextStore, adapters
from grym_nb.context.adapters import adapted, adapter, adapter_for
from grym_nb.context.builtin import as_parameters, as_text, at_16k
from grym_nb.context.item import ContextItem
from grym_nb.errors import ValidationError
from tests.context.made import item

nan = float("nan")


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """What a test registers is gone after it."""
    before = dict(adapters._registered)
    yield
    adapters._registered.clear()
    adapters._registered.update(before)


def problems(items: list[ContextItem], model: str, own: Any = None) -> dict[str, tuple[str, str]]:
    with pytest.raises(ValidationError) as raised:
        adapted(items, model, own)
    return {p.path: (p.found, p.expected) for p in raised.value.problems}


# -- which one -------------------------------------------------------------------------------------


def registered(*pairs: tuple[str, str]) -> None:
    """Register for each pair a function that returns it."""
    for pair in pairs:
        adapter(*pair)(lambda item, pair=pair: pair)


@pytest.mark.parametrize(
    ("chosen", "other"),
    [
        (("*", "probe"), ("tempo", "prob*")),
        (("tempo", "p*"), ("t*", "prob*")),
        (("temp*", "prob*"), ("t*", "prob*")),
        (("t*", "prob*"), ("temp*", "*")),
        (("TEMPO", "Probe"), ("*", "*")),
        (("temp?", "p????"), ("????o", "*")),
    ],
)
def test_the_most_exact_wins(chosen: tuple[str, str], other: tuple[str, str]) -> None:
    """By the model, then by the type, then by the letters, whichever came first."""
    for order in ([chosen, other], [other, chosen]):
        adapters._registered.clear()
        registered(*order)
        found = adapter_for("Tempo", "probe")
        assert found is not None and found(item()) == chosen


def test_of_equal_ones_the_last_wins() -> None:
    pairs = [("te*", "p*"), ("t*", "pr*")]
    for order in (pairs, pairs[::-1], [*pairs, pairs[0]]):
        registered(*order)
        found = adapter_for("tempo", "probe")
        assert found is not None and found(item()) == order[-1]


def test_nothing_suits_what_nothing_is_registered_for() -> None:
    registered(("tempo", "probe?"), ("tempo[x]", "m"), ("tempo", "[abc]"))
    assert adapter_for("tempo", "probe") is None
    assert adapter_for("tempo", "a") is None, "a bracket is no wildcard"
    assert adapter_for("tempo[x]", "m") is not None


def test_the_same_pair_again_replaces_it() -> None:
    for n in (1, 2):
        assert adapter("Tempo", "probe")(lambda item, n=n: n)
        adapter("tempo", "probe")(lambda item, n=n: n)
    assert len([pair for pair in adapters._registered if pair == ("tempo", "probe")]) == 1
    assert adapted([item(type="tempo")], "probe")[0].content == 2


def test_the_decorator_returns_the_function() -> None:
    def bpm(item: ContextItem) -> Any:
        return item.content["bpm"]

    assert adapter("tempo", "probe")(bpm) is bpm is adapter_for("tempo", "probe")


@pytest.mark.parametrize(
    ("model", "ours"),
    [
        ("wav2vec2-base", at_16k),
        ("GAMA", at_16k),
        ("audioldm2", as_parameters),
        ("musicldm", as_parameters),
        ("stableaudio", as_parameters),
        ("stable_audio-1", as_parameters),
        ("text2x", as_text),
        ("my-llm-7b", as_text),
        ("llama3", as_text),
        ("gpt", as_text),
        ("qwen-audio", as_text),
        ("clap", None),
    ],
)
def test_what_comes_with_the_package_gives_way_to_a_users(model: str, ours: Any) -> None:
    """A user's that is as exact goes first; one that is less exact does not."""
    assert adapter_for("anything", model) is ours
    if ours is None:
        return
    registered(("*", "*"))
    assert adapter_for("anything", model) is ours
    for pattern in ("wav2vec2*", "gama*", "audioldm*", "musicldm*", "stableaudio*", "stable_audio*"):
        registered(("*", pattern))
    registered(*(("*", pattern) for pattern in ("text*", "*llm*", "llama*", "gpt*", "qwen*")))
    adapters._built_in.cache_clear()  # also when ours come later, as they do in a fresh kernel
    assert adapter_for("anything", model) is not ours


@pytest.mark.parametrize("bad", [None, "", "  ", 3, ["tempo"]])
def test_bad_arguments_are_refused(bad: Any) -> None:
    for wrong in (
        lambda: adapter(bad, "m"),
        lambda: adapter("t", bad),
        lambda: adapter_for(bad, "m"),
        lambda: adapter_for("t", bad),
        lambda: adapted([], bad),
    ):
        with pytest.raises(ValidationError, match="found"):
            wrong()
    with pytest.raises(ValidationError) as raised:
        adapter(bad, bad)
    assert [p.path for p in raised.value.problems] == ["source", "target"]


def test_what_is_no_plain_function_is_refused() -> None:
    async def later(item: ContextItem) -> None: ...

    for wrong in (None, "f", later):
        with pytest.raises(ValidationError, match=r"f\(item\) -> content"):
            adapter("t", "m")(wrong)  # type: ignore[type-var]
    with pytest.raises(ValidationError, match="own"):
        adapted([], "m", "f")  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="target"):
        adapter(lambda item: item)  # type: ignore[call-arg, arg-type]


# -- all of them -----------------------------------------------------------------------------------


def test_items_are_adapted_in_their_order_and_the_rest_passes() -> None:
    adapter("tempo", "probe")(lambda item: item.content * 2)
    items = [item(60, type="tempo", id="a"), item("x", type="other"), item(70, type="tempo", version=3)]
    suited = adapted(items, "probe")
    assert [one.content for one in suited] == [120, "x", 140]
    assert [one._replace(content=None) for one in suited] == [one._replace(content=None) for one in items]
    assert suited[1] is items[1]
    assert [one.content for one in items] == [60, "x", 70]


def test_the_models_own_goes_first() -> None:
    registered(("a", "probe"))
    assert adapted([item(1)], "probe", lambda item: "own")[0].content == "own"
    assert adapted([item("x")], "audioldm", lambda item: "own")[0].content == "own"
    one = item([1])
    assert adapted([one], "probe", lambda item: item.content)[0] is one


def test_all_problems_of_all_items_are_told_with_their_names() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("never")

    def raises(error: Exception) -> Any:
        def adapt(item: ContextItem) -> Any:
            raise error

        return adapt

    adapter("file", "audioldm*")(raises(OSError(2, "gone", "x.wav")))
    adapter("key", "audioldm*")(lambda item: item.content["bpm"])
    adapter("mute", "audioldm*")(raises(Mute()))
    items = [
        item({"steps": "many", "duration": nan}, id="ctx-1", type="params", key="song"),
        item({}, id="ctx-2", type="file", key=None),
        item({}, id="ctx-3", type="key"),
        item({}, id="ctx-4", type="mute"),
        item({"steps": 3}, id="ctx-5"),
    ]
    told = problems(items, "audioldm2")
    assert told == {
        "ctx-1 ('params', key='song').steps": ("'many'", "a whole number above 0"),
        "ctx-1 ('params', key='song').duration": ("nan", "a number above 0"),
        "ctx-2 ('file', key=None).content": (
            "FileNotFoundError: [Errno 2] gone: 'x.wav'",
            "a content that its adapter can use",
        ),
        "ctx-3 ('key', key='k').content": ("KeyError: 'bpm'", "a content that its adapter can use"),
        "ctx-4 ('mute', key='k').content": told["ctx-4 ('mute', key='k').content"],
    }
    assert "Mute" in told["ctx-4 ('mute', key='k').content"][0]


def test_an_interrupt_passes() -> None:
    def adapt(item: ContextItem) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapted([item(1)], "probe", adapt)


# -- audio -----------------------------------------------------------------------------------------


def tone(hz: float, rate: int, seconds: float = 0.5) -> Any:
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate).astype(np.float32)


def heard(content: Any) -> Any:
    return adapted([item(content)], "wav2vec2-base")[0].content


def is_the_tone(clip: Any, hz: float = 440.0) -> bool:
    """Whether it is mono at 16 kHz, and sounds at that frequency as long as it did."""
    assert (clip.rate, clip.channels, clip.samples.dtype) == (16_000, 1, np.float32)
    loudest = np.abs(np.fft.rfft(clip.samples)).argmax() / clip.seconds
    return bool(abs(clip.seconds - 0.5) < 0.001 and abs(loudest - hz) < 3)


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_clip_is_resampled_and_mixed(rate: int, channels: int) -> None:
    assert is_the_tone(heard(Clip(np.stack([tone(440, rate)] * channels), rate)))


@pytest.mark.parametrize("name", ["samples", "audio", "waveform"])
@pytest.mark.parametrize("rate_name", ["rate", "sample_rate", "sampling_rate"])
@pytest.mark.parametrize("rate", [44_100, 44_100.0, np.int64(44_100), Fraction(44_100)])
def test_samples_with_a_rate_become_a_clip_in_their_place(name: str, rate_name: str, rate: Any) -> None:
    """The field with the rate tells the new one, or it would no more be true."""
    content = {"title": "x", name: tone(440, 44_100), rate_name: rate}
    made = heard(content)
    assert list(made) == list(content) and made["title"] == "x"
    assert is_the_tone(made[name])
    assert made[rate_name] == 16_000
    assert content[rate_name] == rate, "what was given is as it was"
    assert is_the_tone(heard({**content, name: content[name].tolist()})[name])


def test_clips_in_fields_are_converted_wherever_they_are() -> None:
    content = {
        "voice": Clip(tone(440, 44_100), 44_100),
        "band": Clip(tone(880, 8000), 8000),
        "rate": 1.2,
        "sample_rate": 44_100,
    }
    made = heard(content)
    assert is_the_tone(made["voice"]) and is_the_tone(made["band"], 880)
    assert (made["rate"], made["sample_rate"]) == (1.2, 16_000), "a rate of something else stays"


def test_the_rate_that_says_what_it_is_of_goes_first() -> None:
    assert is_the_tone(heard({"samples": tone(440, 8000), "rate": 1.0, "sample_rate": 8000})["samples"])


def test_what_needs_nothing_is_returned_as_it_is(tmp_path: Path) -> None:
    """Without decoding a file."""
    path = Clip(tone(440, 16_000), 16_000).write(tmp_path / "x.wav")
    read = Clip.read(path)
    assert heard(read) is read and read._samples is None
    for content in (
        {"clip": read, "rate": 16_000},
        {"audio": "x.wav", "samples": 16_000},
        {"waveform": None},
        {"bpm": 120},
        "text",
        [1.0, 2.0],
        None,
    ):
        assert heard(content) is content
    made = heard({"audio": np.zeros(9), "rate": 16_000})
    assert isinstance(made["audio"], Clip)


@pytest.mark.parametrize(
    ("content", "path", "found"),
    [
        ({"audio": [0.1]}, "sample_rate", "none beside the samples"),
        ({"audio": [0.1], "rate": None}, "sample_rate", "none beside the samples"),
        ({"audio": [0.1], "rate": 0}, "rate", "0"),
        ({"audio": [0.1], "rate": -8000}, "rate", "-8000"),
        ({"audio": [0.1], "rate": 8000.5}, "rate", "8000.5"),
        ({"audio": [0.1], "rate": True}, "rate", "True"),
        ({"audio": [0.1], "rate": nan}, "rate", "nan"),
        ({"audio": [0.1], "sampling_rate": "8000"}, "sampling_rate", "'8000'"),
        ({"audio": [], "rate": 8000}, "audio", "no samples"),
        ({"waveform": np.zeros((2, 0)), "rate": 8000}, "waveform", "no samples"),
        ({"samples": ["a", "b"], "rate": 8000}, "samples", "the samples are <U1"),
        ({"samples": [[0.1], [0.1, 0.2]], "rate": 8000}, "samples", "cannot be read as an array"),
        ({"samples": np.zeros((1, 1, 4)), "rate": 8000}, "samples", r"shape (1, 1, 4)"),
        ({"samples": np.zeros(4, complex), "rate": 8000}, "samples", "complex128"),
        ({"samples": [nan, 0.1], "rate": 8000}, "samples", "NaN or infinite"),
        ({"x": Clip([nan], 8000)}, "x", "NaN or infinite"),
        ({"x": Clip([], 16_000)}, "x", "no samples"),
        (Clip([], 16_000), "content", "no samples"),
        (Clip([nan], 8000), "content", "NaN or infinite"),
    ],
)
def test_audio_that_cannot_be_heard_is_a_problem(content: Any, path: str, found: str) -> None:
    ((where, (told, expected)),) = problems([item(content)], "gama").items()
    assert where == f"ctx-1 ('a', key='k').{path}"
    assert found in told and expected


def test_what_is_wrong_with_samples_and_with_their_rate_is_told_together() -> None:
    told = problems([item({"audio": ["a"], "waveform": [], "rate": -1})], "gama")
    assert [path.rpartition(".")[2] for path in told] == ["rate", "audio", "waveform"]


# -- parameters ------------------------------------------------------------------------------------

DEFAULTS = {"steps": 25, "guidance": 3.5, "duration": 10.0}


def parameters(content: Any) -> Any:
    return adapted([item(content)], "audioldm2")[0].content


@pytest.mark.parametrize(
    ("content", "made"),
    [
        ("rain", {"prompt": "rain"}),
        ({}, {}),
        ({"tempo": 120, "genre": "jazz", "bpm": 3}, {"tempo": 120, "genre": "jazz", "bpm": 3}),
        ({"num_inference_steps": 9, "guidance_scale": 2}, {"steps": 9, "guidance": 2.0}),
        ({"audio_length_in_s": 3}, {"duration": 3.0}),
        ({"length": 4.5}, {"duration": 4.5}),
        ({"seconds": np.float32(4.5)}, {"duration": 4.5}),
        ({"seconds": 4, "duration": 2, "length": 3}, {"duration": 2.0}),
        ({"seconds": 4, "length": 3}, {"duration": 3.0}),
        ({"steps": 12.0}, {"steps": 12}),
        ({"steps": 0, "guidance": -1, "duration": -0.5}, {}),
        ({"steps": -2.5}, {}),
        (
            {"prompt": "x", "negative_prompt": "y", "seed": 3},
            {"prompt": "x", "negative_prompt": "y", "seed": 3},
        ),
    ],
)
def test_parameters_have_their_names_and_defaults(content: Any, made: dict[str, Any]) -> None:
    before = dict(content) if isinstance(content, dict) else content
    told = parameters(content)
    assert told == {**DEFAULTS, **made}
    assert [type(told[name]) for name in DEFAULTS] == [int, float, float]
    assert content == before


@pytest.mark.parametrize(
    "name",
    "steps guidance duration num_inference_steps guidance_scale audio_length_in_s length seconds".split(),
)
@pytest.mark.parametrize("value", [True, False, nan, float("inf"), -float("inf"), "5", None, [5], 10**400])
def test_what_is_no_number_is_a_problem_under_the_name_it_was_given(name: str, value: Any) -> None:
    (where,) = problems([item({name: value})], "musicldm")
    assert where == f"ctx-1 ('a', key='k').{name}"


def test_half_a_step_is_a_problem() -> None:
    assert problems([item({"steps": 2.5})], "audioldm") == {
        "ctx-1 ('a', key='k').steps": ("2.5", "a whole number above 0")
    }


@pytest.mark.parametrize("content", [Clip([0.1], 8000), None, 3, ["rain"]])
def test_audio_is_no_parameters(content: Any) -> None:
    ((found, expected),) = problems([item(content)], "stableaudio").values()
    assert "prompt" in expected
    assert found.startswith(("Clip", "None", "3", "['rain']"))


@given(st.dictionaries(st.sampled_from([*DEFAULTS, "seconds", "seed"]), st.integers(-3, 99)))
def test_adapting_twice_changes_nothing(content: dict[str, int]) -> None:
    once = parameters(content)
    assert parameters(once) == once


# -- text ------------------------------------------------------------------------------------------


def test_content_is_told_as_text() -> None:
    items = [item({"bpm": 120, "tags": ["a", "b"]}), item("a song"), item(Clip(np.zeros(8000), 16_000))]
    assert [one.content for one in adapted(items, "gpt-5")] == [
        "bpm: 120\ntags: a, b",
        "a song",
        "500 ms of audio at 16 kHz, mono",
    ]


def test_what_takes_no_item_is_refused_at_once() -> None:
    with pytest.raises(ValidationError, match="a function of an item"):
        adapter("tempo", "x*")(lambda: 1)


def test_an_item_that_is_given_back_stands_for_its_content() -> None:
    with ContextStore() as store:
        item = store.put(3, type="tempo")
        [found] = adapted([item], "m", lambda item: item)
    assert found.content == 3


class _Pair(NamedTuple):
    left: Any
    right: Any


def test_audio_is_found_wherever_it_is() -> None:
    """In lists, tuples and fields of fields, and as data sets have it: an array beside its rate."""
    clip = Clip(tone(440, 44_100), 44_100)
    samples = {"array": tone(440, 44_100), "sampling_rate": 44_100}
    assert is_the_tone(heard([clip, 1])[0]) and heard([clip, 1])[1] == 1 and type(heard([clip])) is list
    assert is_the_tone(heard((clip,))[0]) and type(heard((clip,))) is tuple
    assert is_the_tone(heard(_Pair(1, clip)).right)
    assert is_the_tone(heard({"stems": {"voice": [clip]}})["stems"]["voice"][0])
    assert is_the_tone(heard({"audio": [clip], "rate": 1})["audio"][0])
    made = heard({"audio": samples, "text": "x"})
    assert is_the_tone(made["audio"]["array"]) and made["audio"]["sampling_rate"] == 16_000
    assert is_the_tone(heard([samples])[0]["array"])
    for content in ([1, [2.0]], {"array": [1, 2]}, {"a": {"b": ({},)}}, [], [{"rate": 2}], list(range(5))):
        assert heard(content) == content


def test_what_is_wrong_with_audio_deep_down_is_told_with_its_place() -> None:
    with pytest.raises(ValidationError) as caught:
        heard({"a": [{"samples": [0.1]}, Clip([], 16_000)]})
    assert ".a[0].sample_rate: found none" in caught.value.cause
    assert ".a[1]: found no samples" in caught.value.cause
