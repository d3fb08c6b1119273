"""How the last calls went: of a number of them, or of a time. Not for several threads at once."""

from __future__ import annotations

from collections import deque
from math import ceil

__all__ = ["CountWindow", "TimeWindow", "Window"]

_LEAST_SLOTS, _MOST_SLOTS = 10, 60


class CountWindow:
    """The last `size` calls."""

    __slots__ = ("_at", "_ring", "_size", "calls", "failed", "slow")

    def __init__(self, size: int) -> None:
        self._size = size
        self._ring = [0] * size  # 1: failed, 2: slow, 3: both
        self._at = 0
        self.calls = self.failed = self.slow = 0

    @property
    def settled(self) -> bool:
        """Whether one more good call changes nothing: it is full of them."""
        return self.calls == self._size and not self.failed and not self.slow

    def add(self, failed: bool, slow: bool, now: float) -> None:
        """Count a call in, and the one that it drives out no more."""
        at, ring = self._at, self._ring
        new = failed + 2 * slow
        if old := ring[at]:
            self.failed -= old & 1
            self.slow -= old >> 1
        if new:
            self.failed += new & 1
            self.slow += new >> 1
        ring[at] = new
        self._at = at + 1 if at + 1 < self._size else 0
        if self.calls < self._size:
            self.calls += 1

    def look(self, now: float) -> None:
        """Nothing goes by itself."""


class TimeWindow:
    """The calls of the last `seconds`, which go a slot at a time."""

    __slots__ = ("_newest", "_slots", "_some", "_until", "_width", "calls", "failed", "slow")

    settled = False

    def __init__(self, seconds: float) -> None:
        self._some = min(max(ceil(seconds), _LEAST_SLOTS), _MOST_SLOTS)
        self._width = seconds / self._some
        self._newest = [0, 0, 0, 0]  # its number, and its calls, failed ones and slow ones
        self._until = float("-inf")  # when the newest slot ends
        self._slots: deque[list[int]] = deque()
        self.calls = self.failed = self.slow = 0

    def add(self, failed: bool, slow: bool, now: float) -> None:
        """Count a call in, and those whose time is over no more."""
        if now >= self._until:  # else into the newest slot, also for a clock that was set back
            self.look(now)
            number = int(now // self._width)
            self._newest = [number, 0, 0, 0]
            self._slots.append(self._newest)
            self._until = (number + 1) * self._width
        slot = self._newest
        slot[1] += 1
        self.calls += 1
        if failed:
            slot[2] += 1
            self.failed += 1
        if slow:
            slot[3] += 1
            self.slow += 1

    def look(self, now: float) -> None:
        """Count those whose time is over no more."""
        slots, over = self._slots, int(now // self._width) - self._some
        while slots and slots[0][0] <= over:
            _, calls, failed, slow = slots.popleft()
            self.calls -= calls
            self.failed -= failed
            self.slow -= slow


Window = CountWindow | TimeWindow
