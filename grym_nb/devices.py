"""Memory and devices as they are: of this process, of its container, and of the accelerators torch knows.

Sizes are bytes. None means that nobody could say.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from grym_nb.errors import ConfigError
from grym_nb.render import size
from grym_nb.sizes import parse_size

__all__ = [
    "Device",
    "MemoryLimit",
    "ProcessMemory",
    "devices",
    "memory_available",
    "memory_limit",
    "memory_total",
    "process_memory",
]

_log = logging.getLogger(__name__)

_STATUS = Path("/proc/self/status")
_MEMINFO = Path("/proc/meminfo")
_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_NO_LIMIT = 1 << 60  # cgroup v1 writes "none" as the largest multiple of a page


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """What this process holds: resident, and the part of it that is no file's (weights read by mmap are)."""

    rss: int
    anonymous: int | None


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """A limit that is lower than the machine, what of it is in use (without page cache), and who set it."""

    size: int
    used: int | None
    source: str


@dataclass(frozen=True, slots=True)
class Device:
    """A place where a model can live."""

    name: str
    kind: Literal["cpu", "cuda", "mps"]
    total: int | None
    free: int | None
    description: str


def process_memory(*, status: Path = _STATUS) -> ProcessMemory:
    """Return what this process holds now; takes about 50 us."""
    found = _kilobytes(status)
    if (rss := found.get("VmRSS")) is not None:
        return ProcessMemory(rss, found.get("RssAnon"))
    import psutil

    return ProcessMemory(psutil.Process().memory_info().rss, None)


def memory_total(*, meminfo: Path = _MEMINFO) -> int:
    """Return the machine's memory, whatever of it this process may use."""
    if (total := _kilobytes(meminfo).get("MemTotal")) is not None:
        return total
    import psutil

    return int(psutil.virtual_memory().total)


def memory_available(*, meminfo: Path = _MEMINFO) -> int:
    """Return what the machine could still give out without swapping."""
    if (available := _kilobytes(meminfo).get("MemAvailable")) is not None:
        return available
    import psutil

    return int(psutil.virtual_memory().available)


def memory_limit(
    *, cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP, environ: Mapping[str, str] | None = None
) -> MemoryLimit | None:
    """Return the lowest limit on this process: its cgroups', or MEM_LIMIT (JupyterHub and Binder set it)."""
    found = [*_cgroup_limits(cgroups, membership), *_declared(os.environ if environ is None else environ)]
    return min(found, key=lambda limit: limit.size, default=None)


def devices(*, ask_torch: bool = False) -> tuple[Device, ...]:
    """Return the places where a model can live, "cpu" first.

    Torch is asked if it is imported already; only `ask_torch` imports it (2 s, 250 MB) and lets it open the
    CUDA devices (hundreds of MB on each). What it cannot tell is said in a description, never raised.
    """
    found, trouble = _accelerators(ask_torch)
    return (_cpu(trouble), *found)


def _kilobytes(path: Path) -> dict[str, int]:
    """Return the lines ``Name:  123 kB`` of a /proc file, in bytes; nothing when there is no such file."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(number) * 1024 for name, number, _ in pairs}


def _cgroup_limits(root: Path, membership: Path) -> Iterator[MemoryLimit]:
    try:
        lines = membership.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            names = ("memory.max", "memory.current", "inactive_file")
            yield from _walk_up(root, path, names, "cgroup v2")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _walk_up(root / "memory", path, names, "cgroup v1")


def _walk_up(root: Path, path: str, names: tuple[str, str, str], source: str) -> Iterator[MemoryLimit]:
    # A parent's limit binds too. A path that is not there is the host's, seen from inside a container,
    # whose own group is mounted at the root.
    limit_file, usage_file, cache_line = names
    inner = Path(path.lstrip("/"))
    for part in dict.fromkeys((inner, *inner.parents)):
        folder = root / part
        limit = _integer(folder / limit_file)
        if limit is not None and limit < _NO_LIMIT:
            usage = _integer(folder / usage_file)
            if usage is not None:
                # The page cache counts as usage, but the kernel takes it back when memory is wanted.
                usage = max(0, usage - _statistic(folder / "memory.stat", cache_line))
            yield MemoryLimit(limit, usage, source)


def _integer(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max" is no number and no limit
        return None


def _statistic(path: Path, name: str) -> int:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0)


def _declared(environ: Mapping[str, str]) -> Iterator[MemoryLimit]:
    text = environ.get("MEM_LIMIT", "").strip()
    try:
        limit = int(text) if text.isascii() and text.isdigit() else parse_size(text or "0B")
    except ConfigError as error:
        _say_once(f"MEM_LIMIT in the environment is not used: {error.message}")
        return
    if limit:
        yield MemoryLimit(limit, None, "MEM_LIMIT")


@cache
def _say_once(words: str) -> None:
    _log.warning(words)


def _cpu(trouble: str) -> Device:
    from platform import machine

    total, free = memory_total(), memory_available()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    told = [f"{cores} cores, {machine()}"]
    limit = memory_limit()
    if limit is not None and limit.size < total:
        total = limit.size
        used = process_memory().rss if limit.used is None else limit.used
        free = min(free, max(0, limit.size - used))
        told.append(f"limited to {size(limit.size)} by {limit.source}")
    return Device("cpu", "cpu", total, free, "; ".join([*told, trouble] if trouble else told))


def _accelerators(ask: bool) -> tuple[list[Device], str]:
    """Return the accelerators that torch knows, and why it could not be asked."""
    try:
        torch: Any = sys.modules.get("torch")
        if torch is None:
            if not ask:
                return [], ""
            import torch
        return [*_cuda(torch, ask), *_mps(torch)], ""
    except ModuleNotFoundError as error:
        return [], "torch is not installed" if error.name == "torch" else _reason(error)
    except Exception as error:
        return [], _reason(error)


def _cuda(torch: Any, ask: bool) -> Iterator[Device]:
    if not torch.cuda.is_available():
        return
    for index in range(torch.cuda.device_count()):
        name = f"cuda:{index}"
        if not ask and not torch.cuda.is_initialized():
            yield Device(name, "cuda", None, None, "not in use yet")
            continue
        try:
            free, total = torch.cuda.mem_get_info(index)
            yield Device(name, "cuda", total, free, torch.cuda.get_device_name(index))
        except Exception as error:
            yield Device(name, "cuda", None, None, _reason(error))


def _mps(torch: Any) -> Iterator[Device]:
    if not torch.backends.mps.is_available():
        return
    try:
        total = torch.mps.recommended_max_memory()
        free = max(0, total - torch.mps.driver_allocated_memory())
        yield Device("mps", "mps", total, free, "Apple GPU, shares the machine's memory")
    except Exception as error:
        yield Device("mps", "mps", None, None, _reason(error))


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"torch cannot tell: {type(error).__name__}: {text[:200]}"
