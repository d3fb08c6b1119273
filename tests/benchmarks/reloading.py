"""An edit put in force beside what notebooks do today; what the swap, and being ready for it, cost."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, cast

import grym_nb as grym
from grym_nb.devices import process_memory
from grym_nb.events import ServiceReloaded
from grym_nb.pulse import Pulse
from grym_nb.services.reload import reloading
from grym_nb.services.reload.watch import Watch

from .frame import Effort, Row, benchmark, installed, side_by_side

_EDITS = 30
_METHODS = 24
_FUNCTIONS = 40
_WEIGHTS = 1_000_000_000  # bytes

_HEAD = """
import json
import math
import grym_nb as grym

LIMITS = {"low": 0, "high": 1}
"""
_FUNCTION = """
def function_{at}(x, scale=1.0):
    y = x * scale
    if y > LIMITS["high"]:
        return math.sqrt(y)
    return y
"""
_CLASS = """
class Edited(grym.ModelService):
    def __init__(self, *, size=16):
        self.size = size

    def load(self):
        import numpy as np
        self.weights = np.ones(self.size, np.uint8)

    @grym.task("edited.answer")
    def answer(self, x):
        return x, EDIT
"""
_METHOD = """
    def method_{at}(self, x):
        return function_{at}(x, self.size)
