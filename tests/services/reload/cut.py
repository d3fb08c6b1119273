"""A reload cut short by Ctrl-C at the lines of ours: `python -m tests.services.reload.cut WAY STEP`.

Prints, as JSON, how many lines there were and what was wrong. In a process of its own: a tracer is what the
coverage of a test is, too.
"""

from __future__ import annotations

import json
import linecache
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from grym_nb.errors import Interrupted
from grym_nb.services import ServiceHandle, ServiceRegistry
from grym_nb.services.frame import CURRENT
from tests.services.reload.crowded import texts

_OURS = ("swap.py", "reloading.py", "versions.py", "probation.py", "record.py", "retire.py", "instance.py")
_OURS += ("beside.py", "back.py", "history.py", "split.py", "loading.py")


class Cut:
    """Raises KeyboardInterrupt at a line: the one that many lines after the first."""

    def __init__(self, after: int) -> None:
        self.left = after
        self.where = ""

    def calls(self, frame: FrameType, event: str, _: object) -> Any:
        """Follow what is called in our files."""
        name = frame.f_code.co_filename
        if frame.f_code.co_name == "_forget":  # the collector calls it, and what it raises is lost
            return None
        return self.lines if name.endswith(_OURS) and "grym_nb/services" in name else None

    def lines(self, frame: FrameType, event: str, _: object) -> Any:
        """Count a line."""
        if event == "line" and not self.where:
            text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
            if text.startswith(("with ", "try:")):  # between these and their blocks no signal is heeded
                return self.lines
            self.left -= 1
            if self.left < 0:
                self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                raise KeyboardInterrupt
        return self.lines


def cut(act: Callable[[], object], after: int) -> str:
    """Do something, cut short after so many lines; returns where that was, empty where it came to its end."""
    one = Cut(after)
    sys.settrace(one.calls)
    try:
        act()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    CURRENT.set(None)
    return one.where


def save(folder: Path, n: int, *, loads: bool = False) -> None:
    """Save both files; with `loads`, what they load is another one each time."""
    weights = "self.weights = list(range(50_000))"
    for name, text in texts(n).items():
        text = text.replace(weights, f"{weights}; self.n = {n}") if loads else text
        (folder / f"{name}.py").write_text(text)


def odd(registry: ServiceRegistry, served: ServiceHandle, expected: set[int]) -> str:
    """Say what is wrong with what there is; empty where nothing is."""
    record, codebase = served._record, registry.codebase
    for name, lock in (("turn", codebase._turn), ("versions", codebase.versions._lock), ("", record.lock)):
        if not lock.acquire(timeout=5.0):
            return f"the lock {name} is held"
        lock.release()
    if record.lock._is_owned() or codebase.versions._lock._is_owned():  # type: ignore[attr-defined]
        return "a lock of ours is held"
    if record.drain is not None or record.lifecycle.state != "ready" or record.users:
        return f"{record.lifecycle.state}, {record.users} inside"
    held = [one.owner for one in registry.ports.resources.ledger.held]
    if held != ["served"]:
        return f"there is room for {held}"
    instance = record.instance
    assert instance is not None
    serving = instance.serving
    if (serving.number, serving.version) != (record.code_version, record.version):
        return f"{serving.version} serves, and {record.version} is said to"
    if type(instance.model) is not record.spec.made_class:
        return f"{record.version} is of another class than what serves"
    if serving.number not in record.specs or serving not in instance.versions:
        return f"{record.version} is not among the versions"
    for answer in (served.answer(1), served.answer.submit(1).result(10), next(served.several(1))):
        if answer[0] != answer[1] or answer[0] not in expected:
            return f"{answer}, and not of {expected}"
    return ""


def main(ways: list[str], step: int) -> None:
    """Cut a reload, or a rollback, at each line in turn; `hooks` have it wait until no call runs.

    With `loads`, its load is another one. At every one of so many, that is: each `step` of them.
    """
    hooks, back, loads = "hooks" in ways, "back" in ways, "loads" in ways
    found: list[str] = []
    places: set[str] = set()
    n = after = 0
    with tempfile.TemporaryDirectory() as folder, ServiceRegistry() as registry:
        sys.path.insert(0, folder)
        save(Path(folder), 0)
        import crowd_served  # type: ignore[import-not-found]

        served = registry.register("served", crowd_served.Served, concurrency=4)
        before = served.answer(1)[0]
        while not found:
            n += 1
            if hooks:
                served.leave(1)
            save(Path(folder), n, loads=loads)
            if back:
                served.reload()
                where = cut(served.rollback, after)
            else:
                where = cut(served.reload, after)
            places.add(where)
            told = odd(registry, served, {before, n})
            if not told:
                with suppress(Interrupted):
                    served.reload()
                served.unload() if back else None
                n += 1
                save(Path(folder), n, loads=loads)
                served.reload()
                served.load()
                told = odd(registry, served, {n})
            if told:
                found.append(f"cut at {where}, after {after} lines: {told}")
            before = n
            if not where:
                break
            after += step
        json.dump({"lines": after, "places": len(places), "odd": found}, sys.stdout)
        sys.stdout.flush()
        if found:
            os._exit(0)  # a registry with such a service may not close


if __name__ == "__main__":
    main(sys.argv[1:-1], int(sys.argv[-1]))
