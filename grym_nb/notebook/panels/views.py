"""The panels: each a pure function of a snapshot, which returns a dict of plain values.

Rows are told apart by their `id`, so that only those that have changed need to be sent. No view holds the
present moment: how long something has lasted is for whoever shows it, so that nothing changes by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from zlib import crc32

from grym_nb.hardening.accounts import Account, Memory
from grym_nb.notebook.panels.lines import Line
from grym_nb.notebook.panels.snapshot import WINDOWS, Doing, Seen, Snapshot, Under
from grym_nb.services.ports import Ended

__all__ = ["VIEWS", "View", "calls", "charts", "health", "log", "memory", "services"]

View = Callable[[Snapshot], dict[str, Any]]

#: what can be asked of a service in a state
_ACTIONS: Mapping[str, tuple[str, ...]] = {
    "registered": ("load",),
    "failed": ("load", "reload"),
    "ready": ("reload", "rollback", "unload"),
}
_TOLD = 300  # characters of what is told in a line


def services(snapshot: Snapshot) -> dict[str, Any]:
    """Return the services: state, health and why, version, memory, calls, breaker, and what can be done."""
    rows = [_service(seen) for seen in snapshot.services]
    return {
        "title": "Services",
        "verdict": snapshot.verdict,
        "reasons": list(snapshot.reasons),
        "largest": max([row["memory"] or 0 for row in rows], default=0),
        "rows": rows,
        "empty": 'nothing is registered yet: grym.register("name", YourService)',
    }


def _service(seen: Seen) -> dict[str, Any]:
    status = seen.status
    held = sum(status.holds.values())
    return {
        "id": status.name,
        "version": status.version,
        "state": status.state,
        "since": seen.since,
        "health": status.health,
        "why": _short(seen.reasons or (status.reason if status.state == "failed" else "")),
        "refuses": status.refuses,
        "calls": status.calls,
        "failed": status.errors,
        "running": len(status.running),
        "waiting": status.waiting,
        "p50": status.p50,
        "p95": status.p95,
        "memory": held or status.memory,
        "held": bool(held),
        "parked": status.parked,
        "devices": sorted(status.holds),
        "tasks": list(status.tasks),
        "needs": list(status.needs),
        "engine": status.engine,
        "loads": status.loads,
        "expects": seen.expects,
        "error": _short(status.last_error),
        "actions": _actions(seen),
        "doing": None if seen.doing is None else _doing(seen.doing),
    }


def _actions(seen: Seen) -> list[str]:
    if seen.doing is not None and seen.doing.state == "running":
        return []
    possible = _ACTIONS.get(seen.status.state, ())
    return [one for one in possible if one != "rollback" or seen.earlier]


def _doing(doing: Doing) -> dict[str, Any]:
    return {"what": doing.what, "state": doing.state, "at": doing.at, "told": _short(doing.told)}


def health(snapshot: Snapshot) -> dict[str, Any]:
    """Return how the verdict on each service went: spans of time, the last without an end."""
    return {
        "title": "Health",
        "verdict": snapshot.verdict,
        "reasons": list(snapshot.reasons),
        "rows": [
            {"id": one.service, "spans": [[at, verdict, _short(why)] for at, verdict, why in one.spans]}
            for one in snapshot.judged
        ],
        "empty": "nothing has been judged yet: load a service",
    }


def charts(snapshot: Snapshot) -> dict[str, Any]:
    """Return figures over time: latency in seconds, calls a second, failures, bytes."""
    charted = snapshot.charts.charted
    return {
        "title": "Metrics",
        "service": charted.service,
        "services": [seen.status.name for seen in snapshot.services],
        "window": charted.window,
        "windows": list(WINDOWS),
        "series": {name: [list(point) for point in its] for name, its in snapshot.charts.series.items()},
        "empty": "no calls in this time",
    }


def memory(snapshot: Snapshot) -> dict[str, Any]:
    """Return each device with its budget, who has how much of it, and what is free."""
    accounts = snapshot.accounts
    devices = [_device(one, accounts.holders) for one in accounts.devices]
    return {
        "title": "Memory",
        "used": snapshot.used,
        "rows": devices,
        "line": [list(one) for one in accounts.line],
        "empty": "no device is known",
    }


def _device(one: Memory, holders: tuple[Account, ...]) -> dict[str, Any]:
    total = one.device == "total"
    its = [holder for holder in holders if total or holder.device == one.device]
    return {
        "id": one.device,
        "total": one.total,
        "budget": one.budget,
        "taken": one.taken,
        "free": one.free,
        "others": one.others,
        "holders": [
            {
                "who": holder.owner,
                "bytes": holder.size,
                "state": _lasting(holder.state),
                "shared": holder.shared,
            }
            for holder in its
            if holder.size
        ],
    }


def _lasting(state: str) -> str:
    return state.partition(" for ")[0].partition(" by ")[0]  # how long grows by itself; calls have a panel


def calls(snapshot: Snapshot) -> dict[str, Any]:
    """Return the calls under way, oldest first, those in line, and the last ones that ended."""
    return {
        "title": "Calls",
        "rows": [_under(one) for one in snapshot.under],
        "ended": [_ended(one) for one in snapshot.ended],
        "empty": "no call is under way",
    }


def _under(one: Under) -> dict[str, Any]:
    return {
        "id": str(one.id),
        "task": one.title,
        "service": one.service,
        "started": one.started,
        "note": _short(one.note),
        "done": one.done,
        "total": one.total,
        "counted": one.counted_since,
        "deadline": one.deadline,
        "waits": one.waits,
        "cancelled": one.cancelled,
    }


def _ended(call: Ended) -> dict[str, Any]:
    return {
        "id": str(call.id),
        "task": f"{call.service}.{call.task}",
        "version": call.version,
        "outcome": call.outcome,
        "seconds": call.seconds,
        "at": call.at,
        "error": _short(call.error.split("\n", 1)[0]),
    }


def log(snapshot: Snapshot) -> dict[str, Any]:
    """Return what happened lately, the newest first; `why` is all that is known of an error."""
    return {
        "title": "Log",
        "rows": [_line(one) for one in snapshot.lines],
        "empty": "nothing has happened yet",
    }


def _line(one: Line) -> dict[str, Any]:
    return {
        "id": f"{one.at:.4f}-{crc32(f'{one.service} {one.kind} {one.text}'.encode(errors='replace')):x}",
        "at": one.at,
        "service": one.service,
        "level": one.level,
        "text": _short(one.text),
        "why": one.why,
    }


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _TOLD else f"{line[: _TOLD - 1]}…"


#: the panels, by the names under which they are asked for, in the order in which they stand
VIEWS: Mapping[str, View] = {
    "services": services,
    "metrics": charts,
    "memory": memory,
    "calls": calls,
    "health": health,
    "log": log,
}
