"""Everything that can go wrong at once, and for a while: nothing is lost, and nothing is left behind."""

from __future__ import annotations

import os
from collections import Counter

from tests.services.crowd import apart

SECONDS = 60.0 if os.environ.get("GRYM_FULL") == "1" else 15.0


def test_whatever_goes_wrong_the_counts_add_up_and_nothing_is_left_behind() -> None:
    """Sixteen threads, and eight services that raise, are slow, hang, are cancelled, and are unloaded."""
    chaos = apart("tests.services.chaos", str(SECONDS), seconds=SECONDS + 90.0)
    left = {what: chaos[what] for what in ("slots", "leases", "strange", "alive", "quiet")}
    assert left == {"slots": [], "leases": [], "strange": [], "alive": 0, "quiet": True}
    assert chaos["threads"] == []
    assert chaos["answered"]  # each service, once all was over
    for service, ends in chaos["told"].items():
        told, seen = Counter(ends), Counter(chaos["seen"][service])
        unheard = told.pop("?", 0)  # by callers who were cancelled or late themselves
        assert told <= seen, service
        if service == "main":
            assert seen.total() - told.total() <= chaos["struck"]
        else:
            assert seen.total() == told.total() + unheard, service
    assert chaos["struck"] > 10 * SECONDS
    everything = sum(map(Counter, chaos["seen"].values()), Counter())
    assert {"ok", "task.failed", "call.timeout", "call.cancelled", "interrupted"} <= set(everything)
    assert {"call.refused", "resource.queue_full"} <= set(everything)
