"""Threads that tests start and always get back: every wait has an end, and says what it waited for."""

from __future__ import annotations

import faulthandler
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import Context
from pathlib import Path
from typing import Any

from grym_nb.events import StateChanged
from grym_nb.services import ServiceRegistry

#: real seconds after which a test gives a thread up; nothing waits for as long unless it is broken
WAIT = 60.0  # seconds: after which it is taken for a deadlock, also on a machine that is busy


def start(fn: Callable[..., Any], *args: Any) -> Future[Any]:
    """Run `fn` in a thread of its own, outside of any call; whatever it raises is in the future."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(Context().run(fn, *args))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="crowd", daemon=True).start()
    return future


def all_at_once(n: int, fn: Callable[[int], Any]) -> list[Any]:
    """Call `fn(i)` in `n` threads that begin together; return what each returned or raised."""
    line = threading.Barrier(n)

    def run(i: int) -> Any:
        line.wait(WAIT)
        return fn(i)

    return [outcome(future) for future in [start(run, i) for i in range(n)]]


def outcome(future: Future[Any], wait: float = WAIT) -> Any:
    """Return the result of a future, or the exception it ended with; `wait` is for what does a lot."""
    try:
        error = future.exception(wait)
    except TimeoutError:
        faulthandler.dump_traceback(file=sys.__stderr__, all_threads=True)
        raise AssertionError("a thread does not end: a deadlock") from None
    return future.result() if error is None else error


def passes(event: threading.Event) -> None:
    """Wait for an event that must come."""
    if not event.wait(WAIT):
        faulthandler.dump_traceback(file=sys.__stderr__, all_threads=True)
        raise AssertionError("what was to happen did not happen")


def until(reached: Callable[[], Any]) -> None:
    """Yield to the other threads until `reached`, for what has no event of its own."""
    give_up, looks = time.monotonic() + WAIT, 0
    while not reached():
        looks += 1
        if time.monotonic() > give_up and looks > 100:  # else it was the machine that stood still
            faulthandler.dump_traceback(file=sys.__stderr__, all_threads=True)
            raise AssertionError("it never came to that")
        os.sched_yield()


def apart(module: str, *words: str, seconds: float = 150.0) -> dict[str, Any]:
    """Return, read from JSON, what a module prints in a process of its own: one in which interrupts strike.

    They must not strike in what watches a test: coverage takes a lock between any two lines.
    """
    told = subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=Path(__file__).parents[2],
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert told.returncode == 0, told.stderr
    left: dict[str, Any] = json.loads(told.stdout)
    return left


def storm(module: str, what: str) -> dict[str, Any]:
    """Return what a storm of interrupts left: 400 strikes, or 3000 in a full run."""
    left = apart(module, what, "3000" if os.environ.get("GRYM_FULL") == "1" else "400")
    assert left.pop("struck") > 300
    return left


@contextmanager
def reaching(registry: ServiceRegistry, service: str, state: str) -> Iterator[threading.Event]:
    """Give an event that is set once the service gets into `state`."""
    there = threading.Event()

    def note(event: StateChanged) -> None:
        if event.service == service and event.after == state:
            there.set()

    stop = registry.ports.events.subscribe(note, StateChanged)
    try:
        yield there
    finally:
        stop()


class Gates:
    """Events by name, made when first asked for: what tasks wait for, and what they tell."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: dict[str, threading.Event] = {}
        self.seen: Counter[str] = Counter()

    def __getitem__(self, name: str) -> threading.Event:
        with self._lock:
            return self._events.setdefault(name, threading.Event())

    def tell(self, name: str) -> None:
        """Say that something has happened."""
        with self._lock:
            self.seen[name] += 1
        self[name].set()

    def wait(self, name: str) -> None:
        """Wait until it has."""
        passes(self[name])

    def hold(self) -> None:
        """Tell "in", and wait for "go": what a task does that is to be found inside."""
        self.tell("in")
        self.wait("go")


class Overlap:
    """Counts how many are inside at a time, and remembers the most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.inside = 0
        self.most = 0
        self.times = 0

    def __enter__(self) -> None:
        with self._lock:
            self.inside += 1
            self.times += 1
            self.most = max(self.most, self.inside)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.inside -= 1


def names_of_threads(prefix: str = "grym") -> list[str]:
    """Return the names of the live threads of ours."""
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith(prefix))
