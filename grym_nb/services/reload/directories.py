"""Events of directories, and why some of them have to be looked at instead."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Set
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent, FileSystemEventHandler
    from watchdog.observers.api import BaseObserver, ObservedWatch

__all__ = ["Directories", "Heard", "drive"]

_log = logging.getLogger(__name__)

#: what became of a file: it was put there under its name, it was closed by its writer, it is being written
Heard = Literal["renamed", "closed", "written", "other"]

_HEARD: dict[str, Heard] = {"moved": "renamed", "closed": "closed", "modified": "written"}

#: what others write there, this kernel is not told of
_REMOTE = re.compile(r"nfs|cifs|smb|9p$|afs|ceph|gluster|lustre|gpfs|virtiofs|vboxsf|prl_fs|drvfs|fuse(\.|$)")


def drive(directory: str, mounts: str) -> str:
    """Return the type of the network drive that a real directory is on, empty where it is on none.

    `mounts` is the text of `/proc/mounts`.
    """
    found, kind = "", ""
    for line in mounts.splitlines():
        _, point, sort, *_ = *line.split(" "), "", "", ""
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), point)
        inside = f"{directory}/".startswith(f"{point.rstrip('/')}/")
        if inside and len(point) >= len(found):  # of two at one point, the later one hides the other
            found, kind = point, sort
    return kind if _REMOTE.match(kind) else ""


class Directories:
    """Tells what happens to the files in some directories; `unheard` has those for which it cannot, and why.

    Whoever calls `follow` and `close` sees to it that no two threads do at once. `heard` is called on a
    thread of watchdog's.
    """

    def __init__(self, heard: Callable[[str, Heard], None], lost: Callable[[], None], *, deaf: str) -> None:
        self._heard = heard
        self._lost = lost
        self._deaf = deaf  # why there are no events at all
        self._deaf_anyhow = deaf
        self._observer: BaseObserver | None = None
        self._watched: dict[str, tuple[ObservedWatch, tuple[int, int]]] = {}
        self._refused: dict[str, tuple[tuple[int, int], str]] = {}
        self.unheard: dict[str, str] = {}

    @property
    def watched(self) -> int:
        """How many directories there are events of."""
        return len(self._watched)

    def follow(self, directories: Set[str]) -> None:
        """Have events of these directories, and of no others; one that was made anew is taken up again."""
        if self._deaf:
            self.unheard = dict.fromkeys(directories, self._deaf)
            return
        there = {directory: _identity(directory) for directory in directories}
        for directory, (watch, before) in tuple(self._watched.items()):
            if there.get(directory) != before:
                del self._watched[directory]
                self._unschedule(watch)
        unheard = {}
        for directory, identity in there.items():
            if directory in self._watched:
                continue
            why = f"{directory} is missing" if identity is None else self._take_up(directory, identity)
            if why:
                unheard[directory] = why
        self.unheard = unheard

    def close(self) -> None:
        """End all events, and wait for the threads to be gone; done again, it changes nothing."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
        self._observer, self._deaf = None, self._deaf_anyhow
        self._watched, self._refused, self.unheard = {}, {}, {}

    def dispatch(self, event: FileSystemEvent) -> None:
        """Pass on an event: this is what an observer calls."""
        if event.is_directory:
            self._lost()
            return
        source, target = os.fsdecode(event.src_path), os.fsdecode(event.dest_path or "")
        if target:
            self._heard(target, "renamed")
        self._heard(source, "other" if target else _HEARD.get(event.event_type, "other"))

    def _take_up(self, directory: str, identity: tuple[int, int]) -> str:
        """Have events of a directory; return why there are none, if so."""
        if self._deaf:
            return self._deaf
        known, why = self._refused.get(directory, (None, ""))
        if known != identity:
            why = _remote(directory) or self._schedule(directory, identity)
            if why:
                self._refused[directory] = identity, why  # asked once: it would only be refused again
        return why

    def _schedule(self, directory: str, identity: tuple[int, int]) -> str:
        try:
            from watchdog import events

            # Not those of reading: our own would be among them.
            wanted: list[type[FileSystemEvent]] = [
                events.FileCreatedEvent,
                events.FileModifiedEvent,
                events.FileClosedEvent,
                events.FileMovedEvent,
                events.FileDeletedEvent,
                events.DirDeletedEvent,
            ]
            ear = cast("FileSystemEventHandler", self)
            watch = self._observing().schedule(ear, directory, event_filter=wanted)
        except Exception as error:
            why = str(error) or type(error).__name__
            _log.warning("there are no events of %s, it is looked at instead: %s", directory, why)
            return why
        self._watched[directory] = watch, identity
        return ""

    def _observing(self) -> BaseObserver:
        if self._observer is None:
            from watchdog.observers import Observer

            try:
                observer = Observer()
                observer.start()
            except Exception as error:
                self._deaf = str(error) or type(error).__name__
                raise
            self._observer = observer
        return self._observer

    def _unschedule(self, watch: ObservedWatch) -> None:
        with suppress(KeyError, OSError):  # it may have ended with its directory
            if self._observer is not None:
                self._observer.unschedule(watch)


def _identity(directory: str) -> tuple[int, int] | None:
    try:
        found = os.stat(directory)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _remote(directory: str) -> str:
    try:
        with open("/proc/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
            kind = drive(directory, mounts.read())
    except OSError:
        return ""  # not Linux
    return f"{directory} is on {kind}" if kind else ""
