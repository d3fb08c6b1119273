"""What the system tells of this process: processor, memory, disk, context switches, threads."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from grym_nb.devices import process_memory

__all__ = ["Reading", "reading"]

_PROC = Path("/proc/self")


class Reading(NamedTuple):
    """What the system tells of this process at one moment; None where it does not."""

    at: float
    cpu: float
    thread: int
    thread_cpu: float | None = None
    rss: int | None = None
    rss_peak: int | None = None
    gpu: int | None = None
    gpu_peak: int | None = None
    waits: int | None = None
    preemptions: int | None = None
    read: int | None = None
    written: int | None = None
    threads: frozenset[int] | None = None


def reading(begins: bool, *, proc: Path = _PROC) -> Reading:
    """Return what the system tells of this process now; takes some tenths of a millisecond.

    The times are read last where a block `begins` and first where it ends, so that this is not in them.
    """
    times = None if begins else _times()
    status, disk = _numbers(proc / "status"), _disk(proc / "io")
    gpu, gpu_peak = _gpu()
    waits, preemptions, peak = _usage()
    threads = _threads(proc / "task")
    at, cpu, thread_cpu = times or _times()
    return Reading(
        *(at, cpu, threading.get_ident(), thread_cpu),
        rss=_kilobytes(status, "VmRSS") or process_memory().rss,
        rss_peak=_kilobytes(status, "VmHWM") or peak,
        gpu=gpu,
        gpu_peak=gpu_peak,
        waits=waits,
        preemptions=preemptions,
        read=disk.get("read_bytes"),
        written=disk.get("write_bytes"),
        threads=threads,
    )


def _times() -> tuple[float, float, float]:
    return time.perf_counter(), time.process_time(), time.thread_time()


def _numbers(path: Path) -> dict[str, int]:
    """Return the numbers of a file of Linux with a name and a number in each line; none elsewhere."""
    found = {}
    with suppress(OSError):
        for line in path.read_bytes().splitlines():
            name, _, rest = line.partition(b":")
            number = rest.split(maxsplit=1)[:1]
            if number and number[0].isdigit():
                found[name.decode(errors="replace")] = int(number[0])
    return found


def _kilobytes(status: Mapping[str, int], name: str) -> int | None:
    return status[name] * 1024 if name in status else None


def _disk(path: Path) -> Mapping[str, int]:
    found = _numbers(path)
    if path.parent.is_dir():  # Linux, which may not let us
        return found
    import psutil

    try:
        told = psutil.Process().io_counters()
    except Exception:  # macOS has none, and elsewhere it may be forbidden
        return {}
    return {"read_bytes": told.read_bytes, "write_bytes": told.write_bytes}


def _gpu() -> tuple[int | None, int | None]:
    """Return what torch has of all its cards, and the most that it ever had; it is never begun for this."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    try:
        if cuda is None or not cuda.is_initialized():
            return None, None
        cards = range(cuda.device_count())
        return sum(map(cuda.memory_allocated, cards)), sum(map(cuda.max_memory_allocated, cards))
    except Exception:  # half imported by another thread, or broken
        return None, None


def _usage() -> tuple[int | None, int | None, int | None]:
    """Return the context switches of both kinds, and the most memory where another file would tell it."""
    try:
        import resource
    except ImportError:
        return None, None, None
    told = resource.getrusage(resource.RUSAGE_SELF)
    peak = told.ru_maxrss if sys.platform == "darwin" else None
    # A process that has never waited is one whose system does not count.
    return (told.ru_nvcsw, told.ru_nivcsw, peak) if told.ru_nvcsw else (None, None, peak)


def _threads(path: Path) -> frozenset[int]:
    try:
        return frozenset(map(int, os.listdir(path)))
    except OSError:
        return frozenset(thread.native_id or 0 for thread in threading.enumerate())
