"""What a call will take beside the weights: learned from calls that ran alone, and made room for before."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from grym_nb.hardening.peaks import Measure, Peaks, work_in

if TYPE_CHECKING:
    from grym_nb.services.frame import Frame
    from grym_nb.services.record import ServiceRecord

__all__ = ["learning", "peaks_of"]

_WORTH_ROOM = 50_000_000  # bytes: for less nobody has to go


class _Running:
    """The calls of large models under way in this process, and how many there have been."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 0
        self._begun = 0

    def enter(self) -> tuple[bool, int]:
        """Count a call in; return whether it is alone, and its number."""
        with self._lock:
            self._now += 1
            self._begun += 1
            return self._now == 1, self._begun

    def leave(self, number: int) -> bool:
        """Count it out; tell whether none has begun since."""
        with self._lock:
            self._now -= 1
            return self._begun == number


_running = _Running()  # of the process, as its memory is


def learning(frame: Frame, run: Callable[[Frame], Any]) -> Any:
    """Run a task of a large model, with room for what it will take; learn from it where it is alone."""
    work = work_in(frame.args, frame.kwargs)
    record = frame.record
    peaks, device = peaks_of(record, frame.task), _device(frame)
    expected = peaks.predict(work)
    if expected is not None and expected >= _WORTH_ROOM:
        record.ports.resources.ledger.make_room(record.name, device, expected)
    alone, number = _running.enter()
    measure, ended = None, False
    try:
        measure = Measure(device) if alone and peaks.wants(work) else None
        value = run(frame)
        ended = True
    finally:
        undisturbed = _running.leave(number)
        if measure is not None and ended and undisturbed and (peak := measure.peak()) is not None:
            peaks.learn(work, peak)
    return value


def peaks_of(record: ServiceRecord, task: str) -> Peaks:
    """Return what was learned of a task, under the config that it has now."""
    peaks, key = record.footprint.peaks, (task, record.config_version, record.code_version)
    found = peaks.get(key)
    if found is None:
        for old in [one for one in peaks.copy() if one[0] == task]:  # a slider makes many configs
            peaks.pop(old, None)
        found = peaks.setdefault(key, Peaks())
    return found


def _device(frame: Frame) -> str:
    """Return where a call computes: on the accelerator that has most of the model, if any has."""
    instance = frame.instance
    sizes = {} if instance is None or instance.reservation is None else instance.reservation.sizes
    cards = {device: size for device, size in sizes.items() if device.startswith("cuda")}
    return max(cards, key=lambda device: cards[device]) if cards else "cpu"
