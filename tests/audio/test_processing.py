"""Steps over a clip: each answer is looked at, what was done is kept, a cancel takes hold between."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from grym_nb.audio import features, synth
from grym_nb.audio.processing import Processed, process
from grym_nb.clip import Clip
from grym_nb.errors import AudioError, CallCancelled, CallTimeout, ValidationError
from grym_nb.services import ModelService, ServiceRegistry, task


@pytest.fixture
def clip() -> Clip:
    """A beat between two silences."""
    silence = np.zeros(16_000)
    return Clip(np.concatenate([silence, synth.beats(120, seconds=6).samples, silence]), 16_000)


def test_steps_run_one_after_the_other_and_clips_are_handed_on(clip: Clip) -> None:
    """A feature by name, several at once, any function; names are the caller's."""
    found = process(
        clip,
        {
            "trimmed": "trim",
            "low": lambda sound: sound.at(8000),
            "both": ["tempo", "rms"],
            "seconds": lambda sound: sound.seconds,
        },
    )
    trimmed = features.trim(clip)
    assert list(found) == ["trimmed", "low", "both", "seconds"] and found.good
    assert found["trimmed"] == trimmed and found["low"] == trimmed.at(8000)
    assert found["both"]["tempo"] == features.tempo(trimmed.at(8000))
    assert found["seconds"] == trimmed.at(8000).seconds
    assert set(found.seconds) == set(found)
    assert process(clip, ["trim", "tempo"])["tempo"] == features.tempo(trimmed)


def test_what_was_done_before_a_step_failed_is_kept(clip: Clip) -> None:
    """With why, and what has not run; asking for what is not there says so."""

    def broken(sound: Clip) -> Any:
        return [][sound.rate]

    found = process(clip, {"tempo": "tempo", "broken": broken, "mel": "mel", "rms": "rms"})
    assert dict(found) == {"tempo": features.tempo(clip)}
    assert (found.good, found.failed, found.skipped) == (False, "broken", ("mel", "rms"))
    assert str(found.error).startswith("the step 'broken' raised\n  IndexError: list index out of range")
    with pytest.raises(AudioError, match=r"there is no 'mel': the step 'broken' failed(?s:.*)IndexError"):
        found["mel"]
    with pytest.raises(KeyError):
        found["mell"]
    assert found.get("mel2", "none") == "none"


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (lambda clip: Clip([np.nan] * 9, 16_000), "what comes after it cannot use(?s:.*)9 that are NaN"),
        (lambda clip: Clip([], 16_000), "what comes after it cannot use(?s:.*)samples: found none"),
        (lambda clip: np.array([1.0, np.inf]), "it answers with 1 infinite numbers"),
        (lambda clip: {"inner": np.array([np.inf])}, r"it\.inner answers with 1 infinite"),
        (lambda clip: features.mel(clip.cut(0, 0.01)), "mel with n_fft=1024 cannot use"),
    ],
)
def test_an_answer_that_nothing_could_use_ends_it(clip: Clip, step: Any, says: str) -> None:
    """At the step that gave it, not at the one that fails on it."""
    found = process(clip, {"rms": "rms", "it": step, "after": "mel"})
    assert (found.failed, found.skipped, list(found)) == ("it", ("after",), ["rms"])
    with pytest.raises(AudioError, match=says):
        raise found.error or AssertionError


def test_silence_is_told_where_it_is_made_of(clip: Clip) -> None:
    """Trimmed silence is empty: that ends it, and nothing is made up."""
    found = process(Clip(np.zeros(16_000), 16_000), ["loudness", "trim", "tempo"])
    assert (dict(found), found.failed) == ({"loudness": float("-inf")}, "trim")


def test_the_check_between_two_steps_ends_it_as_well(clip: Clip) -> None:
    """When it raises, or returns False; it is asked before each step."""
    asked: list[int] = []

    def healthy() -> bool:
        asked.append(1)
        return len(asked) < 3

    found = process(clip, ["rms", "mel", "tempo", "beats"], healthy=healthy)
    assert (list(found), found.failed, found.skipped) == (["rms", "mel"], "tempo", ("beats",))

    def sick() -> None:
        raise RuntimeError("the card has fallen off")

    found = process(clip, ["rms"], healthy=sick)
    assert "the card has fallen off" in str(found.error)


