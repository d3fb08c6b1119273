"""What a call takes beside the weights, learned from calls: so much, and more for each second of sound.

>>> peaks = Peaks()
>>> for seconds in (1.0, 2.0, 4.0):
...     peaks.learn(seconds, 1_000_000 + int(seconds * 500_000))
>>> peaks.predict(8.0)
5000000
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from math import log2
from pathlib import Path
from typing import Any, NamedTuple

from grym_nb.hardening.returning import give_back
from grym_nb.render import count, size

__all__ = ["Measure", "Peaks", "work_in"]

_MUCH = 1_000_000  # bytes
_LONGEST = 1e9  # seconds of sound: longer is none
_KEPT = 64  # observations
_OF_EACH_SIZE = 3  # of those between one power of two and the next: then it is known
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class _Line(NamedTuple):
    """``base + slope * work``, in bytes."""

    base: float
    slope: float


class Peaks:
    """The peaks of a task's calls by the work they were given, and the line through them; for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: deque[tuple[float, int]] = deque(maxlen=_KEPT)
        self.error: float | None = None  # of the last prediction: 0.1 for a tenth too much

    def wants(self, work: float) -> bool:
        """Tell whether a call of this size would teach anything."""
        bucket = _bucket(work)
        with self._lock:
            return self._count(bucket) < _OF_EACH_SIZE

    def _count(self, bucket: int) -> int:
        return sum([_bucket(work) == bucket for work, _ in self._seen])

    def learn(self, work: float, peak: int) -> None:
        """Take in what a call of this size took at its peak."""
        expected = self.predict(work)
        if expected is not None and peak > 0:
            self.error = expected / peak - 1.0
        with self._lock:
            self._seen.append((work, peak))

    def predict(self, work: float) -> int | None:
        """Return what a call of this size will take at its peak; None as long as nothing is known."""
        with self._lock:
            seen = list(self._seen)
        fit = _line(seen, near=work) if seen else None
        return None if fit is None else max(0, round(fit.base + fit.slope * work))

    @property
    def is_much(self) -> bool:
        """Tell whether the last call took as much as anybody would want to know."""
        with self._lock:
            return bool(self._seen) and self._seen[-1][1] >= _MUCH

    @property
    def told(self) -> str:
        """What was learned, in words."""
        with self._lock:
            seen = list(self._seen)
        fit = _line(seen)
        if fit is None:
            return "not known yet"
        more = f" + {size(round(fit.slope))} for each second" if any(work for work, _ in seen) else ""
        return f"{size(round(fit.base))}{more}, of {count(len(seen), 'call')}"


def _bucket(work: float) -> int:
    return round(log2(max(work, 1e-6)))


def _line(seen: Iterable[tuple[float, int]], *, near: float | None = None) -> _Line | None:
    """Return the line through what was seen, by least squares of relative errors; no part of it negative.

    What was seen `near` a size weighs more, each power of two away half as much: no model is quite a line.
    """
    points = [(work, float(peak), _weight(work, near) / max(peak, 1) ** 2) for work, peak in seen]
    if not points:
        return None
    weight = sum(w for *_, w in points)
    x = sum(w * work for work, _, w in points) / weight
    y = sum(w * peak for _, peak, w in points) / weight
    spread = sum(w * (work - x) ** 2 for work, _, w in points)
    if spread <= 1e-12 * weight * max(x * x, 1e-12):  # all of one size: through zero
        return _Line(0.0, y / x) if x > 0 else _Line(y, 0.0)
    slope = sum(w * (work - x) * (peak - y) for work, peak, w in points) / spread
    if slope < 0:
        return _Line(y, 0.0)
    base = y - slope * x
    if base >= 0:
        return _Line(base, slope)
    return _Line(0.0, sum(w * work * peak for work, peak, w in points) / sum(w * p * p for p, _, w in points))


def _weight(work: float, near: float | None) -> float:
    return 1.0 if near is None else 0.25 ** abs(log2(max(work, 1e-6) / max(near, 1e-6)))


# -- how much a call is given ----------------------------------------------------------------------


def work_in(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float:
    """Return the seconds of sound among a call's arguments, times how many there are of them at a time.

    In a batch the longest counts for all, since the others are padded to it. 0 where there is no sound.
    """
    found = [work for value in (*args, *kwargs.values()) if (work := _work(value)) is not None]
    return max(found, default=0.0)


def _work(value: Any) -> float | None:
    seconds = _seconds(value)
    if seconds is not None:
        return seconds
    if isinstance(value, (list, tuple)) and value and _seconds(value[0]) is not None:
        each = [one for one in map(_seconds, value) if one is not None]
        return max(each) * len(each) if each else None
    return None


def _seconds(value: Any) -> float | None:
    try:
        if not (hasattr(value, "rate") and hasattr(value, "samples")):
            return None
        seconds = value.seconds  # of a clip, whoever's
        return float(seconds) if isinstance(seconds, (int, float)) and 0 < seconds < _LONGEST else None
    except Exception:  # a stranger that does not like to be asked
        return None


# -- what it took ----------------------------------------------------------------------------------


class Measure:
    """The peak of memory beyond where it was, between two moments: of a card, or of this process."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._before: int | None
        if device.startswith("cuda"):
            torch: Any = sys.modules["torch"]
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
        else:
            give_back(collect=False)  # what lies about in the heap would be used first, and unseen
            self._before = _forgotten()

    def peak(self) -> int | None:
        """Return the bytes; None where the system does not tell."""
        if self._before is None:
            return None
        if self._device.startswith("cuda"):
            torch: Any = sys.modules["torch"]
            return max(0, int(torch.cuda.max_memory_allocated(self._device)) - self._before)
        highest = _told("VmHWM")
        return None if highest is None else max(0, highest - self._before)


def _forgotten() -> int | None:
    """Let the system forget the highest figure so far; return the present one, None where it cannot."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return None
    return _told("VmRSS")


def _told(name: str) -> int | None:
    try:
        text = _STATUS.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    line = next((line for line in text.splitlines() if line.startswith(f"{name}:")), None)
    return None if line is None else int(line.split()[1]) * 1024