"""


def _text(edit: int) -> str:
    """Return a module of 300 lines and more, in which a method has another body by each edit."""
    parts = [_HEAD, *(_FUNCTION.format(at=at) for at in range(_FUNCTIONS)), _CLASS.replace("EDIT", str(edit))]
    return "".join([*parts, *(_METHOD.format(at=at) for at in range(_METHODS))])


@contextmanager
def _imported(name: str) -> Iterator[tuple[ModuleType, Path]]:
    with TemporaryDirectory() as folder:
        path = Path(folder, f"{name}.py")
        path.write_text(_text(0))
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
        try:
            yield importlib.import_module(name), path
        finally:
            sys.path.remove(folder)
            sys.modules.pop(name, None)


@contextmanager
def _served(name: str, **config: Any) -> Iterator[tuple[grym.Runtime, Any, Path]]:
    """A loaded service of an edited module, in a runtime of its own."""
    with _imported(name) as (module, path), grym.Runtime() as runtime:
        handle = runtime.registry.register("edited", module.Edited, config=config)
        handle.answer(0)
        yield runtime, handle, path


@benchmark
def saved(effort: Effort) -> Iterator[Row]:
    """From the save of a method body to its first answer, the file being watched; and each step of it."""
    edits = _EDITS if effort.slow_rounds > 1 else 3
    took, steps = _saved(edits)
    peers = {
        "importlib.reload, weights lost": _reloaded(edits),
        "%autoreload 2, at the next cell": _auto(edits),
    }
    for told, figure, aim in (("median", _median, "<= 20 ms"), ("p95", _p95, "")):
        for peer, theirs in peers.items():
            work = f"edit saved to served, {told} of {edits}"
            if theirs is None:
                yield Row(work, figure(took), peer, None, "ms", aim, "not installed")
            else:
                yield Row(work, figure(took), peer, figure(theirs), "ms", aim)
    for step, figures in steps.items():
        share = f"{statistics.median(figures) / _median(took):.0%}"
        yield Row(f"of it: {step}", statistics.median(figures), "all of it", _median(took), "ms", note=share)


def _saved(edits: int) -> tuple[list[float], dict[str, list[float]]]:
    took: list[float] = []
    steps: dict[str, list[float]] = {}
    with _served("bench_saved") as (runtime, handle, path):
        there = threading.Event()
        stop = runtime.events.subscribe(lambda event: there.set(), ServiceReloaded)
        runtime.registry.watching.on()
        for edit in range(1, edits + 1):
            there.clear()
            began = time.perf_counter()
            path.write_text(_text(edit))
            assert there.wait(30.0)
            assert handle.answer(0) == (0, edit), handle._record.reloads[-1]
            took.append(time.perf_counter() - began)
            seconds = handle._record.reloads[-1].seconds
            notice = took[-1] - sum(seconds.values())
            for step, one in {"notice, and the first call": notice, **seconds}.items():
                steps.setdefault(step, []).append(one)
        runtime.registry.watching.off()
        stop()
    return took, steps


def _reloaded(edits: int) -> list[float]:
    took = []
    with _imported("bench_reloaded") as (module, path):
        for edit in range(1, edits + 1):
            path.write_text(_text(edit))
            _unseen(path, module, edit)
            began = time.perf_counter()
            importlib.reload(module)
            made = module.Edited()  # the weights are to be loaded anew
            made.load()
            assert made.answer(0) == (0, edit)
            took.append(time.perf_counter() - began)
    return took


def _auto(edits: int) -> list[float] | None:
    """What a cell waits for before it runs; it keeps objects, and whatever the module makes is made anew."""
    if not installed("IPython"):
        return None
    from IPython.extensions.autoreload import ModuleReloader

    took = []
    with _imported("bench_auto") as (module, path):
        reloader: Any = cast("Any", ModuleReloader)()
        reloader.check_all = True
        reloader.check()
        made = module.Edited()
        made.load()
        for edit in range(1, edits + 1):
            path.write_text(_text(edit))
            _unseen(path, module, edit)
            began = time.perf_counter()
            reloader.check(check_all=True)
            answer = made.answer(0)
            took.append(time.perf_counter() - began)
            assert answer == (0, edit), answer
    return took


def _median(figures: list[float]) -> float:
    return statistics.median(figures)


def _p95(figures: list[float]) -> float:
    return sorted(figures)[int(len(figures) * 0.95)]


def _unseen(path: Path, module: ModuleType, edit: int) -> None:
    """Have Python take a file for another one, though it was saved within the same second."""
    at = time.time() + edit
    os.utime(path, (at, at))
    Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)


@benchmark
def paused(effort: Effort) -> Iterator[Row]:
    """How long a thread that calls without pause is kept waiting by swaps, with 1 GB resident; and memory."""
    size = _WEIGHTS if effort.slow_rounds > 1 else 10_000_000
    edits = 20 if effort.slow_rounds > 1 else 2
    with _served("bench_paused", size=size) as (_, handle, path):
        gc.collect()
        before = process_memory().rss
        calm = _gaps(handle, lambda: time.sleep(1.0))
        swaps: list[tuple[float, float]] = []

        def edit() -> None:
            for number in range(1, edits + 1):
                path.write_text(_text(number))
                handle.reload()

        with _noted(swaps):
            gaps = _gaps(handle, edit)
        gc.collect()
        after = process_memory().rss
    within = [one for one in gaps if any(one[0] < end and one[1] > begin for begin, end in swaps)]
    took = statistics.median(end - begin for begin, end in swaps)
    yield Row(f"the swap, median of {edits}", took, "aim", 1e-3, "ms", "<= 1 ms")
    yield Row("longest gap that a swap is in", _longest(within), "with no reload", _longest(calm), "ms")
    yield Row("median of these", _middle(within), "with no reload", _middle(calm), "ms")
    yield Row("longest gap as files are read and built", _longest(gaps), "same", _longest(calm), "ms")
    yield Row(f"resident after {edits} reloads of 1 GB", float(after), "before", float(before), "B")


@benchmark
def watched(effort: Effort) -> Iterator[Row]:
    """What it costs to watch over files that nobody saves, a minute of it."""
    seconds, files = (40.0, 200) if effort.slow_rounds > 1 else (0.2, 5)
    with TemporaryDirectory() as folder:
        paths = [str(Path(folder, f"module_{at}.py")) for at in range(files)]
        for path in paths:
            Path(path).write_text(_text(0))
        without = _idle(seconds)
        for how in ("events", "polling"):
            with closing(Pulse()) as pulse:
                watch = Watch(pulse, lambda changed: None, polling=how == "polling")
                watch.on(lambda: paths)
                assert watch.status().how == how
                took = _idle(seconds)
                watch.off()
            work = f"CPU of a minute, {files} files, {how}"
            yield Row(work, took, "no watch", without, "ms", "<= 5 ms" if how == "events" else "")


def _idle(seconds: float) -> float:
    """Return what the process takes in a minute in which nothing happens."""
    began = time.process_time()
    threading.Event().wait(seconds)
    return (time.process_time() - began) * 60 / seconds


@contextmanager
def _noted(swaps: list[tuple[float, float]]) -> Iterator[None]:
    """Note when edits are put in force."""
    module: Any = reloading
    put = module.put_in_force

    def noted(*edits: Any, **more: Any) -> Any:
        began = time.perf_counter()
        try:
            return put(*edits, **more)
        finally:
            swaps.append((began, time.perf_counter()))

    module.put_in_force = noted
    try:
        yield
    finally:
        module.put_in_force = put


def _longest(gaps: list[tuple[float, float]]) -> float:
    return max(end - begin for begin, end in gaps)


def _middle(gaps: list[tuple[float, float]]) -> float:
    return statistics.median(end - begin for begin, end in gaps)


def _gaps(handle: Any, act: Callable[[], object]) -> list[tuple[float, float]]:
    """Return when answers came, each with the one before it, in a thread that calls while `act` runs."""
    stop = threading.Event()
    gaps: list[tuple[float, float]] = []

    def call() -> None:
        at = time.perf_counter()
        while not stop.is_set():
            handle.answer(0)
            now = time.perf_counter()
            gaps.append((at, now))
            at = now

    thread = threading.Thread(target=call)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)  # else it is what threads cost one another that is seen
    thread.start()
    try:
        act()
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)
    return gaps


@benchmark
def on_probation(effort: Effort) -> Iterator[Row]:
    """A call of new code, which is counted, and one that the tape takes, beside a usual one."""
    with _served("bench_usual") as (_, usual, _), _served("bench_new") as (_, new, path):
        path.write_text(_text(1))
        new.reload()
        figures = side_by_side(
            {
                "usual": ("h.answer(0)", {"h": usual}),
                "new": ("h.answer(0)", {"h": new}),
                "taped": ("due.clear(); h.answer(0)", {"h": usual, "due": usual._record.tape.due}),
            },
            rounds=effort.rounds,
            seconds=effort.seconds,
        )
        assert new._record.instance.serving.probation is not None
    yield Row("a call on probation", figures["new"], "usual", figures["usual"], "us")
    yield Row("a call that is taped", figures["taped"], "usual", figures["usual"], "us")
