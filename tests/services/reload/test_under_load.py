"""A service is edited again and again as it is called without pause: no call is lost, and none is mixed."""

from __future__ import annotations

import gc
import linecache
import os
import random
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from grym_nb.devices import process_memory
from grym_nb.errors import ReloadFailed, StateError
from grym_nb.services import ServiceHandle, ServiceRegistry
from grym_nb.services.mending import abandon, load_proven
from grym_nb.services.reload import sources
from tests.services.crowd import outcome, start, until
from tests.services.reload.crowded import FINE, WRONG, Caller, Ledger, asks, texts
from tests.services.reload.files import Edited

RELOADS = 200 if os.environ.get("GRYM_FULL") == "1" else 40
THREADS = 8
WORKERS = 5  # of the pulse, and the loop of async tasks: they come when they are needed


class Editor:
    """Whoever edits and reloads: each edit at random, with all that may be done in between."""

    def __init__(self, edited: Edited, registry: ServiceRegistry, served: ServiceHandle) -> None:
        self.edited = edited
        self.registry = registry
        self.served = served
        self.rng = random.Random(2)
        self.ledger = Ledger()
        self.told: Counter[str] = Counter()
        self.numbers = {1: 0}  # the edit that is in a version of the service
        self.classes: list[weakref.ref[type]] = []
        self.modules: list[weakref.ref[ModuleType]] = []
        self.threads: set[int] = set()  # how many there were
        self.memory: list[int] = []  # bytes, once the first edits are over and at the end

    def run(self) -> None:
        for n in range(1, RELOADS + 1):
            before = self.ledger.now
            kind = self.rng.choice([*FINE, *FINE, *WRONG])
            self.save(n, kind)
            self.ledger.may(*before, n)
            try:
                report = self.served.reload()
            except ReloadFailed:
                self.told[f"{kind}: refused"] += 1
                self.ledger.may(*before)
            else:
                self.told[f"{kind}: {report.how}"] += 1
                assert report.how == "in place", report
                self.numbers[int(report.after[1:])] = n
                self.ledger.may(*(before if kind in WRONG else ()), n)
                self.look()
            self.threads.add(threading.active_count())
            if n in (RELOADS // 4, RELOADS):
                gc.collect()
                self.memory.append(process_memory().anonymous or 0)
            what = self.rng.random()
            if what < 0.1:
                self.back()
            elif what < 0.2:
                self.again()

    def save(self, n: int, kind: str) -> None:
        pair = list(texts(n, kind).items())
        for name, text in self.rng.sample(pair, 2):
            self.edited.path(name).write_text(text)

    def back(self) -> None:
        self.ledger.may(*self.ledger.now, *self.numbers.values())
        report = self.served.rollback()
        self.told["rolled back"] += 1
        self.ledger.may(self.numbers[int(report.after[1:])], *self.ledger.now)

    def again(self) -> None:
        before = self.ledger.now
        made = sys.modules["crowd_served"].Served
        self.ledger.may(*before, *self.numbers.values())
        try:
            self.registry.register("served", made, concurrency=4)
        except ReloadFailed:
            self.told["registered again: refused"] += 1
        else:
            self.told["registered again"] += 1
            number = int(self.served.version[1:])
            self.numbers.setdefault(number, max(self.numbers.values()))

    def look(self) -> None:
        """Note what there is by now, to see later whether it is gone."""
        newest = self.registry.codebase.versions.newest
        self.modules += [weakref.ref(newest.modules[name]) for name in ("crowd_served", "crowd_helper")]
        self.classes.append(weakref.ref(type(model_of(self.served))))


def model_of(served: ServiceHandle) -> Any:
    instance = served._record.instance
    assert instance is not None
    return instance.model


@pytest.fixture
def nervous() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-3)
    yield
    sys.setswitchinterval(before)


def everything_is_free(registry: ServiceRegistry, served: ServiceHandle) -> None:
    """No lock is held by anybody, and none by us."""
    codebase, record = registry.codebase, served._record
    assert record.drain is None and record._attempt is None
    assert not record.lock._is_owned()  # type: ignore[attr-defined]
    for lock in (record.lock, registry._lock, codebase._lock, codebase._turn, codebase.versions._lock):
        assert lock.acquire(timeout=20.0)
        lock.release()


