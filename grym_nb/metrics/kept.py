"""The history of the metrics in a folder, so that it is there after a restart.

The folder has files of lines of JSON, each begun by one kernel and never written by another: what SIGKILL or
a full disk cuts off is the end of one line, which nobody reads. The oldest file goes when there are too many
bytes. Times are times of day (UNIX time), since a kernel's own clock begins anew with the machine.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, pairwise
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from grym_nb.clock import Clock, wait
from grym_nb.errors import ConfigError, Problem, StorageError, closest
from grym_nb.metrics.given import check_name, one_of, positive
from grym_nb.metrics.history import History, Wanted, accepts
from grym_nb.metrics.window import (
    KINDS,
    Figure,
    Kind,
    Seen,
    Stretch,
    Tags,
    Window,
    check_figure,
    check_seconds,
    join,
    part_of,
)
from grym_nb.render import size
from grym_nb.sizes import parse_size

__all__ = ["Kept"]

_log = logging.getLogger(__name__)

_NAME = re.compile(r"[0-9]{16}-[0-9]+\.jsonl")
_FILES = 8  # into how many the bytes are parted, so that an eighth goes at a time
_LEAST_BYTES = 100_000
_PATIENCE = 2.0  # seconds that a kernel's end waits for a write
_JITTER = 1.0  # seconds by which the time of day may be put right between two slots

#: the name, the kind and the tags of a series
_Key: TypeAlias = tuple[str, Kind, Tags]


class _Slot(NamedTuple):
    """What came between two times of day: flat numbers by series, none for a gauge that went."""

    begin: float
    end: float
    parts: dict[_Key, list[float]]


class Kept:
    """Keeps a history in a folder, in at most `max_bytes`; `write` is for a thread that may wait for a disk.

    What is in the folder is asked like a `History`, and is up to `every` seconds old: 0 writes whenever it is
    asked to, infinity as it is closed. A disk that is full or a folder that cannot be written is said once in
    the log; what was not written then is written later, if the history still has it.
    """

    def __init__(
        self,
        history: History,
        folder: Path | str,
        *,
        max_bytes: str | int = "50MB",
        every: float = 60.0,
        width: float = 30.0,
        wall: Clock = time.time,
    ) -> None:
        one_of(history, History, "history", "a history, such as grym.current().history")
        one_of(folder, (str, os.PathLike), "folder", "the path of a folder, such as 'metrics'")
        width = positive(width, "width", "seconds from 0, such as 30", zero=True)  # 0: the finest there is
        every = positive(every, "every", "seconds from 0, such as 60", zero=True, endless=True)
        self._most = parse_size(max_bytes)
        if self._most < _LEAST_BYTES:
            problem = Problem("max_bytes", str(max_bytes), f"at least {size(_LEAST_BYTES)}")
            raise ConfigError("a history cannot be kept in so little", problems=[problem])
        self._history = history
        self._folder = Path(folder)
        self._every = every
        self._wall = wall
        rungs = [rung for rung, (wide, _) in enumerate(history.ladder) if wide >= width]
        self._rung = rungs[0] if rungs else len(history.ladder) - 1
        # Held by itself: Ctrl-C in the enter or exit of a condition would leave it taken by nobody.
        self._mutex = threading.RLock()
        self._lock = threading.Condition(self._mutex)
        self._busy: object | None = None  # the write that is under way
        self._asked = False  # to write at once, of whoever writes already
        self._closed = False
        self._written: float | None = None
        self._done = _Done()
        self._trouble = ""

    @property
    def trouble(self) -> str:
        """Why nothing is written at present; empty when it is."""
        return self._trouble

    def write(self, *, at_once: bool = False) -> int:
        """Write the slots that are over; return how many. Does nothing before it is time again.

        Never raises for a disk. Takes some milliseconds, or as long as the disk does: not for the pulse.
        Where another thread writes already, that one does it.
        """
        mine = object()
        try:
            if not self._begins(mine, at_once):
                return 0
            written = self._try()
            while self._is_asked_again(mine):
                written += self._try()
        except BaseException:
            self._end(mine)
            raise
        return written

    def close(self) -> None:
        """Write all there is, also of the slot that is not over yet. Idempotent; no file stays open.

        Waits for a write that is under way, though not for a disk that does not come back: what it has not
        written by then it writes when it does.
        """
        if not self._closed:
            self._history.finish()
            self._closed = True
        self.write(at_once=True)
        if not self._is_idle_within(_PATIENCE):
            told = "the last of the metrics' history is not in %s yet: a write takes longer than %g s"
            _log.warning(told, self._folder, _PATIENCE)

    def window(self, name: str, seconds: float, /, **tags: Wanted) -> Window:
        """Return the series of that name that have these tags, over the last so many seconds of the day."""
        reading = self._read(name, seconds, tags)
        found = reading.stretch().window(name)
        return found if found.kind is not None else replace(found, near=reading.near)

    def points(
        self, name: str, seconds: float, /, *, figure: Figure = "value", **tags: Wanted
    ) -> list[tuple[float, float]]:
        """Return a figure over time, oldest first, by time of day; times in which no kernel ran have none."""
        check_figure(figure)
        return self.stretch(name, seconds, **tags).points(figure)

    def stretch(self, name: str, seconds: float, /, **tags: Wanted) -> Stretch:
        """Return all that the folder has of these series over the last so many seconds."""
        return self._read(name, seconds, tags).stretch()

    def _read(self, name: str, seconds: float, tags: Mapping[str, Wanted]) -> _Reading:
        check_name(name)
        check_seconds(seconds)
        since = self._wall() - seconds
        found = _Reading(name, accepts(tags), since)
        for path in _files(self._folder):
            with suppress(OSError):
                if path.stat().st_mtime >= since:  # else all in it is from before
                    found.read(path)
        return found

    def __repr__(self) -> str:
        trouble = f", not written: {self._trouble}" if self._trouble else ""
        return f"<Kept: {size(_bytes_of(_files(self._folder)))} in {self._folder}{trouble}>"

    # -- one at a time -----------------------------------------------------------------------------

    def _begins(self, mine: object, at_once: bool) -> bool:
        """Tell whether to write now; from then on nobody else does."""
        now = self._history.clock()
        with self._mutex:
            self._asked = self._asked or at_once
            due = self._asked or self._written is None or now - self._written >= self._every
            if self._busy is not None or not due:
                return False
            self._busy, self._written, self._asked = mine, now, False
            return True

    def _is_asked_again(self, mine: object) -> bool:
        """Tell whether somebody has asked meanwhile; if not, others may write."""
        with self._mutex:
            again, self._asked = self._asked, False
            if not again:
                self._end(mine)
            return again

    def _end(self, mine: object) -> None:
        """Let others write, if it is this one that does; nothing twice, wherever Ctrl-C comes."""
        with self._mutex:
            if self._busy is mine:
                self._busy = None
                self._lock.notify_all()

    def _is_idle_within(self, patience: float) -> bool:
        clock = self._history.clock
        until = clock() + patience
        with self._mutex:
            return self._wait(clock, until)

    def _wait(self, clock: Clock, until: float) -> bool:
        while self._busy is not None and clock() < until:
            wait(clock, self._lock, until)
        return self._busy is None

    def _try(self) -> int:
        try:
            return self._write()
        except OSError as error:
            self._fail(error)
            return 0

    # -- written -----------------------------------------------------------------------------------

    def _write(self) -> int:
        number, times, series = self._history.closed(self._rung, self._done.next)
        shift = self._wall() - self._history.clock()
        first = number - len(times) + 1
        for at, slot in enumerate(_slots(times, series, shift)):
            self._done = _Done(self._appended(slot, at, series), first + at + 1)
        if self._trouble:
            _log.warning("the history of the metrics is written to %s again", self._folder)
            self._trouble = ""
        return len(times) - 1

    def _appended(self, slot: _Slot, at: int, series: list[tuple[str, Seen]]) -> _File:
        """Put a slot into the file, or into the next one where it is full, or where somebody took it away."""
        file, _, begun = self._done
        if begun is not None:
            begun.unlink(missing_ok=True)  # Ctrl-C came: what may be in it is written now
        if file is not None and file.is_whole():
            data, ids = file.lines(slot)
            fits = file.length + len(data) <= self._most // _FILES
            if fits and self._make_room(len(data)) and file.put(data):
                return file.with_(data, ids)
        file = _File(self._folder / f"{round(slot.begin * 1e6):016d}-{os.getpid()}.jsonl")
        data, ids = file.lines(slot, {_key(name, one): _before(one, at) for name, one in series})
        if len(data) > self._most:
            told = f"{len(series)} series take {size(len(data))}, and {size(self._most)} may be kept"
            raise StorageError(f"{told}: set metrics_bytes= higher", hint="")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._make_room(len(data))
        self._done = self._done._replace(begun=file.path)
        file.put(data)
        return file.with_(data, ids)

    def _make_room(self, more: int) -> bool:
        """Let the oldest files go until so many bytes fit; tell whether our own is still there."""
        files = list(_files(self._folder))
        there = True
        while files and _bytes_of(files) + more > self._most:
            gone = files.pop(0)
            gone.unlink(missing_ok=True)
            there = there and self._done.file is not None and gone != self._done.file.path
        return there

    def _fail(self, error: OSError) -> None:
        self._done = self._done._replace(
            file=None
        )  # the next try begins another: this one may end within a line
        if not self._trouble:
            _log.warning("the history of the metrics is not written to %s: %s", self._folder, error)
        self._trouble = str(error)


class _File(NamedTuple):
    """A file that is written a slot at a time: each series is named once, and then by a number.

    As it was when its last slot was seen to be there: what comes behind that in it is written again.
    """

    path: Path
    length: int = 0
    ids: Mapping[_Key, int] = {}

    def with_(self, data: bytes, ids: Mapping[_Key, int]) -> _File:
        """Return it with these lines in it."""
        return _File(self.path, self.length + len(data), ids)

    def lines(
        self, slot: _Slot, levels: Mapping[_Key, float | None] = {}
    ) -> tuple[bytes, Mapping[_Key, int]]:
        """Return the lines for a slot, and all numbers then; `levels` is what all gauges were before it."""
        ids = {**self.ids}
        there = [key for key, level in levels.items() if level is not None]
        rows: list[Any] = []
        for key in dict.fromkeys([*there, *slot.parts]):
            if key not in ids:
                ids[key] = len(ids)
                name, kind, tags = key
                named = {"id": ids[key], "name": name, "kind": kind, "tags": tags}
                rows.append({**named, "level": levels.get(key)})
        parts = [[ids[key], *map(_short, part)] for key, part in slot.parts.items()]
        rows.append([slot.end, slot.begin, parts])
        return "".join([json.dumps(row, separators=(",", ":")) + "\n" for row in rows]).encode(), ids

    def is_whole(self) -> bool:
        """Tell whether what was written is there: another kernel may have made room, or somebody by hand.

        What Ctrl-C left behind it is cut off.
        """
        try:
            there = self.path.stat().st_size
            if there > self.length:
                os.truncate(self.path, self.length)
            return there >= self.length
        except FileNotFoundError:
            return False

    def put(self, data: bytes) -> bool:
        """Append lines, all of them or, where the disk lets us, none; tell whether the file is there."""
        flags = os.O_WRONLY | (os.O_APPEND if self.length else os.O_CREAT | os.O_TRUNC)
        try:
            opened = os.open(self.path, flags, 0o600)
        except FileNotFoundError:
            if not self.length:
                raise
            return False
        try:
            with os.fdopen(opened, "wb") as file:
                file.write(data)
        except BaseException:  # Ctrl-C too: a slot that is in two files would count twice
            with suppress(OSError):
                os.truncate(self.path, self.length)
            raise
        return True


class _Done(NamedTuple):
    """What is written, and where; replaced as a whole, so that Ctrl-C comes before a slot counts or after."""

    file: _File | None = None
    next: int = 0  # number of the slot that is written next
    begun: Path | None = None  # a file in which none counts yet


def _slots(times: Sequence[float], series: list[tuple[str, Seen]], shift: float) -> list[_Slot]:
    """Return what came in each slot, also where nothing did: then a kernel was there, and all was quiet."""
    day = [round(at + shift, 3) for at in times]
    slots = [_Slot(begin, end, {}) for begin, end in pairwise(day)]
    for name, one in series:
        key = _key(name, one)
        for at, part in one.slots:
            if at >= 0:
                slots[at].parts[key] = _flat(one.kind, part)
        if one.kind == "gauge" and times[0] < one.gone <= times[-1]:
            slots[bisect_left(times, one.gone) - 1].parts[key] = []
    return slots


def _key(name: str, one: Seen) -> _Key:
    return name, one.kind, one.tags


def _before(one: Seen, at: int) -> float | None:
    """Return what a gauge was before a slot."""
    if one.kind != "gauge":
        return None
    known = [part[0] for number, part in one.slots if number < at]
    return known[-1] if known else one.held


def _flat(kind: Kind, part: Any) -> list[float]:
    if kind != "histogram":
        return list(part)
    total, grown = part
    return [total, *chain.from_iterable(grown.items())]


def _short(number: float) -> float:
    """Return a number that takes few letters: 10 digits are more than any figure has."""
    if isinstance(number, int) or not isfinite(number):
        return number
    return int(number) if number.is_integer() and abs(number) < 2**53 else float(f"{number:.10g}")


# -- read back -----------------------------------------------------------------------------------------


def _files(folder: Path) -> list[Path]:
    """Return the files of a folder that are ours, the oldest first."""
    try:
        return sorted([path for path in folder.iterdir() if _NAME.fullmatch(path.name)])
    except OSError:
        return []


def _bytes_of(files: Iterable[Path]) -> int:
    found = 0
    for path in files:
        with suppress(OSError):
            found += path.stat().st_size
    return found


class _Reading:
    """What files tell of the series of a name that fit, since a time of day."""

    def __init__(self, name: str, fits: Callable[[Mapping[str, str]], bool], since: float) -> None:
        self._name = name
        self._fits = fits
        self._since = since
        self._rows: list[tuple[float, float, dict[tuple[Kind, Tags], Any]]] = []
        self._there: dict[str, set[str]] = {}  # by the name of a series: the tags that it has
        self._fitted = False

    def read(self, path: Path) -> None:
        """Read a file; lines that are damaged are left out."""
        known: dict[int, tuple[Kind, Tags]] = {}
        levels: dict[tuple[Kind, Tags], Any] = {}
        with path.open("rb") as file:
            for line in file:
                with suppress(ValueError, TypeError, LookupError):
                    if line.startswith(b"{"):
                        self._define(json.loads(line), known, levels)
                    else:
                        self._row(line, known, levels)

    def _define(
        self, told: Any, known: dict[int, tuple[Kind, Tags]], levels: dict[tuple[Kind, Tags], Any]
    ) -> None:
        tags = tuple((str(tag), str(value)) for tag, value in told["tags"])
        self._there.setdefault(str(told["name"]), set()).update([tag for tag, _ in tags])
        if told["name"] == self._name and told["kind"] in KINDS and self._fits(dict(tags)):
            self._fitted = True
            known[told["id"]] = key = (told["kind"], tags)
            if told["level"] is not None:
                levels[key] = (float(told["level"]),) * 3

    def _row(
        self, line: bytes, known: dict[int, tuple[Kind, Tags]], levels: dict[tuple[Kind, Tags], Any]
    ) -> None:
        """Take in a slot. Of those from before, only gauges matter: most lines are never parsed."""
        gauges = any(kind == "gauge" for kind, _ in known.values())
        if float(line[1 : line.index(b",")]) <= self._since and not gauges:
            return
        end, begin, told = json.loads(line)
        parts = {known[one]: part_of(known[one][0], flat) for one, *flat in told if one in known}
        self._rows.append((float(end), float(begin), {**levels, **parts}))
        levels.clear()

    @property
    def near(self) -> str:
        """What there is instead of series of which nothing was read."""
        if self._name not in self._there:
            return f"the folder has no series of that name from that time.{closest(self._name, self._there)}"
        if not self._fitted:
            known = sorted(self._there[self._name])
            return f"the folder has none with these tags; its tags are {', '.join(known) or 'none'}"
        return "the folder has nothing of it from that time"

    def stretch(self) -> Stretch:
        """Return what was read, the slots of all files one after another."""
        times: list[float] = []
        gaps: set[int] = set()
        slots: dict[tuple[Kind, Tags], list[tuple[int, Any]]] = {}
        kind: Kind | None = None
        for end, begin, parts in sorted(self._rows, key=lambda row: row[0]):
            if not times or begin > times[-1] + _JITTER:
                gaps |= {len(times) - 1} if times else set()
                times.append(begin)
            if end > times[-1]:
                times.append(end)
            for key, part in parts.items():
                kind = key[0]
                _put(slots.setdefault(key, []), len(times) - 2, kind, part)
        whole = Stretch(
            times, [Seen(*key, its) for key, its in slots.items() if key[0] == kind], frozenset(gaps)
        )
        return whole.since(self._since)


def _put(slots: list[tuple[int, Any]], at: int, kind: Kind, part: Any) -> None:
    """Put what came into a slot, which may have something already: two kernels may have written at a time."""
    if slots and slots[-1][0] == at:
        before = slots.pop()[1]
        part = join(kind, before, part) if before and part else part
    slots.append((at, part))
