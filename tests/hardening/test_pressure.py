"""How near the process is to its limit, whoever's that is, and whether the system has killed here."""

from __future__ import annotations

from pathlib import Path

import pytest

from grym_nb.devices import MemoryLimit, ProcessMemory
from grym_nb.hardening import pressure as module
from grym_nb.hardening.pressure import Pressure, kills, pressure


def test_the_limit_is_the_containers_the_hubs_or_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "memory_total", lambda: 1000)
    monkeypatch.setattr(module, "memory_available", lambda: 400)
    monkeypatch.setattr(module, "process_memory", lambda: ProcessMemory(70, None))
    for limit, expected in (
        (None, Pressure(600, 1000, "the machine")),
        (MemoryLimit(5000, 10, "cgroup v2"), Pressure(600, 1000, "the machine")),
        (MemoryLimit(200, 190, "cgroup v2"), Pressure(190, 200, "cgroup v2")),
        (MemoryLimit(100, None, "MEM_LIMIT"), Pressure(70, 100, "MEM_LIMIT")),
    ):
        monkeypatch.setattr(module, "memory_limit", lambda limit=limit: limit)
        assert pressure() == expected
    assert str(pressure()) == "70 B of 100 B in use (70%, MEM_LIMIT)" and pressure().share == 0.7


def test_kills_are_counted_where_the_system_counts_them(tmp_path: Path) -> None:
    none, two, one = tmp_path / "none", tmp_path / "events", tmp_path / "control"
    two.write_text("low 0\noom 3\noom_kill 2\n")
    one.write_text("oom_kill_disable 0\noom_kill 1\n")
    assert kills(events=two, control=one) == 2
    assert kills(events=none, control=one) == 1
    assert kills(events=none, control=none) is None
