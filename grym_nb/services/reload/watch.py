"""Tells when files have other text: saved at once or in pieces, by whatever editor, one or many.

An event, or another stat, is only where it begins. What counts is the text: it is told when it differs from
what was told last, and when whoever writes it seems to be done.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from grym_nb.clock import Clock, monotonic
from grym_nb.errors import StateError
from grym_nb.pulse import Entry, Pulse
from grym_nb.services.reload.directories import Directories, Heard

__all__ = ["Watch", "WatchStatus"]

_log = logging.getLogger(__name__)

_NAME = "watch over source files"

_GATHER = 0.002  # seconds for others that are saved with it, where a file was closed, or put there whole
_SETTLE = 0.005  # of quiet, after which it was written, or saved with others
_GRACE = 0.3  # of quiet, where it does not look like that: it is empty, no Python, or not closed
_HOLD = 0.25  # a file waits for others for so long at most
_LONGEST = 2.0  # and for its own writer

_QUICK, _SLOW = 0.5, 4.0  # seconds between two looks at what there are no events of
_SELDOM = 30.0  # and where there are: events get lost, and directories are made anew
_HUNG = 30.0  # a look that takes longer waits for a drive that does not answer

_CLOSES = sys.platform.startswith("linux")  # elsewhere nobody tells that a file was closed

_Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class WatchStatus:
    """What a watch does: how it comes to know, of how many files, and how many changes it has told.

    `why` has the reasons for which some files, or all, are looked at again and again.
    """

    is_on: bool
    how: Literal["events", "polling", "off"]
    files: int
    changes: int
    why: str = ""


class _File:
    """A file that is followed: what is known of it, and where its events come from."""

    __slots__ = ("again", "known", "places", "stale", "stamp")

    def __init__(self) -> None:
        self.places: tuple[str, ...] = ()
        self.stale = True  # a link on the way may lead elsewhere by now
        self.known: bytes | None = None  # of the text that was told last
        self.stamp: _Stamp | None = None
        self.again = 0  # so many looks read it, though its stamp is the same

    def begin(self, path: str) -> None:
        text, self.stamp = _read(path)
        self.known = None if text is None else _mark(text)
        self.again = _AGAIN


_AGAIN = 4  # a clock of files may tick every 2 s only


class _Unsettled:
    """A file of which something was noticed, until it is told or turns out to be as it was."""

    __slots__ = ("count", "done", "due", "quiet", "since", "stamp", "whole", "writing")

    def __init__(self, now: float) -> None:
        self.since = now
        self.quiet = now  # since when nothing was noticed
        self.due = now
        self.count = 0  # of what was noticed
        self.stamp: _Stamp | None = None
        self.whole = False  # it was put there in one piece
        self.done = False  # or whoever wrote to it has closed it
        self.writing = False  # it was written to, and not closed since

    def notice(self, heard: Heard, stamp: _Stamp | None, now: float) -> None:
        self.count += 1
        self.quiet, self.stamp = now, stamp
        self.whole = heard == "renamed" or (self.whole and heard == "closed")
        if heard != "other":
            self.writing = heard == "written" and _CLOSES
        self.done = self.whole or (heard == "closed" and _CLOSES)
        self.wait(_GRACE if self.writing else _GATHER if self.done else _SETTLE)

    def wait(self, patience: float) -> None:
        self.due = min(self.quiet + patience, self.since + _LONGEST)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What a look at an unsettled file came to: it is over, with this text or without, or it has to wait."""

    over: bool
    mark: bytes | None = None
    patience: float = 0.0
    moved: bool = False  # it was written to under our eyes
    stamp: _Stamp | None = None