class Long(ModelService):
    """Runs steps; one of them cancels its own call, one lets it be late."""

    @task("long.run")
    def run_all(self, clip: Clip, kept: Any) -> Any:
        return process(clip, {"rms": "rms", "stop": kept.stop, "mel": "mel"}, into=kept.done)


class Kept:
    """What is left of a call."""

    def __init__(self) -> None:
        self.done: dict[str, Any] = {}
        self.call: Any = None
        self.known = threading.Event()

    def stop(self, clip: Clip) -> int:
        """Cancel the call that this is part of, once it is known."""
        assert self.known.wait(30)
        self.call.cancel()
        return 1


@pytest.fixture
def registry() -> Iterator[ServiceRegistry]:
    """A registry of its own."""
    with ServiceRegistry() as made:
        yield made


def test_a_cancel_takes_hold_between_steps_and_what_was_done_is_there(
    registry: ServiceRegistry, clip: Clip
) -> None:
    """The call ends as cancelled, the service is ready, the answers so far are in `into`."""
    handle = registry.register("long", Long)
    kept = Kept()
    kept.call = call = handle.run_all.submit(clip, kept)
    kept.known.set()
    with pytest.raises(CallCancelled):
        call.result(timeout=60)
    assert set(kept.done) <= {"rms", "stop"} and handle.state == "ready"


def test_a_deadline_is_no_failed_step(clip: Clip) -> None:
    """Nor is a cancel: both go to the caller."""
    for error in (CallTimeout("late"), CallCancelled("cancelled")):

        def late(sound: Clip, error: Exception = error) -> None:
            raise error

        kept: dict[str, Any] = {}
        with pytest.raises(type(error)):
            process(clip, {"rms": "rms", "late": late, "mel": "mel"}, into=kept)
        assert list(kept) == ["rms"]


def test_a_kept_failure_holds_nothing_of_the_step(clip: Clip) -> None:
    """Neither frames nor what was in them."""
    holders: list[Any] = []

    def broken(sound: Clip) -> None:
        large = np.zeros(1000)
        holders.append(weakref.ref(large))
        raise AudioError("no", cause=str(large.size))

    found = process(clip, {"broken": broken})
    gc.collect()
    assert found.failed == "broken" and holders[0]() is None


def test_the_table_of_steps_is_the_same_every_time(clip: Clip) -> None:
    """As text and HTML, without times."""
    found = process(clip, {"tempo": "tempo", "trim": "trim", "broken": lambda sound: 1 / 0, "mel": "mel"})
    assert repr(found) == (
        "2 of 4 steps done\n"
        "step    state    answer\n"
        "------  -------  ----------------------------------------------------\n"
        "tempo   done     Tempo(120.00 BPM, confidence 0.96, or 60.00, 240.00)\n"
        "trim    done     Clip(5.55 s, 16000 Hz, mono)\n"
        "broken  failed   the step 'broken' raised\n"
        "mel     not run"
    )
    assert "not run" in found._repr_html_()
    assert isinstance(found, Processed)


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ("tempo", "steps: found 'tempo', expected steps, such as"),
        ([], r"steps: found \{\}"),
        (["temp"], r"steps\.temp: found 'temp', expected one of .*Did you mean 'tempo'"),
        ({"a": 3, "b": ["hpss"]}, r"steps\.a: found 3, expected a feature.*; steps\.b: found 'hpss'"),
    ],
)
def test_steps_that_do_not_fit_are_named_before_anything_runs(clip: Clip, steps: Any, says: str) -> None:
    """All at once."""
    with pytest.raises(ValidationError, match=says):
        process(clip, steps)
    with pytest.raises(AudioError, match="process takes a Clip"):
        process("song.wav", ["tempo"])  # type: ignore[arg-type]
