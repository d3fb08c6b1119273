"""What a kernel was doing, in a file of its own: a kernel that is killed for its memory says nothing itself.

The next kernel of the same folder reads it once, and says it where it looks as if memory was why.
"""

from __future__ import annotations

import atexit
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grym_nb.events import StateChanged
from grym_nb.hardening.pressure import REFUSED_FROM, WARNED_FROM, kills, pressure
from grym_nb.render import size
from grym_nb.services.expectation import expected

if TYPE_CHECKING:
    from grym_nb.pulse import Entry
    from grym_nb.runtime import Runtime

__all__ = ["Crumbs", "drop", "found"]

_KEPT_SECONDS = 86_400.0
_LOOK_EVERY = 2.0  # seconds


def _folder() -> Path:
    from jupyter_core.paths import jupyter_runtime_dir

    return Path(jupyter_runtime_dir()) / "grym_nb"


class Crumbs:
    """Writes down what services load and how much memory is left, until `end` or a clean exit."""

    def __init__(self, runtime: Runtime, *, folder: Path | None = None) -> None:
        self._runtime = runtime
        self._at = (folder or _folder()) / f"{os.getpid()}.json"
        self._watch: Entry | None = None
        self._unsubscribe = runtime.events.subscribe(self._note, StateChanged)
        atexit.register(self.end)

    def look(self, *_: object) -> None:
        """Say that memory is running out, if it is, and write down what runs meanwhile."""
        if self._runtime.resources.look().share >= WARNED_FROM:
            titles = [frame.title for frame in self._runtime.registry.running()]
            drop(self._at, f"in {', '.join(titles[:3])}" if titles else "", 0, self._runtime)

    def end(self) -> None:
        """Look no more, and take the file away."""
        self._unsubscribe()
        if self._watch is not None:
            self._watch.cancel()
        with suppress(OSError):
            self._at.unlink()
        atexit.unregister(self.end)

    def _note(self, event: StateChanged) -> None:
        if "loading" not in (event.before, event.after):
            return
        begins = event.after == "loading"
        asked = expected(self._runtime.registry[event.service]._record)[0] if begins else {}
        drop(self._at, f"loading {event.service}" if begins else "", sum(asked.values()), self._runtime)
        if self._watch is None:  # before that there is nothing that could run for long
            pulse = self._runtime.registry.ports.pulse
            self._watch = pulse.every(_LOOK_EVERY, self.look, name="how much memory is left")


def drop(at: Path, doing: str, asked: int, runtime: Runtime) -> None:
    """Write the file, in one piece; a disk that is full or read-only is nobody's trouble here."""
    with suppress(OSError):
        _drop(at, doing, asked, runtime)


def _drop(at: Path, doing: str, asked: int, runtime: Runtime) -> None:
    now = pressure()
    there = sorted({one.owner for one in runtime.resources.ledger.held if one.storages is not None})
    told = {"at": time.time(), "folder": os.getcwd(), "doing": doing, "there": there, "asked": asked}
    told |= {"used": now.used, "limit": now.limit, "source": now.source, "kills": kills()}
    at.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = at.with_suffix(".part")  # of this process alone
    try:
        part.write_text(json.dumps(told), encoding="utf-8")
        os.replace(part, at)
    finally:
        part.unlink(missing_ok=True)


def found(*, folder: Path | None = None) -> Iterator[str]:
    """Yield what kernels of this folder that ended without a word were doing, where memory may be why.

    Each is told once, and forgotten. What is another folder's stays for who starts there, for a day.
    """
    with suppress(OSError):
        for file in sorted((folder or _folder()).glob("*.json")):
            if not _runs(file):
                told = _read(file)
                if told is not None and told.get("folder") != os.getcwd():
                    continue
                with suppress(OSError):
                    file.unlink()
                line = ""
                with suppress(Exception):  # written by another version, or by nobody of ours
                    line = _said(told) if told is not None else ""
                if line:
                    yield line


def _runs(file: Path) -> bool:
    import psutil

    try:
        return psutil.Process(int(file.stem)).create_time() <= file.stat().st_mtime
    except (psutil.Error, ValueError, OSError):
        return False


def _read(file: Path) -> dict[str, Any] | None:
    """Return what a file says; None where that is too old, or not whole, for anybody to be told."""
    try:
        told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return told if time.time() - float(told["at"]) < _KEPT_SECONDS else None
    except Exception:  # not ours, or not whole
        return None


def _said(told: dict[str, Any]) -> str:
    before, now = told.get("kills"), kills()
    killed = before is not None and now is not None and now > before
    doing, used, limit = str(told["doing"]), int(told["used"]), int(told["limit"])
    expected = used + int(told["asked"])
    if not killed and expected < (REFUSED_FROM if told["asked"] else WARNED_FROM) * limit:
        return ""
    there = f"with {', '.join(told['there'])} loaded" if told["there"] else "with nothing loaded"
    why = "was killed for its memory" if killed else "ended without a word"
    more = f", {size(int(told['asked']))} more asked for" if doing and told["asked"] else ""
    return (
        f"grym: the kernel before this one {why}, {doing or 'idle or in a call'} {there}: "
        f"{size(used)} of {size(limit)} in use{more}. %grym mem --budget keeps services within less"
    )
