"""What the system tells is read as it is, and what it does not tell is None."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

from grym_nb.metrics.usage import reading

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the files are those of Linux")


def test_the_files_of_linux_are_read(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("Name:\tx\nVmHWM:\t  30 kB\nVmRSS:\t  20 kB\n", encoding="utf-8")
    (tmp_path / "io").write_text(
        "rchar: 1\nread_bytes: 2\nwrite_bytes: 3\ncancelled_write_bytes: -4\n", encoding="utf-8"
    )
    for thread in (11, 12):
        (tmp_path / "task" / str(thread)).mkdir(parents=True)
    found = reading(True, proc=tmp_path)
    assert (found.rss, found.rss_peak, found.read, found.written) == (20 * 1024, 30 * 1024, 2, 3)
    assert found.threads == {11, 12} and found.thread == threading.get_ident()


def test_what_no_file_tells_is_none_or_asked_elsewhere(tmp_path: Path) -> None:
    found = reading(False, proc=tmp_path)
    assert (found.rss_peak, found.read, found.written) == (None, None, None)
    assert found.rss is not None and found.rss > 1_000_000
    assert found.threads is not None and threading.main_thread().native_id in found.threads
    assert reading(False, proc=tmp_path / "none").rss is not None


def test_this_process_is_told() -> None:
    found = reading(True)
    assert found.rss is not None and found.rss > 1_000_000
    assert found.rss_peak is None or found.rss_peak >= found.rss
    assert found.threads is not None and threading.get_native_id() in found.threads
    assert found.waits is None or found.waits > 0


@pytest.mark.parametrize("begins", [True, False])
def test_reading_is_not_in_the_time_of_a_block(begins: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read is read before the time of a begin, and after the time of an end."""
    order = []
    real = time.perf_counter

    def counter() -> float:
        order.append("time")
        return real()

    def resident(path: Path) -> bytes:
        order.append("file")
        return b""

    monkeypatch.setattr(time, "perf_counter", counter)
    monkeypatch.setattr(Path, "read_bytes", resident)
    reading(begins)
    assert order == (["file", "file", "time"] if begins else ["time", "file", "file"])
