"""A history in a folder is there after a restart, never too large, and does no harm where a disk does."""

from __future__ import annotations

import json
import linecache
import logging
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from grym_nb.errors import ConfigError
from grym_nb.metrics import Histogram, Metrics, kept
from grym_nb.metrics.history import History
from grym_nb.metrics.kept import Kept
from grym_nb.testing import FakeClock

EPOCH = 1_700_000_000.0


class Kernel:
    """A kernel whose own clock begins anew, and a time of day that goes on."""

    def __init__(self, folder: Path, at: float = 0.0, **options: str | int) -> None:
        self.clock = FakeClock(7.0)
        self.day = EPOCH + at - 7.0
        self.metrics = Metrics()
        self.history = History(
            self.metrics, clock=self.clock, wall=self.wall, ladder=((1.0, 30), (30.0, 400))
        )
        self.kept = Kept(self.history, folder, wall=self.wall, **options)  # type: ignore[arg-type]

    def wall(self) -> float:
        return self.day + self.clock()

    @property
    def at(self) -> float:
        return self.day + self.clock() - EPOCH

    def minutes(self, count: int, *, calls: int = 1, width: int = 10) -> None:
        """Let some minutes pass in which calls are made; all is written at the end of each."""
        for _ in range(count):
            for _ in range(60 // width):
                self.metrics.counter("calls", service="a").add(calls)
                self.metrics.record("seconds", 0.5, service="a")
                self.clock.advance(float(width))
                self.history.step()
            self.kept.write()


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    first = Kernel(tmp_path / "history")
    first.minutes(10)
    first.kept.close()
    second = Kernel(tmp_path / "history", first.at)
    points = second.kept.points("calls", 600.0, figure="rate", service="a")
    assert {rate for _, rate in points} == {0.1} and len(points) >= 18
    assert all(EPOCH < at <= EPOCH + 600 for at, _ in points)
    window = second.kept.window("seconds", 600.0)
    assert window.p50 == pytest.approx(0.5, rel=Histogram.ERROR) and window.rate == pytest.approx(0.1)
    assert second.kept.points("calls", 600.0, service="b") == []
    assert second.kept.window("nobody", 600.0).kind is None
    assert oct((tmp_path / "history").stat().st_mode)[-3:] == "700"
    assert {oct(path.stat().st_mode)[-3:] for path in (tmp_path / "history").iterdir()} == {"600"}


def test_where_there_is_nothing_it_says_what_there_is(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    kernel.minutes(3)
    kernel.clock.advance(600.0)
    told = {
        "cals": repr(kernel.kept.window("cals", 1200.0)),
        "tags": repr(kernel.kept.window("calls", 1200.0, service="b")),
        "late": repr(kernel.kept.window("calls", 60.0)),
        "there": repr(kernel.kept.window("calls", 1200.0)),
    }
    assert "the folder has no series of that name from that time. Did you mean 'calls'?" in told["cals"]
    assert "the folder has none with these tags; its tags are service" in told["tags"]
    assert "the folder has nothing of it from that time" in told["late"]
    assert "the folder" not in told["there"] and "counter" in told["there"]


@pytest.mark.parametrize("seconds", [5, 100])
def test_a_kernel_that_is_closed_loses_nothing(tmp_path: Path, seconds: int) -> None:
    """Also of the slot that is not over, and of what came since the last step."""
    kernel = Kernel(tmp_path)
    level = kernel.metrics.gauge("level")
    for second in range(seconds):
        kernel.metrics.counter("calls").add()
        kernel.metrics.record("seconds", 0.5)
        level.set(float(second))
        kernel.clock.advance(1.0)
        if second < seconds - 1:
            kernel.history.step()
    kernel.kept.close()
    written = {path: path.read_bytes() for path in tmp_path.iterdir()}
    kernel.clock.advance(40.0)
    kernel.kept.close()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == written
    after = Kernel(tmp_path, kernel.at).kept
    assert after.window("calls", 600.0).count == after.window("seconds", 600.0).count == seconds
    assert after.window("calls", 600.0).seconds == pytest.approx(seconds)
    assert after.window("level", 600.0).last == seconds - 1


def test_what_is_read_is_what_the_history_has(tmp_path: Path) -> None:
    kernel, dice = Kernel(tmp_path), random.Random(4)
    for n in range(600):
        for service in "abc":
            for _ in range(dice.randrange(3)):
                kernel.metrics.record("seconds", dice.lognormvariate(0, 3), service=service)
        kernel.metrics.gauge("level", service="a").set(dice.choice((1.5, -2.0, 1e12)))
        kernel.clock.advance(1.0)
        kernel.history.step()
        if n % 70 == 0:
            kernel.kept.write(at_once=True)
    kernel.kept.close()
    for figure in ("count", "mean", "p50", "p99", "low", "high", "rate"):
        there = kernel.history.points("seconds", 570.0, figure=figure, service=("a", "b"))  # type: ignore[arg-type]
        ours = kernel.kept.points("seconds", 570.0, figure=figure, service=("a", "b"))  # type: ignore[arg-type]
        assert len(ours) == 20
        for (at, value), (known, right) in zip(ours, there, strict=False):
            assert at == pytest.approx(known, abs=0.01) and value == pytest.approx(right, rel=1e-6)
    level = kernel.kept.window("level", 600.0)
    assert (level.low, level.high) == (-2.0, 1e12)


def test_nothing_is_written_more_than_once_a_minute(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    kernel.minutes(1)
    written = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for _ in range(5):
        kernel.metrics.counter("calls", service="a").add()
        kernel.clock.advance(10.0)
        kernel.history.step()
        assert kernel.kept.write() == 0
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == written
    kernel.clock.advance(10.0)
    kernel.history.step()
    assert kernel.kept.write() == 2


def test_times_without_a_kernel_have_no_points(tmp_path: Path) -> None:
    first = Kernel(tmp_path)
    first.metrics.gauge("level").set(5.0)
    first.metrics.gauge("old").set(1.0)
    first.minutes(5)
    second = Kernel(tmp_path, first.at + 3600.0)
    second.metrics.gauge("level").set(6.0)
    second.minutes(5)
    points = second.kept.points("calls", 7200.0, figure="rate")
    between = [at for at, _ in points if EPOCH + first.at < at < EPOCH + first.at + 3600.0]
    assert not between and {rate for _, rate in points} == {0.1}
    assert second.kept.window("calls", 7200.0).rate == pytest.approx(0.1)
    assert {value for _, value in second.kept.points("level", 7200.0)} == {5.0, 6.0}
    assert second.kept.window("level", 300.0).mean == 6.0
    assert max(at for at, _ in second.kept.points("old", 7200.0)) <= EPOCH + first.at
    assert second.kept.points("old", 240.0) == []


def test_a_gauge_that_does_not_change_is_in_every_file(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, max_bytes=100_000)
    kernel.metrics.gauge("level", service="a").set(3.0)
    for _ in range(30):
        for n in range(100):
            kernel.metrics.counter("calls", service=f"service {n}").add()
        kernel.minutes(1)
    assert len(list(tmp_path.iterdir())) > 2
    assert {value for _, value in kernel.kept.points("level", 1e6)} == {3.0}
    assert len(kernel.kept.points("level", 600.0)) == 20


def test_a_gauge_that_went_ends(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    kernel.metrics.gauge("level", service="a").set(3.0)
    kernel.minutes(3)
    kernel.metrics.drop(service="a")
    gone = kernel.at
    kernel.minutes(3)
    points = kernel.kept.points("level", 3600.0)
    assert points and max(at for at, _ in points) <= EPOCH + gone
    assert len(kernel.kept.points("calls", 3600.0)) > len(points)


def test_the_folder_never_holds_more_than_it_may(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("of somebody else", encoding="utf-8")
    kernel = Kernel(tmp_path, max_bytes="100 KB")
    most = 0
    for minute in range(60):
        for n in range(50):
            kernel.metrics.record("seconds", minute + n + 1.0, service=f"service {n}", minute=str(minute % 5))
        kernel.minutes(1)
        most = max(most, sum(path.stat().st_size for path in tmp_path.glob("*.jsonl")))
    assert 70_000 < most <= 100_000
    assert (tmp_path / "mine.txt").exists()
    points = kernel.kept.points("calls", 7200.0)
    assert points[-1][0] == pytest.approx(EPOCH + kernel.at, abs=31.0) and points[0][0] > EPOCH + 600.0
    assert repr(kernel.kept).startswith("<Kept: ")


def test_a_disk_that_is_full_is_said_once_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = Kernel(tmp_path)
    kernel.minutes(2)
    real = os.fdopen

    class Full:
        """A file on a disk that has room for ten more bytes."""

        def __init__(self, number: int, mode: str) -> None:
            self.file = real(number, mode)

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> None:
            self.file.write(data[:10])
            self.file.flush()
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(os, "fdopen", Full)
        kernel.minutes(5)
        assert kernel.kept.trouble and "not written" in repr(kernel.kept)
        assert len(caplog.records) == 1 and "No space left" in caplog.text
    with caplog.at_level(logging.WARNING):
        kernel.minutes(2)
    assert not kernel.kept.trouble and len(caplog.records) == 2
    points = kernel.kept.points("calls", 3600.0, figure="rate")
    assert {rate for _, rate in points} == {0.1} and len(points) >= 17
    lines = b"".join(path.read_bytes() for path in tmp_path.iterdir()).splitlines()
    assert all(line[-1:] in b"]}" for line in lines)


def test_a_folder_that_cannot_be_written_does_no_harm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    kernel = Kernel(tmp_path / "file" / "history")
    with caplog.at_level(logging.WARNING):
        kernel.minutes(5)
    assert len(caplog.records) == 1 and kernel.kept.points("calls", 3600.0) == []
    assert kernel.history.window("calls", 300.0).count == 30


def test_lines_that_are_damaged_are_left_out(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    kernel.minutes(5)
    whole = kernel.kept.points("calls", 3600.0)
    (path,) = tmp_path.iterdir()
    lines = path.read_bytes().splitlines(keepends=True)
    torn = [
        b"\x00\xff\n",
        b"[1]\n",
        b'{"id": 3}\n',
        b"[1e99, 2, [[0, 1, 2]",
        b"\n",
        b"[]\n",
        *lines,
        lines[-1][:20],
    ]
    path.write_bytes(b"".join(torn))
    assert kernel.kept.points("calls", 3600.0) == whole
    (tmp_path / "0000000000000001-1.jsonl").mkdir()
    assert kernel.kept.points("calls", 3600.0) == whole
    os.utime(path, (EPOCH - 3601.0, EPOCH + kernel.at - 3601.0))
    assert kernel.kept.points("calls", 3600.0) == []


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("calls", [[], [1, 2], ["1"], [None], [[1]]]),
        ("level", [[1], [1, 2], [1, 2, 3, 4], ["1", 2, 3], [None, 2, 3]]),
        ("seconds", [[], ["1"], [1, 2], [1, 2.5, 3], [1, 10**6, 3], [1, 2, True], [1, 2, None]]),
    ],
)
def test_lines_that_read_well_and_hold_no_such_figures_are_left_out(
    tmp_path: Path, name: str, wrong: list[list[Any]]
) -> None:
    """A bit that flips, or a line that somebody edits, may still be JSON."""
    kernel = Kernel(tmp_path)
    kernel.metrics.gauge("level").set(3.0)
    kernel.minutes(5)
    whole = kernel.kept.points(name, 3600.0)
    (path,) = tmp_path.iterdir()
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    [at] = [line["id"] for line in lines if isinstance(line, dict) and line["name"] == name]
    end = max(line[0] for line in lines if isinstance(line, list))
    for flat in wrong:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([end + 30.0, end, [[at, *flat]]]) + "\n")
        assert kernel.kept.points(name, 3600.0) == whole
        assert kernel.kept.window(name, 3600.0).kind is not None


@pytest.mark.parametrize("apart", [0.0, 13.0])
def test_two_kernels_that_write_at_a_time_lose_nothing(tmp_path: Path, apart: float) -> None:
    one, two = Kernel(tmp_path), Kernel(tmp_path / "else", apart)
    two.minutes(5, calls=3)
    two.kept.close()
    one.minutes(5)
    for n, path in enumerate((tmp_path / "else").iterdir()):
        path.rename(tmp_path / f"{path.name.partition('-')[0]}-{n}.jsonl")
    (tmp_path / "else").rmdir()
    sums = sum(count for _, count in one.kept.points("calls", 3600.0, figure="count"))
    assert sums == pytest.approx(6 * 5 * 4, abs=3 * 4)
    times = [at for at, _ in one.kept.points("calls", 3600.0)]
    assert times == sorted(set(times))


def test_so_little_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="in so little"):
        Kernel(tmp_path, max_bytes="1 KB")


_WRITES = """
import itertools, sys
from pathlib import Path
from typing import Any
from grym_nb.metrics import Metrics
from grym_nb.metrics.history import History
from grym_nb.metrics.kept import Kept
now = [0.0]
metrics = Metrics()
history = History(metrics, clock=lambda: now[0])
kept = Kept(history, Path(sys.argv[1]), wall=lambda: 1.7e9 + now[0], max_bytes="20MB")
for n in itertools.count():
    for service in range(20):
        metrics.record("seconds", n % 100 + 0.5, service=str(service))
    metrics.counter("calls").add()
    now[0] += 30.0
    history.step()
    kept.write(at_once=True)
    print(n, flush=True)
"""


def test_a_kernel_that_is_killed_loses_nothing_that_was_written(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITES, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    for line in writer.stdout:
        if int(line) >= 300:
            break
    writer.send_signal(signal.SIGKILL)
    last = [int(line) for line in writer.stdout.read().split("\n")[:-1]] or [300]
    writer.wait(30)
    writer.stdout.close()
    kernel = Kernel(tmp_path, 30.0 * last[-1])
    points = kernel.kept.points("calls", 1e9, figure="count")
    assert len(points) >= last[-1] - 1 and {count for _, count in points} == {1.0}


def test_a_file_that_was_taken_away_is_followed_by_another(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    kernel.minutes(5)
    for file in tmp_path.iterdir():
        file.unlink()
    kernel.minutes(10)
    assert kernel.kept.window("calls", 480.0).rate == pytest.approx(0.1) and not kernel.kept.trouble


def test_a_file_that_goes_between_a_look_and_a_write_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(tmp_path)
    kernel.minutes(2)
    for file in tmp_path.iterdir():
        file.unlink()
    monkeypatch.setattr("grym_nb.metrics.kept._File.is_whole", lambda self: True)
    kernel.minutes(2)
    assert kernel.kept.window("calls", 60.0).count > 0 and not kernel.kept.trouble


def test_what_takes_more_than_all_that_may_be_kept_is_said(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, max_bytes="100kB")
    for n in range(3000):
        kernel.metrics.counter("mine", n=str(n)).add()
    kernel.minutes(2)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 100_000
    assert "set metrics_bytes= higher" in kernel.kept.trouble


def test_who_makes_room_for_others_may_take_our_own_file(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, max_bytes="100kB")
    kernel.minutes(2)
    (tmp_path / "9999999999999999-1.jsonl").write_bytes(b"x" * 99_900)
    kernel.minutes(2)
    assert kernel.kept.window("calls", 60.0).count > 0 and not kernel.kept.trouble


class Gate:
    """A disk that lets nobody through until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        real = os.fdopen

        def held(number: int, mode: str) -> Any:
            self.reached.set()
            assert self.opened.wait(10.0)
            return real(number, mode)

        monkeypatch.setattr(os, "fdopen", held)


def begun(target: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def test_a_kernel_that_is_closed_while_it_writes_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(tmp_path)
    kernel.minutes(2)
    kernel.clock.advance(60.0)
    gate = Gate(monkeypatch)
    writing = begun(lambda: kernel.minutes(1))
    assert gate.reached.wait(10.0)
    kernel.metrics.counter("calls", service="a").add(100)  # of the last second
    kernel.clock.advance(1.0)
    closing = begun(kernel.kept.close)
    kernel.clock.until_waiting(1)
    gate.opened.set()
    for thread in (writing, closing):
        thread.join(10.0)
        assert not thread.is_alive()
    assert kernel.kept.window("calls", 3600.0).count == 118
    kernel.kept.close()
    assert kernel.kept.window("calls", 3600.0).count == 118


def test_a_disk_that_does_not_come_back_keeps_no_kernel_from_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = Kernel(tmp_path)
    gate = Gate(monkeypatch)
    writing = begun(lambda: kernel.minutes(1))
    assert gate.reached.wait(10.0)
    kernel.metrics.counter("calls", service="a").add(100)
    kernel.clock.advance(1.0)
    with caplog.at_level(logging.WARNING):
        closing = begun(kernel.kept.close)
        kernel.clock.until_waiting(1)
        kernel.clock.advance(2.0)
        closing.join(10.0)
    assert not closing.is_alive() and "not in" in caplog.text
    gate.opened.set()  # late, and all the same
    writing.join(10.0)
    assert kernel.kept.window("calls", 3600.0).count == 106


def test_a_write_that_is_interrupted_is_not_counted_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(tmp_path)
    kernel.minutes(2)
    real = os.fdopen

    class Interrupted:
        """A file that was written when Ctrl-C came."""

        def __init__(self, number: int, mode: str) -> None:
            self.file = real(number, mode)

        def __enter__(self) -> Interrupted:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> None:
            self.file.write(data)
            self.file.flush()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "fdopen", Interrupted)
        kernel.minutes(1)
    kernel.minutes(1)
    kernel.kept.close()
    assert kernel.kept.window("calls", 3600.0).count == 24


class Strike:
    """Ctrl-C as the so many-th line is about to run of what writes; it may come once."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __enter__(self) -> Strike:
        self._before = sys.gettrace()
        sys.settrace(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _called(self, frame: FrameType, event: str, what: Any) -> Any:
        return self._line if frame.f_code.co_filename == kept.__file__ else None

    def _line(self, frame: FrameType, event: str, what: Any) -> Any:
        line = linecache.getline(kept.__file__, frame.f_lineno).strip()
        if event == "line" and not line.startswith("with "):  # as it leaves one, no signal comes
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self._line


@pytest.mark.parametrize("parts", [8, 10**6], ids=["one file", "a file for each slot"])
def test_wherever_a_write_is_interrupted_the_next_one_writes_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    monkeypatch.setattr(kept, "_FILES", parts)
    struck, at = True, 0
    while struck:
        at += 1
        kernel = Kernel(tmp_path / str(at))
        if at % 2:
            kernel.minutes(1, width=30)
        kernel.metrics.gauge("level", service="a").set(at)
        for _ in range(3):
            kernel.metrics.counter("calls", service="a").add()
            kernel.metrics.counter("new").add()
            kernel.clock.advance(30.0)
            kernel.history.step()
        struck = False
        try:
            with Strike(at):
                kernel.kept.write(at_once=True)
        except KeyboardInterrupt:
            struck = True
        kernel.history.finish()
        kernel.kept.write(at_once=True)
        told = [kernel.kept.window(name, 3600.0).count for name in ("calls", "new")]
        assert told == [5 if at % 2 else 3, 3], f"struck at line {at}"
        assert kernel.kept.window("level", 3600.0).last == at
        assert kernel.kept.window("calls", 3600.0).seconds == pytest.approx(150.0 if at % 2 else 90.0)
    assert at > 100
