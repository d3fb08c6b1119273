"""When memory runs out in the middle: idle models go, it is tried once more, then said who holds what."""

from __future__ import annotations

from textwrap import shorten
from typing import TYPE_CHECKING

from grym_nb.devices import devices
from grym_nb.errors import ResourceExhausted
from grym_nb.hardening.holders import way
from grym_nb.hardening.resources import canonical
from grym_nb.hardening.returning import give_back
from grym_nb.render import size as in_words
from grym_nb.services.expectation import stated_device

if TYPE_CHECKING:
    from grym_nb.services.frame import Frame
    from grym_nb.services.record import ServiceRecord

__all__ = ["exhausted", "may_try_again", "note_parts", "ran_out", "relieve"]

#: how allocators say it: torch's for CUDA and for the CPU, and the C++ library's
_WORDS = ("out of memory", "not enough memory", "can't allocate memory", "bad_alloc")


def ran_out(error: BaseException | None) -> bool:
    """Tell whether an error says that there was no memory for what was asked."""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, RuntimeError):  # as torch's OutOfMemoryError is
        return False
    return type(error).__name__ == "OutOfMemoryError" or any(word in str(error) for word in _WORDS)


def may_try_again(frame: Frame) -> bool:
    """Tell whether a task may be called a second time: not one that says it has side effects."""
    return frame.spec is not None and frame.spec.replay


def relieve(record: ServiceRecord) -> tuple[str, ...]:
    """Let all go that nobody uses where this service is, and empty the caches; return who went."""
    record.ports.failures.clear()  # the frames of the last failure hold what did not fit
    ledger = record.ports.resources.ledger
    gone = [name for device in _where(record) for name in ledger.free_idle(device, record.name)]
    give_back()
    return tuple(dict.fromkeys(gone))


def note_parts(record: ServiceRecord, why: str) -> None:
    """Take down, beside who went for whom, that a batch had to be computed in parts."""
    record.ports.resources.ledger.note(record.name, "parted", {_where(record)[0]: 0}, why)


def exhausted(record: ServiceRecord, title: str, short: str, gone: tuple[str, ...]) -> ResourceExhausted:
    """Return the typed error of what ran out of memory twice; `short` is how that was said."""
    where = _where(record)
    ledger = record.ports.resources.ledger
    free = {device.name: device.free for device in devices() if device.name in where}
    told = [
        f"{device}: {ledger.holders(device)}"
        + (f"; {in_words(left)} free" if (left := free.get(device)) is not None else "")
        for device in where
    ]
    freed = f", also without {', '.join(gone)}" if gone else ""
    text = short.strip().partition("\n")[0]
    return ResourceExhausted(
        f"{title} ran out of memory{freed}: {shorten(text, 160, placeholder=' ...')}",
        cause="; ".join(told),
        hint="give it less at a time, or unload what you do not need: "
        + way("%grym mem", "grym.current().resources.memory()"),
        service=record.name,
    )


def _where(record: ServiceRecord) -> list[str]:
    """Return the devices on which a service is, accelerators first."""
    known = dict(record.footprint.sizes or {})
    instance = record.instance
    if instance is not None and instance.reservation is not None:
        known |= instance.reservation.sizes
    device = canonical(stated_device(record) or "cpu")
    return sorted({device, *known}, key=lambda name: (name == "cpu", name)) or ["cpu"]