class Watch:
    """Calls ``changed(paths)`` when files have other text, on a work thread, one call at a time.

    What changes while it runs is told when it has returned. `polling` does without events; so does whatever
    they cannot be had of. `clock` is the one of the pulse.
    """

    def __init__(
        self,
        pulse: Pulse,
        changed: Callable[[frozenset[str]], object],
        *,
        polling: bool = False,
        clock: Clock = monotonic,
    ) -> None:
        self._pulse = pulse
        self._changed = changed
        self._clock = clock
        self._gate = threading.Lock()  # of what is followed
        self._lock = threading.Lock()  # of what is unsettled; never held for long, nor over the other
        self._paths: Callable[[], Iterable[str]] | None = None
        self._newer: Callable[[str], bool] = _never
        self._parses: Callable[[str, bytes], bool] = _compiles
        self._files: dict[str, _File] = {}
        self._given: tuple[str, ...] = ()
        self._names: dict[str, tuple[str, ...]] = {}  # by the place of an event
        self._homes: frozenset[str] = frozenset()
        deaf = "polling was asked for" if polling else ""
        self._directories = Directories(self._heard, self._lost, deaf=deaf)
        self._unsettled: dict[str, _Unsettled] = {}
        self._busy = False
        self._wake: Entry | None = None
        self._next_poll: Entry | None = None
        self._polling = False
        self._pause = _SLOW
        self._asked = 0.0  # when it was asked which files there are
        self._changes = 0

    def on(
        self,
        paths: Callable[[], Iterable[str]],
        newer: Callable[[str], bool] | None = None,
        parses: Callable[[str, bytes], bool] | None = None,
    ) -> None:
        """Follow the files whose absolute paths `paths` returns, now and whenever it is asked again.

        Each is taken as it is now. One that comes later is told at once where it is `newer` than what is in
        force by then. A text that does not `parse` is waited for a little. Where the watch is on already,
        these are what it follows.
        """
        paths()  # raises here what it raises
        with self._gate:
            self._paths, self._newer = paths, _never
        self.refresh()
        self._newer, self._parses = newer or _never, parses or _compiles

    def off(self) -> None:
        """Follow nothing, and wait for the threads of the observer; a call that runs ends by itself."""
        with self._gate:
            self._paths = None
            self._given, self._files, self._names = (), {}, {}
            self._directories.close()
        with self._lock:
            self._unsettled.clear()
            entries = self._wake, self._next_poll
            self._wake = self._next_poll = None
        for entry in entries:
            if entry is not None:
                entry.cancel()

    def refresh(self) -> None:
        """Ask which files there are to follow."""
        paths = self._paths
        if paths is None:
            return
        self._asked, given = self._clock(), tuple(paths())
        with self._gate:
            if self._paths is not paths:
                return
            newer = self._follow(given)
        self._notice(dict.fromkeys(newer))
        self._poll_later()

    def look(self) -> None:
        """Look at all files, as if something had happened to each."""
        self.refresh()
        self._notice({path: _stamp(path) for path in self._files})

    def status(self) -> WatchStatus:
        """Return what it does, and has done."""
        # Without the gate: whoever has it may wait for a drive.
        if self._paths is None:
            return WatchStatus(False, "off", 0, self._changes)
        heard, unheard = self._directories.watched, self._directories.unheard
        why = "; ".join(sorted(set(unheard.values())))
        how: Literal["events", "polling"] = "polling" if unheard and not heard else "events"
        return WatchStatus(True, how, len(self._files), self._changes, why)

    def __repr__(self) -> str:
        now = self.status()
        return f"<Watch {now.how}: {now.files} files, {now.changes} changes told>"

    def _follow(self, given: tuple[str, ...]) -> Collection[str]:
        """Follow these files; return those that are newer than what is in force (with the gate)."""
        if given == self._given and not any(file.stale for file in self._files.values()):
            self._directories.follow(self._homes)
            return ()
        files = {path: self._files.get(path) or _File() for path in given}
        names: dict[str, tuple[str, ...]] = {}
        for path, file in files.items():
            if file.stale:
                file.places, file.stale = _places(path), False
            for place in file.places:
                names[place] = (*names.get(place, ()), path)
        self._names, self._homes = names, frozenset(os.path.dirname(place) for place in names)
        self._directories.follow(self._homes)
        newer = []
        for path in files.keys() - self._files.keys():
            files[path].begin(path)  # when there are events of it already: what comes later is noticed
            if self._newer(path):
                files[path].known = None
                newer.append(path)
        self._given, self._files = given, files
        return newer

    def _heard(self, place: str, heard: Heard) -> None:
        self._notice(dict.fromkeys(self._names.get(place, ())), heard)

    def _lost(self) -> None:
        self._notice(dict.fromkeys(self._files))

    def _notice(self, paths: Mapping[str, _Stamp | None], heard: Heard = "other") -> None:
        """Begin to look at files of which something was noticed, or begin again."""
        if not paths:
            return
        now = self._clock()
        with self._lock:
            self._add(paths, heard, now)
            self._wake_at(self._unsettled[next(iter(paths))].due)

    def _add(self, paths: Mapping[str, _Stamp | None], heard: Heard, now: float) -> None:
        for path, stamp in paths.items():
            seen = self._unsettled.get(path)
            if seen is None:
                seen = self._unsettled[path] = _Unsettled(now)
            seen.notice(heard, stamp, now)

    def _when(self) -> float | None:
        """Return when to look: what comes to rest shortly one after the other is told together."""
        dues = sorted((seen.due, seen.since) for seen in self._unsettled.values())
        if not dues:
            return None
        first, since = dues[0]
        last = first
        for due, _ in dues:
            if due > last + _SETTLE:
                break
            last = due
        return max(first, min(last, since + _HOLD))

    def _wake_at(self, due: float | None) -> None:
        if due is None or self._busy:
            return
        if self._wake is not None:
            if self._wake.due <= due:
                return
            self._wake.cancel()
        with suppress(StateError):  # the pulse is closed: nothing is told any more
            self._wake = self._pulse.at(due, self._woken, name=_NAME)

    def _woken(self) -> None:
        now = self._clock()
        with self._lock:
            self._wake = None
            due = self._when()
            if due is None or due > now or self._busy:
                self._wake_at(due)
                return
            self._busy = True
        try:
            self._pulse.work(self._round, name=_NAME)
        except StateError:
            self._busy = False

    def _round(self) -> None:
        """Look at what is due, and tell what has changed; there is one of it at a time."""
        try:
            if ready := self._settled():
                self._tell(ready)
        finally:
            with self._lock:
                self._busy = False
                self._wake_at(self._when())

    def _tell(self, ready: frozenset[str]) -> None:
        self._changes += len(ready)
        try:
            self._changed(ready)
        except Exception:
            _log.exception("what was told of other text in %s raised", ", ".join(sorted(ready)))

    def _settled(self) -> frozenset[str]:
        now = self._clock()
        with self._lock:
            due = self._due(now)
        self._ask_again(due)  # before the files are read: what happens after that is noticed
        files = self._files
        verdicts = {path: self._judge(path, files.get(path), seen, now) for path, (seen, _) in due.items()}
        with self._lock:
            return frozenset(self._take(due, verdicts, now))

    def _judge(self, path: str, file: _File | None, seen: _Unsettled, now: float) -> _Verdict:
        """Read a file, and say what comes of it."""
        if file is None:
            return _Verdict(True)
        text, stamp = _read(path)
        if text is None:
            return _Verdict(now >= min(seen.quiet + _GRACE, seen.since + _LONGEST), patience=_GRACE)
        mark = _mark(text)
        if mark == file.known:
            return _Verdict(True, mark)
        moved = stamp is None or seen.stamp not in (None, stamp)
        if not text or seen.writing or not (seen.whole or self._parses(path, text)):
            patience = _GRACE
        else:
            patience = _GATHER if seen.done else _SETTLE
        quiet = now if moved else seen.quiet
        over = now >= min(quiet + patience, seen.since + _LONGEST)
        return _Verdict(over, mark, patience, moved, stamp)

    def _due(self, now: float) -> dict[str, tuple[_Unsettled, int]]:
        return {path: (seen, seen.count) for path, seen in self._unsettled.items() if seen.due <= now}

    def _take(
        self, due: Mapping[str, tuple[_Unsettled, int]], verdicts: Mapping[str, _Verdict], now: float
    ) -> list[str]:
        """Put verdicts down, but for what was noticed anew meanwhile; return the files with other text."""
        ready = []
        for path, (seen, count) in due.items():
            verdict, file = verdicts[path], self._files.get(path)
            if self._unsettled.get(path) is not seen or seen.count != count:
                continue
            if not verdict.over:
                seen.stamp = verdict.stamp
                if verdict.moved:
                    seen.quiet, seen.whole = now, False
                seen.wait(verdict.patience)
                continue
            del self._unsettled[path]
            if file is None:
                continue
            if verdict.mark is None:
                file.stamp = None  # one that cannot be read is looked at again
            elif verdict.mark != file.known:
                file.known = verdict.mark
                ready.append(path)
        return ready

    def _ask_again(self, moved: Iterable[str] = ()) -> None:
        """Refresh, also where the files that have moved are."""
        for path in moved:
            if file := self._files.get(path):
                file.stale = True
        try:
            self.refresh()
        except Exception:
            _log.exception("it cannot be told which files to watch over")

    def _poll_later(self) -> None:
        """Look at all stamps in a while; sooner than that where it turns out that there are no events."""
        pause = self._pause if self._directories.unheard else _SELDOM
        due = self._clock() + pause
        with self._lock:
            if self._paths is None or (self._next_poll is not None and self._next_poll.due <= due):
                return
            before, self._next_poll = self._next_poll, None
            with suppress(StateError):
                self._next_poll = self._pulse.at(due, self._poll_now, name=_NAME)
        if before is not None:
            before.cancel()

    def _poll_now(self) -> None:
        with self._lock:
            if self._next_poll is None or self._next_poll.due > self._clock():
                return  # it was put off as it came due
            self._next_poll = None
            hangs, self._polling = self._polling, True
        self._poll_later()
        if hangs:
            return  # a drive that does not answer is not asked twice
        try:
            self._pulse.work(self._poll, name=_NAME, deadline=self._clock() + _HUNG)
        except StateError:
            self._polling = False

    def _poll(self) -> None:
        try:
            if self._clock() - self._asked >= _SELDOM:  # whoever knows of others says so
                self._ask_again()
            self._compare()
        finally:
            self._poll_later()
            self._polling = False

    def _compare(self) -> None:
        differ: dict[str, _Stamp | None] = {}
        for path, file in self._files.items():
            stamp = _stamp(path)
            if stamp != file.stamp:
                file.stamp, file.again = stamp, _AGAIN
                self._pause = _QUICK  # who saves once, saves again
            elif file.again and self._directories.unheard:
                file.again -= 1
            else:
                continue
            differ[path] = stamp
        if not differ:
            self._pause = min(self._pause * 1.1, _SLOW)
        self._notice(differ)


def _never(path: str) -> bool:
    return False


def _read(path: str) -> tuple[bytes | None, _Stamp | None]:
    """Return the text of a file, None where there is none, and its stamp, None where it changed meanwhile."""
    try:
        with open(path, "rb", buffering=0) as file:
            before = os.fstat(file.fileno())
            text = file.read()
            after = os.fstat(file.fileno())
    except OSError:
        return None, None
    stamp = _stamp_of(after)
    return text, stamp if stamp == _stamp_of(before) else None


def _stamp(path: str) -> _Stamp | None:
    try:
        return _stamp_of(os.stat(path))
    except OSError:
        return None


def _stamp_of(found: os.stat_result) -> _Stamp:
    return found.st_mtime_ns, found.st_size, found.st_ino


def _mark(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=16).digest()


def _compiles(path: str, text: bytes) -> bool:
    try:
        compile(text, path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _places(path: str) -> tuple[str, ...]:
    """Return where events of a file come from: from where it is, and from the link that leads there."""
    head, tail = os.path.split(path)
    given = os.path.join(os.path.realpath(head), tail)
    return tuple(dict.fromkeys((given, os.path.realpath(path))))
