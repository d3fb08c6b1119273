"""Settings are checked as a whole, and say what is wrong with all of them at once."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_nb.errors import ConfigError, Problem, ValidationError
from grym_nb.settings import Settings

DEFAULTS: dict[str, Any] = {
    "drain_seconds": 30.0,
    "interrupt_seconds": 2.0,
    "linger_seconds": 5.0,
    "ageing_seconds": 10.0,
    "work_threads": 4,
    "story_length": 100,
    "calls_kept": 200,
    "context_path": None,
    "context_bytes": 256_000_000,
    "context_items": 100,
    "memory": {},
    "health_seconds": 5.0,
    "ping_seconds": 30.0,
    "recovery": {},
    "recoveries": {},
    "eviction": "cost-rate",
    "policy": {},
    "policies": {},
    "metrics_path": None,
    "metrics_bytes": 50_000_000,
    "versions_kept": 5,
    "progress_after_seconds": 2.0,
}


def test_the_defaults() -> None:
    assert Settings() == Settings(**DEFAULTS)
    assert {f.name: getattr(Settings(), f.name) for f in fields(Settings)} == DEFAULTS


def test_every_setting_says_what_it_is_about() -> None:
    assert all(f.metadata["about"] for f in fields(Settings))


def test_its_repr_shows_what_differs_from_the_defaults() -> None:
    assert repr(Settings()) == "Settings()"
    changed = Settings(work_threads=2, drain_seconds=1)
    assert repr(changed) == "Settings(drain_seconds=1.0, work_threads=2)"
    assert eval(repr(changed)) == changed


def test_it_cannot_be_changed_but_copied_with_changes() -> None:
    settings = Settings(story_length=7)
    with pytest.raises(FrozenInstanceError):
        settings.story_length = 8  # type: ignore[misc]
    assert settings.with_(linger_seconds=0) == Settings(story_length=7, linger_seconds=0.0)
    assert (settings, hash(settings)) == (Settings(story_length=7), hash(Settings(story_length=7)))


def test_whole_seconds_become_floats() -> None:
    assert [type(s) for s in (Settings(drain_seconds=3).drain_seconds, Settings().drain_seconds)] == [
        float
    ] * 2


def test_everything_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match="3 settings do not fit") as caught:
        Settings(drain_seconds=-1.0, work_threads=0, story_length="many")  # type: ignore[arg-type]
    assert caught.value.problems == (
        Problem("drain_seconds", "-1.0", "seconds, 0 or more"),
        Problem("work_threads", "0", "a whole number, 1 or more"),
        Problem("story_length", "'many'", "a whole number, 1 or more"),
    )


@pytest.mark.parametrize("value", [-0.1, nan, inf, "5", None, True, 1j])
def test_what_is_no_duration_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="a setting does not fit") as caught:
        Settings(linger_seconds=value)
    assert caught.value.problems == (Problem("linger_seconds", repr(value), "seconds, 0 or more"),)


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", None, True])
def test_what_is_no_count_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError):
        Settings(work_threads=value)


def test_a_step_of_priority_must_be_worth_something() -> None:
    with pytest.raises(ConfigError, match=r"seconds, 0\.001 or more"):
        Settings(ageing_seconds=0.0)


def test_an_unknown_name_is_refused_with_the_closest_and_beside_the_other_problems() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings().with_(drain_second=3.0, calls_kept=-1)
    assert caught.value.problems == (
        Problem("drain_second", "3.0", "no such setting. Did you mean 'drain_seconds'?"),
        Problem("calls_kept", "-1", "a whole number, 0 or more"),
    )


def test_from_mapping_takes_what_is_there_and_refuses_what_it_does_not_know() -> None:
    assert Settings.from_mapping({}) == Settings()
    assert Settings.from_mapping({"work_threads": 2}) == Settings(work_threads=2)
    odd: dict[Any, Any] = {"threads": 2, 5: 1, "drain_seconds": "soon"}
    with pytest.raises(ConfigError, match="3 settings do not fit") as caught:
        Settings.from_mapping(odd)
    assert [problem.path for problem in caught.value.problems] == ["threads", "5", "drain_seconds"]


def test_positions_mean_nothing() -> None:
    with pytest.raises(ValidationError, match="positional argument"):
        Settings(30.0)  # type: ignore[misc]


def test_an_unknown_name_is_told_with_the_closest() -> None:
    with pytest.raises(ValidationError, match="Did you mean 'drain_seconds'"):
        Settings(drain_secnds=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("value", [3, "", b"bytes", True])
def test_what_is_no_path_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="a path, or None"):
        Settings(context_path=value)


def test_a_path_is_kept_as_text() -> None:
    assert Settings(context_path=Path("/a/b.db")).context_path == "/a/b.db"  # type: ignore[arg-type]


_STRATEGIES: dict[type, Any] = {
    str: st.text(min_size=1),
    int: st.integers(1, 1000),
    float: st.floats(0.01, 1e6),
    type(None): st.one_of(st.none(), st.text(min_size=1)),
    dict: st.dictionaries(st.text(), st.integers()),
}


@given(
    st.fixed_dictionaries(
        {},
        optional={
            **{name: _STRATEGIES[type(default)] for name, default in DEFAULTS.items()},
            "memory": st.dictionaries(st.text(), st.integers(10_000, 10**18)),
            "metrics_bytes": st.integers(100_000, 10**12),
        },
    )
)
def test_what_fits_survives_the_way_through_a_mapping_and_a_repr(values: dict[str, Any]) -> None:
    settings = Settings.from_mapping(values)
    assert settings == Settings(**values) == Settings().with_(**values) == eval(repr(settings))


def test_memory_is_kept_in_bytes_by_what_it_is_of() -> None:
    assert Settings(memory="4GB").memory == {"total": 4 * 10**9}
    assert Settings(memory={"cuda:0": "20GB"}).memory == {"cuda:0": 20 * 10**9}
    with pytest.raises(ConfigError, match="a size such as '4GB' in all"):
        Settings(memory="a lot")
    with pytest.raises(ConfigError, match="a name, or a function"):
        Settings(eviction=3)  # type: ignore[arg-type]


def test_metrics_are_kept_in_a_folder_not_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no folder", encoding="utf-8")
    for wrong in (file, file / "metrics"):
        with pytest.raises(ConfigError, match="a setting does not fit") as caught:
            Settings(metrics_path=str(wrong))
        assert f"a folder: {file} is a file" in caught.value.cause
    for fits in (tmp_path, tmp_path / "a" / "b", "metrics"):
        assert Settings(metrics_path=str(fits)).metrics_path == str(fits)
