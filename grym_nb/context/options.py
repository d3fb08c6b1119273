"""What a store is made with: checked, with everything that is wrong at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from grym_nb.errors import ConfigError, GrymError, Problem, ValidationError
from grym_nb.events import EventBus
from grym_nb.render import brief
from grym_nb.sizes import parse_size

__all__ = ["Options", "seconds_of"]

_LONGEST = 1e12  # seconds: thirty thousand years, and what floats still tell apart


class Options(NamedTuple):
    """How a store is to be: its file, what it may hold, for how long."""

    path: Path | None
    max_bytes: int | None
    max_items: int | None
    ttls: dict[str, float | None]
    history: int
    busy_seconds: float

    @classmethod
    def of(
        cls,
        *,
        path: Any,
        clock: Any,
        max_bytes: Any,
        max_items: Any,
        ttls: Any,
        history: Any,
        busy_seconds: Any,
        events: Any,
    ) -> Options:
        """Return checked options; a ConfigError lists whatever does not fit."""
        problems: list[Problem] = []
        for name, value, least in (("max_items", max_items, 1), ("history", history, 0)):
            if not _is_count(value, least) and not (value is None and name == "max_items"):
                problems.append(Problem(name, brief(value), f"a whole number from {least}"))
        size = _size(max_bytes, problems)
        if not _is_seconds(busy_seconds):
            problems.append(Problem("busy_seconds", brief(busy_seconds), "seconds from 0"))
        if clock is not None and not callable(clock):
            problems.append(Problem("clock", brief(clock), "a function that returns seconds since 1970"))
        if events is not None and not isinstance(events, EventBus):
            problems.append(Problem("events", brief(events), "an EventBus"))
        lives = _lives(ttls, problems)
        file = _path(path, problems)
        if problems:
            raise ConfigError("this context store cannot be made", problems=problems)
        # A second less, since who closes waits for a second more.
        patience = min(float(busy_seconds), threading.TIMEOUT_MAX - 1)
        return cls(file, size, max_items, lives, history, patience)


def seconds_of(value: Any, name: str) -> float | None:
    """Return how long a wait or a sweep may take; None for no limit."""
    if value is not None and not _is_seconds(value):
        problem = Problem(name, brief(value), "seconds from 0, or None for no limit")
        raise ValidationError("this cannot be limited so", problems=[problem])
    return None if value is None else min(float(value), threading.TIMEOUT_MAX)


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_seconds(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _LONGEST


def _size(value: Any, problems: list[Problem]) -> int | None:
    try:
        return None if value is None else parse_size(value)
    except GrymError:
        problems.append(Problem("max_bytes", brief(value), "bytes, or text such as '200MB'"))
        return None


def _lives(ttls: Any, problems: list[Problem]) -> dict[str, float | None]:
    if not isinstance(ttls, Mapping):
        problems.append(Problem("ttls", brief(ttls), "seconds by type, such as {'tempo': 60}"))
        return {}
    for type, ttl in ttls.items():
        if not isinstance(type, str) or (ttl is not None and not (_is_seconds(ttl) and ttl > 0)):
            found = f"{brief(type)}: {brief(ttl)}"
            problems.append(Problem("ttls", found, "a type, and seconds above 0 or None for ever"))
    return dict(ttls)


def _path(path: Any, problems: list[Problem]) -> Path | None:
    if path is None:
        return None
    if isinstance(path, (str, os.PathLike)):
        try:
            text = os.fspath(path)
            if text == ":memory:":
                problems.append(Problem("path", "':memory:'", "none: ContextStore() is in memory"))
                return None
            if isinstance(text, str) and text and "\0" not in text:
                return Path(text).expanduser().absolute()
        except (
            RuntimeError,
            TypeError,
            ValueError,
        ):  # no such home, or no path after all
            pass  # told below
    problems.append(Problem("path", brief(path), "the path of a file, such as 'context.db'"))
    return None