def nothing_is_left(editor: Editor, registry: ServiceRegistry, served: ServiceHandle) -> None:
    """Of all the versions there are only the last ones by now."""
    record, settings = served._record, registry.ports.settings
    kept = settings.versions_kept
    for n in range(1000, 1000 + kept):  # after so many others nothing of what was there is kept
        editor.save(n, "good")
        assert served.reload().how == "in place"
        assert tuple(served.leave(1)) == (n, n, 1)
    registry.ports.failures.clear("served")
    gc.collect()
    instance = record.instance
    assert instance is not None and len(instance.versions) <= kept
    assert len(record.specs) <= kept and len(record.reloads) <= 20
    assert [ref for ref in editor.classes if ref() is not None] == []
    assert [ref for ref in editor.modules if ref() is not None] == []
    shown = [file for file in linecache.cache if file.startswith(str(editor.edited.folder))]
    assert len(shown) <= 3 + 2 * kept + 1, shown  # as imported, kept, and what was carried over from before
    assert (sources._imported.cache_info().maxsize or 0) <= 100


def test_a_service_is_edited_while_it_is_called(
    edited: Edited, registry: ServiceRegistry, small_heap: None, nervous: None
) -> None:
    served, asking = asks(edited, registry)
    served.load(), asking.load()
    record = served._record
    weights = model_of(served).weights
    editor, stop = Editor(edited, registry, served), threading.Event()
    callers = [Caller(served, asking, seed) for seed in range(0, 1000 * THREADS, 1000)]
    running = [start(caller.run, stop) for caller in callers]
    try:
        changed = outcome(start(editor.run), wait=3.0 * RELOADS)
    finally:
        stop.set()
        done = [outcome(one) for one in running]
    assert changed is None, changed
    assert all(isinstance(one, Caller) for one in done), done
    assert [wrong for caller in callers for wrong in caller.wrong] == []
    said = [one for caller in callers for one in caller.said]
    assert [one for one in said if one.own != one.helper] == []
    assert [one for one in said if not editor.ledger.was(one.own, one.begun, one.ended)] == []
    until(lambda: not registry.running() and not record.users and record.lane.free == 4)
    assert model_of(served).weights is weights and record.loads == 1
    assert max(editor.threads) - min(editor.threads) <= WORKERS
    begun, ended = editor.memory
    assert ended - begun < 30 * sys.getsizeof(weights), (
        editor.memory
    )  # of which each version has one, or none
    everything_is_free(registry, served)
    nothing_is_left(editor, registry, served)
    served.unload()
    assert record.tape.size == 0


def test_all_that_may_happen_to_a_service_happens_as_it_is_edited(
    edited: Edited, registry: ServiceRegistry, small_heap: None, nervous: None
) -> None:
    """Unloaded, configured, registered again, recovered, taken back: each call is answered by one version."""
    served, asking = asks(edited, registry)
    record, stop = served._record, threading.Event()
    callers = [Caller(served, asking, seed) for seed in range(0, 1000 * THREADS, 1000)]
    running = [start(caller.run, stop) for caller in callers]
    lock, rounds = threading.Lock(), RELOADS // 2
    told: Counter[str] = Counter()

    def edit() -> None:
        rng = random.Random(3)
        for n in range(1, rounds + 1):
            with lock:
                # What is loaded with code that raises has no version before it that could answer.
                for name, text in texts(n, rng.choice([*FINE, "syntax", "import"])).items():
                    edited.path(name).write_text(text)
            reload()

    def reload() -> None:
        with lock:  # both files are those of one edit
            try:
                told[served.reload().how] += 1
            except ReloadFailed:
                told["refused"] += 1

    def disturb(seed: int) -> None:
        rng = random.Random(seed)
        acts: list[Callable[[], object]] = [
            served.unload,
            lambda: served.configure(gain=rng.randrange(3)),
            lambda: registry.register("served", sys.modules["crowd_served"].Served, concurrency=4),
            served.rollback,
            lambda: abandon(record, "recovery", 5.0),
            lambda: load_proven(record, 5.0),
            served.load,
        ]
        for _ in range(rounds):
            try:
                rng.choice(acts)()
            except (ReloadFailed, StateError) as error:
                told[type(error).__name__] += 1

    work = [start(edit), start(disturb, 1), start(disturb, 2)]
    try:
        came = [outcome(one) for one in work]
    finally:
        stop.set()
        done = [outcome(one) for one in running]
    assert came == [None] * 3 and all(isinstance(one, Caller) for one in done), (came, done)
    assert [wrong for caller in callers for wrong in caller.wrong] == []
    said = [one for caller in callers for one in caller.said]
    assert [one for one in said if one.own != one.helper] == [] and len(said) > THREADS
    until(lambda: not registry.running() and not record.users and record.lane.free == 4)
    everything_is_free(registry, served)
    for name, text in texts(5000).items():
        edited.path(name).write_text(text)
    assert served.reload().after == served.version and tuple(served.answer(1)) == (5000, 5000, 1), told
