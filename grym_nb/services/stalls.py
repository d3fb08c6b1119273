"""What those who hold the slots of a lane wait for themselves: who is in line behind them waits for it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grym_nb.services.frame import Frame, Waits

__all__ = ["Stalls", "Stood"]

#: since when a call stands in line: whose, and what had been waited for there until then
Stood = tuple["Stalls", "Mapping[Waits, float]"]


class Stalls:
    """Seconds for which slots were held by calls that wait, for a device or a load, by what for.

    Each counts by the share of the slots that are held so: where one of two computes, half of the time in
    line is for a slot.
    """

    __slots__ = ("_lock", "_state", "slots")

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._lock = threading.Lock()
        # Replaced as a whole: whoever reads takes no lock.
        self._state: tuple[float, Mapping[Waits, float], Mapping[Frame, Waits]] = (0.0, {}, {})

    def begin(self, frame: Frame, on: Waits, now: float) -> None:
        """Note that a call which holds a slot waits for that from now on."""
        with self._lock:
            self._state = (now, self.until(now), {**self._waiting(frame), frame: on})

    def end(self, frame: Frame, now: float) -> None:
        """Note that it waits no more."""
        with self._lock:
            self._state = (now, self.until(now), self._waiting(frame))

    def until(self, now: float) -> Mapping[Waits, float]:
        """Return what was waited so until now."""
        at, totals, who = self._state
        if not who:
            return totals
        found = {**totals}
        share = max(0.0, now - at) / self.slots
        for frame, on in who.items():
            if frame.has_slot:  # else Ctrl-C cut it short, or its model was let go of
                found[on] = found.get(on, 0.0) + share
        return found

    def since(self, before: Mapping[Waits, float], now: float) -> dict[Waits, float]:
        """Return what was waited so from one time, as `until` told it then, to another."""
        found = {on: total - before.get(on, 0.0) for on, total in self.until(now).items()}
        return {on: passed for on, passed in found.items() if passed > 0.0}

    def _waiting(self, but: Frame) -> dict[Frame, Waits]:
        return {frame: on for frame, on in self._state[2].items() if frame is not but and frame.has_slot}
