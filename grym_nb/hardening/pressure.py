"""How near this process is to what it may have: of its container or its hub, else of the machine."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from grym_nb.devices import memory_available, memory_limit, memory_total, process_memory
from grym_nb.render import size

__all__ = ["REFUSED_FROM", "WARNED_FROM", "Pressure", "kills", "pressure"]

WARNED_FROM = 0.85
REFUSED_FROM = 0.95
_EVENTS = Path("/sys/fs/cgroup/memory.events")
_CONTROL = Path("/sys/fs/cgroup/memory/memory.oom_control")


class Pressure(NamedTuple):
    """What is in use of what there may be, in bytes, and whose limit that is."""

    used: int
    limit: int
    source: str

    @property
    def share(self) -> float:
        """The share in use."""
        return self.used / self.limit if self.limit else 0.0

    def __str__(self) -> str:
        return f"{size(self.used)} of {size(self.limit)} in use ({self.share:.0%}, {self.source})"


def pressure() -> Pressure:
    """Return how near this process is to its limit."""
    limit, total = memory_limit(), memory_total()
    if limit is None or limit.size >= total:
        return Pressure(max(0, total - memory_available()), total, "the machine")
    used = process_memory().rss if limit.used is None else limit.used
    return Pressure(used, limit.size, limit.source)


def kills(*, events: Path = _EVENTS, control: Path = _CONTROL) -> int | None:
    """Return how often the system has killed something here for its memory; None: nobody says."""
    for file in (events, control):
        try:
            lines = file.read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, number = line.partition(" ")
            if name == "oom_kill" and number.isdigit():
                return int(number)
    return None
