"""Files that have other text are told: however they are saved, once, together, and never a torn one."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from grym_nb.pulse import Pulse
from grym_nb.services.reload import directories
from grym_nb.services.reload import watch as module
from grym_nb.services.reload.directories import Directories, drive
from grym_nb.services.reload.watch import Watch, WatchStatus
from grym_nb.testing import FakeClock

GATHER, SETTLE, GRACE = module._GATHER, module._SETTLE, module._GRACE
HOLD, LONGEST = module._HOLD, module._LONGEST
QUICK, SLOW, SELDOM = module._QUICK, module._SLOW, module._SELDOM

PATIENCE = 10.0
NAMES = ["a.py", "b.py", "c.py"]


def until(reached: Callable[[], bool]) -> None:
    """Yield to the other threads until `reached`, which they bring about by themselves."""
    give_up = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < give_up, "it never came to that"
        os.sched_yield()


class Told:
    """What was told: the names of the files, with the text that each had then."""

    def __init__(self) -> None:
        self.calls: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.threads: set[str] = set()
        self.inside = threading.Event()
        self.go = threading.Event()
        self.go.set()
        self.at_once = self.most = 0
        self.error: Exception | None = None
        self._more = threading.Condition()

    def __call__(self, paths: frozenset[str]) -> None:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        self.threads.add(threading.current_thread().name)
        self.paths += sorted(paths)
        with self._more:
            self.calls.append({os.path.basename(path): Path(path).read_text() for path in sorted(paths)})
            self._more.notify_all()
        self.inside.set()
        assert self.go.wait(PATIENCE)
        self.at_once -= 1
        if self.error is not None:
            raise self.error

    def until(self, reached: Callable[[], bool]) -> None:
        with self._more:
            assert self._more.wait_for(reached, PATIENCE), self.calls

    def all(self) -> dict[str, str]:
        return {name: text for call in self.calls for name, text in call.items()}


def save(file: Path, text: str) -> None:
    """Save as most editors do: beside it, and then in its place."""
    beside = file.with_name(f".{file.name}.tmp")
    beside.write_text(text)
    os.replace(beside, file)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).write_text("x = 0\n")
    return tmp_path


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture
def files(home: Path) -> list[str]:
    return [str(home / name) for name in NAMES]


class Driven:
    """A watch on a clock of the test's own: it looks at files when the test lets time pass."""

    def __init__(self, clock: FakeClock, told: Told, *, polling: bool) -> None:
        self.clock = clock
        self.pulse = Pulse(clock)
        self.watch = Watch(self.pulse, told, polling=polling, clock=clock)

    def after(self, seconds: float) -> None:
        """Let time pass, and what is due then be done."""
        self.clock.advance(seconds)
        self.pulse.step()
        until(self.is_done)

    def is_done(self) -> bool:
        return not (self.watch._busy or self.watch._polling)

    def again(self, files: list[str]) -> None:
        """Begin anew: what was done to the files before is no event."""
        self.watch.off()
        self.watch.on(lambda: files)

    def looked(self, seconds: float = SETTLE) -> None:
        """Look at all files, and again when so many seconds have passed."""
        self.watch.look()
        self.after(seconds)

    def noticed(self, file: Path, *, whole: bool = True) -> None:
        """Wait until an event has come of a file: that it was put there in one piece, or any."""
        unsettled = self.watch._unsettled
        until(lambda: str(file) in unsettled and unsettled[str(file)].whole >= whole)

    def close(self) -> None:
        self.watch.off()
        assert self.pulse.close(PATIENCE) == ()


@pytest.fixture
def polled(clock: FakeClock, told: Told, files: list[str]) -> Iterator[Driven]:
    driven = Driven(clock, told, polling=True)
    driven.watch.on(lambda: files)
    yield driven
    driven.close()


@pytest.fixture
def heard(clock: FakeClock, told: Told, files: list[str]) -> Iterator[Driven]:
    driven = Driven(clock, told, polling=False)
    driven.watch.on(lambda: files)
    yield driven
    driven.close()


@pytest.fixture
def watch(told: Told, files: list[str]) -> Iterator[Watch]:
    """A watch on the real clock, by events."""
    pulse = Pulse()
    watch = Watch(pulse, told)
    watch.on(lambda: files)
    yield watch
    watch.off()
    assert pulse.close(PATIENCE) == ()


class TestWhatIsTold:
    def test_other_text_is_told_once_when_it_has_been_quiet(
        self, polled: Driven, told: Told, home: Path
    ) -> None:
        (home / "a.py").write_text("x = 1\n")
        polled.looked(SETTLE * 0.9)
        assert told.calls == []
        polled.after(SETTLE * 0.2)
        polled.looked()
        assert told.calls == [{"a.py": "x = 1\n"}]
        assert polled.watch.status().changes == 1 and told.threads == {"grym-work-1"}

    def test_a_file_that_is_touched_or_saved_as_it_was_is_not(
        self, polled: Driven, told: Told, home: Path
    ) -> None:
        os.utime(home / "a.py", (1, 1))
        save(home / "b.py", "x = 0\n")
        polled.looked()
        assert (told.calls, polled.watch._unsettled) == ([], {})

    def test_text_that_is_put_back_is_told_again(self, polled: Driven, told: Told, home: Path) -> None:
        for text in ("x = 1\n", "x = 0\n"):
            save(home / "a.py", text)
            polled.looked()
        assert told.calls == [{"a.py": "x = 1\n"}, {"a.py": "x = 0\n"}]

    def test_many_files_are_told_together(self, polled: Driven, told: Told, home: Path) -> None:
        for name in NAMES:
            save(home / name, f"{name[0]} = 1\n")
        polled.looked()
        assert told.calls == [{name: f"{name[0]} = 1\n" for name in NAMES}]

    def test_what_comes_to_rest_shortly_after_is_waited_for(
        self, polled: Driven, told: Told, home: Path, files: list[str]
    ) -> None:
        for name, path in zip(NAMES, files, strict=True):
            save(home / name, "x = 1\n")
            polled.watch._notice({path: None})
            polled.after(SETTLE * 0.8)
        assert told.calls == []
        polled.after(SETTLE)
        assert told.calls == [dict.fromkeys(NAMES, "x = 1\n")]

    def test_but_not_for_ever(self, polled: Driven, told: Told, home: Path, files: list[str]) -> None:
        files += [str(home / f"m{n}.py") for n in range(100)]
        polled.watch.refresh()
        began = polled.clock()
        for path in files:
            Path(path).write_text("x = 1\n")
            polled.watch._notice({path: None})
            polled.after(SETTLE * 0.8)
            if told.calls:
                break
        assert HOLD * 0.9 <= polled.clock() - began <= HOLD * 1.1

    def test_nor_for_one_that_is_saved_again_and_again(
        self, polled: Driven, told: Told, home: Path, files: list[str]
    ) -> None:
        save(home / "a.py", "x = 1\n")
        polled.watch._notice({files[0]: None})
        for _ in range(3):
            polled.watch._notice({files[1]: None})
            polled.after(SETTLE * 0.8)
        assert told.calls == [{"a.py": "x = 1\n"}]

    @pytest.mark.parametrize("text", ["", "def f(:\n", "x = '\0'\n"])
    def test_what_looks_unfinished_is_given_time(
        self, polled: Driven, told: Told, home: Path, text: str
    ) -> None:
        (home / "a.py").write_text(text)
        polled.looked()
        polled.after(GRACE - 2 * SETTLE)
        assert told.calls == []
        (home / "a.py").write_text("x = 1\n")
        polled.looked()
        assert told.calls == [{"a.py": "x = 1\n"}]

    @pytest.mark.parametrize("text", ["", "def f(:\n"])
    def test_and_told_as_it_is_when_it_stays_so(
        self, polled: Driven, told: Told, home: Path, text: str
    ) -> None:
        (home / "a.py").write_text(text)
        save(home / "b.py", "x = 1\n")
        polled.looked()
        assert told.calls == [{"b.py": "x = 1\n"}], "the others need not wait for it"
        polled.after(GRACE)
        assert told.calls == [{"b.py": "x = 1\n"}, {"a.py": text}]

    def test_a_file_that_is_written_on_is_waited_for(self, polled: Driven, told: Told, home: Path) -> None:
        """Nobody tells of it: it is seen by the stamp of the file, at the next look at it."""
        (home / "a.py").write_text("x = 1\n")
        polled.watch.look()
        (home / "a.py").write_text("x = 1\ny = 2\n")
        polled.after(SETTLE)
        assert told.calls == []
        polled.after(SETTLE)
        assert told.calls == [{"a.py": "x = 1\ny = 2\n"}]

    def test_one_that_is_written_on_for_ever_is_told_in_between(
        self, polled: Driven, told: Told, home: Path
    ) -> None:
        began = polled.clock()
        while not told.calls:
            assert polled.clock() < began + 2 * LONGEST
            with (home / "a.py").open("a") as file:
                file.write("x = 1\n")
            polled.watch.look()
            polled.after(SETTLE * 0.8)
        assert LONGEST * 0.9 <= polled.clock() - began <= LONGEST * 1.1


class TestFilesThatAreGone:
    @pytest.mark.parametrize("seconds", [SETTLE, GRACE + SETTLE])
    def test_a_file_that_is_gone_is_told_when_it_is_there_again(
        self, polled: Driven, told: Told, home: Path, seconds: float
    ) -> None:
        (home / "a.py").rename(home / "kept")
        polled.looked()
        polled.after(seconds)
        assert told.calls == []
        save(home / "a.py", "x = 1\n")
        polled.looked()
        assert told.calls == [{"a.py": "x = 1\n"}]

    def test_and_not_where_it_is_as_it_was(self, polled: Driven, told: Told, home: Path) -> None:
        (home / "a.py").rename(home / "kept")
        polled.looked(GRACE)
        polled.after(GRACE)
        (home / "kept").rename(home / "a.py")
        polled.looked()
        assert (told.calls, polled.watch._unsettled) == ([], {})

    def test_a_file_that_is_yet_to_come_is_told_when_it_does(
        self, polled: Driven, told: Told, home: Path, files: list[str]
    ) -> None:
        files.append(str(home / "new.py"))
        polled.watch.refresh()
        save(home / "new.py", "x = 1\n")
        polled.looked()
        assert told.calls == [{"new.py": "x = 1\n"}]

    def test_a_file_that_comes_and_goes_keeps_nobody_busy(self, polled: Driven, home: Path) -> None:
        (home / "a.py").unlink()
        began = polled.clock()
        polled.watch.look()
        while polled.watch._unsettled:
            assert polled.clock() < began + 2 * LONGEST
            polled.after(GRACE / 2)
            if polled.watch._unsettled:
                polled.watch.look()
        assert polled.clock() >= began + LONGEST


class TestLinks:
    def test_a_link_is_told_by_its_own_name(
        self,
        heard: Driven,
        told: Told,
        home: Path,
        files: list[str],
        elsewhere: Path,
    ) -> None:
        real = elsewhere / "real.py"
        real.write_text("x = 0\n")
        (home / "link.py").symlink_to(real)
        files.append(str(home / "link.py"))
        heard.again(files)
        save(real, "x = 1\n")
        heard.noticed(home / "link.py")
        heard.after(GATHER)
        assert told.paths == [str(home / "link.py")]
        assert told.calls == [{"link.py": "x = 1\n"}]

    def test_a_link_that_leads_elsewhere_is_followed_there(
        self,
        heard: Driven,
        told: Told,
        home: Path,
        files: list[str],
        elsewhere: Path,
    ) -> None:
        first, second = (elsewhere / name / "real.py" for name in ("first", "second"))
        first.parent.mkdir()
        second.parent.mkdir()
        first.write_text("x = 1\n")
        second.write_text("x = 2\n")
        (home / "link.py").symlink_to(first)
        files.append(str(home / "link.py"))
        heard.again(files)
        (home / "other").symlink_to(second)
        os.replace(home / "other", home / "link.py")
        heard.noticed(home / "link.py")
        heard.after(GATHER)
        save(second, "x = 3\n")
        heard.noticed(home / "link.py")
        heard.after(GATHER)
        assert told.calls == [{"link.py": "x = 2\n"}, {"link.py": "x = 3\n"}]

    def test_so_is_a_folder_that_is_a_link(
        self, heard: Driven, told: Told, home: Path, files: list[str]
    ) -> None:
        for name in ("v1", "v2"):
            (home / name).mkdir()
            (home / name / "m.py").write_text(f"{name} = 0\n")
        (home / "now").symlink_to("v1")
        files.append(str(home / "now" / "m.py"))
        heard.again(files)
        (home / "next").symlink_to("v2")
        os.replace(home / "next", home / "now")
        heard.after(SELDOM)
        heard.after(SETTLE)
        assert told.calls == [{"m.py": "v2 = 0\n"}]
        save(home / "v2" / "m.py", "v2 = 1\n")
        heard.noticed(home / "now" / "m.py")
        heard.after(GATHER)
        assert told.calls[1:] == [{"m.py": "v2 = 1\n"}]


class TestTelling:
    def test_what_changes_meanwhile_is_told_afterwards(
        self, polled: Driven, told: Told, home: Path, files: list[str]
    ) -> None:
        told.go.clear()
        save(home / "a.py", "x = 1\n")
        polled.watch.look()
        polled.clock.advance(SETTLE)
        polled.pulse.step()
        assert told.inside.wait(PATIENCE)
        for name in NAMES:
            save(home / name, "x = 2\n")
            polled.watch.look()
        polled.clock.advance(1.0)
        polled.pulse.step()
        polled.watch._woken()  # as one that is put off in the moment in which it comes due
        assert len(told.calls) == 1
        told.go.set()
        until(lambda: polled.watch._wake is not None or len(told.calls) == 2)
        polled.after(SETTLE)
        assert told.calls == [{"a.py": "x = 1\n"}, dict.fromkeys(NAMES, "x = 2\n")]
        assert told.most == 1

    def test_who_is_told_and_raises_is_told_the_next_as_well(
        self, polled: Driven, told: Told, home: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        told.error = ValueError("no such luck")
        for text in ("x = 1\n", "x = 2\n"):
            save(home / "a.py", text)
            polled.looked()
        assert told.calls == [{"a.py": "x = 1\n"}, {"a.py": "x = 2\n"}]
        assert [record.exc_info and record.exc_info[1] for record in caplog.records] == [told.error] * 2
        assert str(home / "a.py") in caplog.text

    def test_what_is_noticed_as_it_is_read_is_read_again(
        self, polled: Driven, told: Told, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = str(home / "a.py")
        save(home / "a.py", "x = 1\n")
        polled.watch.look()
        judge = module.Watch._judge

        def slowly(*args: object) -> object:
            verdict = judge(*args)  # type: ignore[arg-type]
            monkeypatch.setattr(module.Watch, "_judge", judge)
            save(home / "a.py", "x = 2\n")
            polled.watch._notice({path: None}, "renamed")
            return verdict

        monkeypatch.setattr(module.Watch, "_judge", slowly)
        polled.after(SETTLE)
        assert told.calls == []
        polled.after(GATHER)
        assert told.calls == [{"a.py": "x = 2\n"}]

    def test_a_file_that_changes_as_it_is_read_is_torn(
        self, polled: Driven, told: Told, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save(home / "a.py", "x = 1\n")
        polled.watch._notice({str(home / "a.py"): None})
        fstat, asked = os.fstat, []

        def written_on(fd: int) -> os.stat_result:
            found = fstat(fd)
            if found.st_ino == (home / "a.py").stat().st_ino and not asked:
                asked.append(fd)
                with (home / "a.py").open("a") as file:
                    file.write("y = 2\n")
            return found

        monkeypatch.setattr(os, "fstat", written_on)
        polled.after(SETTLE)
        assert told.calls == []
        polled.after(SETTLE)
        assert told.calls == [{"a.py": "x = 1\ny = 2\n"}]

    def test_when_it_is_off_nothing_is_told(self, polled: Driven, told: Told, home: Path) -> None:
        save(home / "a.py", "x = 1\n")
        polled.watch.look()
        polled.watch.off()
        polled.after(1.0)
        polled.watch.look()
        polled.watch.refresh()
        assert (told.calls, polled.watch._unsettled) == ([], {})

    def test_it_may_be_put_off_by_who_is_told(self, clock: FakeClock, files: list[str], home: Path) -> None:
        calls = []

        def changed(paths: frozenset[str]) -> None:
            calls.append(paths)
            driven.watch.off()

        driven = Driven(clock, changed, polling=False)  # type: ignore[arg-type]
        driven.watch.on(lambda: files)
        save(home / "a.py", "x = 1\n")
        driven.noticed(home / "a.py")
        driven.after(GATHER)
        assert calls == [{files[0]}] and not driven.watch.status().is_on
        driven.close()

    def test_a_pulse_that_is_closed_tells_nothing(
        self, clock: FakeClock, told: Told, files: list[str], home: Path
    ) -> None:
        driven = Driven(clock, told, polling=True)
        driven.watch.on(lambda: files)
        driven.pulse.close()
        save(home / "a.py", "x = 1\n")
        driven.watch.look()
        driven.watch._woken()
        driven.watch._poll_now()
        assert told.calls == []
        clock.advance(SLOW)
        driven.watch._woken()
        driven.watch._poll_now()
        assert not driven.watch._polling
        assert (told.calls, driven.watch._busy) == ([], False)
        driven.watch.off()


class TestFollowing:
    def test_it_says_what_it_does(self, told: Told, files: list[str]) -> None:
        pulse = Pulse()
        watch = Watch(pulse, told)
        assert watch.status() == WatchStatus(False, "off", 0, 0)
        watch.on(lambda: files)
        assert watch.status() == WatchStatus(True, "events", 3, 0)
        assert repr(watch) == "<Watch events: 3 files, 0 changes told>"
        watch.off()
        watch.off()
        assert watch.status() == WatchStatus(False, "off", 0, 0)
        pulse.close()

    def test_files_that_come_are_followed_and_those_that_go_are_not(
        self, polled: Driven, told: Told, home: Path, files: list[str]
    ) -> None:
        (home / "new.py").write_text("x = 0\n")
        files[:1] = [str(home / "new.py")]
        polled.watch.refresh()
        assert polled.watch.status().files == 3
        save(home / "a.py", "x = 1\n")
        save(home / "new.py", "x = 1\n")
        polled.looked()
        assert told.calls == [{"new.py": "x = 1\n"}]

    def test_on_again_follows_what_is_given_then(
        self, polled: Driven, told: Told, home: Path, files: list[str]
    ) -> None:
        polled.watch.on(lambda: files[:1])
        polled.watch.on(lambda: files[:1])
        assert polled.watch.status().files == 1
        save(home / "a.py", "x = 1\n")
        polled.looked()
        assert told.calls == [{"a.py": "x = 1\n"}]

    def test_what_changed_while_it_was_off_is_how_the_file_is(
        self, polled: Driven, told: Told, home: Path, files: list[str]
    ) -> None:
        polled.watch.off()
        save(home / "a.py", "x = 1\n")
        polled.watch.on(lambda: files)
        polled.looked()
        assert told.calls == []

    def test_paths_that_cannot_be_told_leave_it_as_it_was(
        self, polled: Driven, told: Told, home: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken() -> list[str]:
            raise ValueError("no paths")

        with pytest.raises(ValueError, match="no paths"):
            polled.watch.on(broken)
        assert polled.watch.status().files == 3
        polled.watch._paths = broken
        save(home / "a.py", "x = 1\n")
        polled.after(SLOW)
        polled.after(SETTLE)
        assert told.calls == [{"a.py": "x = 1\n"}]
        assert "which files to watch over" in caplog.text

    def test_a_drive_that_hangs_is_not_asked_twice(
        self, polled: Driven, files: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked, go = threading.Semaphore(0), threading.Event()
        looks = []

        def hanging() -> None:
            looks.append(polled.clock())
            asked.release()
            assert go.wait(PATIENCE)

        monkeypatch.setattr(polled.watch, "_compare", hanging)
        polled.clock.advance(SLOW)
        polled.pulse.step()
        assert asked.acquire(timeout=PATIENCE)
        polled.again(files)
        polled.clock.advance(SLOW)
        polled.pulse.step()
        go.set()
        until(polled.is_done)
        assert len(looks) == 1
        polled.after(SLOW)
        assert len(looks) == 2, "there is one row of looks, not two"

    def test_a_look_that_was_put_off_as_it_came_due_is_none(self, polled: Driven) -> None:
        coming = polled.watch._next_poll
        polled.watch._poll_now()
        assert polled.watch._next_poll is coming and not polled.watch._polling

    def test_off_comes_before_a_refresh_that_had_asked(self, polled: Driven, files: list[str]) -> None:
        def late() -> list[str]:
            polled.watch.off()
            return files

        polled.watch._paths = late
        polled.watch.refresh()
        assert polled.watch.status() == WatchStatus(False, "off", 0, 0)
        assert (polled.watch._files, polled.watch._next_poll) == ({}, None)


class TestPolling:
    def test_it_is_told_without_anybody_looking(self, polled: Driven, told: Told, home: Path) -> None:
        assert polled.watch.status() == WatchStatus(True, "polling", 3, 0, "polling was asked for")
        save(home / "a.py", "x = 1\n")
        polled.after(SLOW)
        polled.after(SETTLE)
        assert told.calls == [{"a.py": "x = 1\n"}]

    def test_another_text_with_the_same_stamp_is_told(self, polled: Driven, told: Told, home: Path) -> None:
        """The clock of a file system may tick slowly: a second save in the same tick shows nowhere."""
        file = home / "a.py"
        for text in ("x = 1\n", "x = 2\n"):
            with file.open("r+") as opened:
                opened.write(text)
            os.utime(file, ns=(10**18, 10**18))
            polled.after(SLOW)
            polled.after(SETTLE)
        assert told.calls == [{"a.py": "x = 1\n"}, {"a.py": "x = 2\n"}]

    def test_it_looks_often_when_files_change_and_seldom_when_they_do_not(
        self, polled: Driven, home: Path
    ) -> None:
        def pause() -> object:
            assert polled.watch._next_poll is not None
            return pytest.approx(polled.watch._next_poll.due - polled.clock())

        assert pause() == SLOW
        polled.after(SLOW)
        save(home / "a.py", "x = 1\n")
        polled.after(SLOW)
        assert pause() == QUICK
        for _ in range(30):
            polled.after(polled.watch._pause + 1e-6)
        assert pause() == SLOW

    def test_a_file_that_cannot_be_read_is_looked_at_until_it_can(
        self, polled: Driven, told: Told, home: Path
    ) -> None:
        (home / "a.py").unlink()
        (home / "a.py").mkdir()  # permissions would not keep root out
        polled.after(SLOW)
        polled.after(GRACE)
        assert told.calls == []
        for _ in range(2 * module._AGAIN):
            polled.after(SLOW)
            assert str(home / "a.py") in polled.watch._unsettled
            polled.after(GRACE)

    @pytest.mark.parametrize("fails", ["__init__", "start", "schedule"])
    def test_without_events_the_files_are_looked_at(
        self,
        clock: FakeClock,
        told: Told,
        files: list[str],
        home: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        fails: str,
    ) -> None:
        from watchdog import observers

        asked = []

        def refused(*args: object, **kwargs: object) -> None:
            asked.append(args)
            raise OSError(errno.ENOSPC, "inotify watch limit reached")

        class Refusing(observers.Observer):  # type: ignore[misc, valid-type]
            pass

        setattr(Refusing, fails, refused)
        monkeypatch.setattr(observers, "Observer", Refusing)
        (home / "deeper").mkdir()
        files.append(str(home / "deeper" / "m.py"))
        driven = Driven(clock, told, polling=False)
        driven.watch.on(lambda: files)
        status = driven.watch.status()
        assert (status.how, status.files) == ("polling", 4) and "limit reached" in status.why
        save(home / "a.py", "x = 1\n")
        driven.after(SLOW)
        driven.after(SETTLE)
        assert told.calls == [{"a.py": "x = 1\n"}]
        times = 2 if fails == "schedule" else 1  # of each directory, or of all
        assert len(asked) == len(caplog.records) == times, "it is asked for once, and said once"
        driven.close()

    def test_only_what_is_on_a_network_drive_is_polled_beside_the_rest(
        self, clock: FakeClock, told: Told, files: list[str], home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (home / "net").mkdir()
        files.append(str(home / "net" / "far.py"))
        mounts = home / "mounts"
        mounts.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/x {home}/net nfs4 rw 0 0\n")
        real = open
        monkeypatch.setattr(
            directories,
            "open",
            lambda path, **how: real(mounts if path == "/proc/mounts" else path, **how),
            raising=False,
        )
        driven = Driven(clock, told, polling=False)
        driven.watch.on(lambda: files)
        assert driven.watch.status() == WatchStatus(True, "events", 4, 0, f"{home / 'net'} is on nfs4")
        save(home / "net" / "far.py", "x = 1\n")
        driven.after(SLOW)
        driven.after(SETTLE)
        assert told.calls == [{"far.py": "x = 1\n"}]
        driven.close()

    def test_without_a_table_of_mounts_no_drive_is_remote(
        self, monkeypatch: pytest.MonkeyPatch, home: Path
    ) -> None:
        def absent(*args: object, **how: object) -> None:
            raise FileNotFoundError

        monkeypatch.setattr(directories, "open", absent, raising=False)
        assert directories._remote(str(home)) == ""

    @pytest.mark.parametrize(
        ("directory", "kind"),
        [
            ("/home/me/project", ""),
            ("/mnt/share", "cifs"),
            ("/mnt/share/deep/down", "cifs"),
            ("/mnt/shared", ""),
            ("/mnt/my drive/x", "fuse.sshfs"),
            ("/mnt/local", ""),
            ("/mnt/share/local", ""),
            ("/c/Users", "9p"),
            ("/", ""),
        ],
    )
    def test_a_network_drive_is_known_by_its_mount(self, directory: str, kind: str) -> None:
        mounts = (
            "/dev/vda / ext4 rw 0 0\n//server/x /mnt/share cifs rw 0 0\n"
            "host: /mnt/my\\040drive fuse.sshfs rw\n"
            "/dev/sdb /mnt/local fuseblk rw 0 0\n/dev/sdc /mnt/share/local xfs rw 0 0\nC: /c 9p rw 0 0\n\n"
        )
        assert drive(directory, mounts) == kind

    def test_of_two_mounts_at_one_place_the_later_counts(self) -> None:
        assert drive("/x/y", "a /x nfs rw 0 0\nb /x tmpfs rw 0 0\n") == ""


class TestEvents:
    def test_a_file_that_is_put_in_its_place_is_told(self, watch: Watch, told: Told, home: Path) -> None:
        save(home / "a.py", "x = 1\n")
        told.until(lambda: bool(told.calls))
        assert told.calls == [{"a.py": "x = 1\n"}]

    def test_a_file_that_is_written_over_is_told(self, watch: Watch, told: Told, home: Path) -> None:
        (home / "a.py").write_text("x = 1\n")
        told.until(lambda: bool(told.calls))
        assert told.all() == {"a.py": "x = 1\n"}

    def test_one_that_is_put_in_its_place_is_told_at_once(
        self, heard: Driven, told: Told, home: Path
    ) -> None:
        """It is whole, also where it is no Python: there is nothing to wait for."""
        save(home / "a.py", "def f(:\n")
        heard.noticed(home / "a.py")
        heard.after(GATHER)
        assert told.calls == [{"a.py": "def f(:\n"}]

    def test_one_that_is_written_in_two_halves_is_told_when_it_is_closed(
        self, heard: Driven, told: Told, home: Path
    ) -> None:
        path = str(home / "a.py")
        with (home / "a.py").open("w") as file:
            file.write("x = 1\n")
            file.flush()
            until(lambda: path in heard.watch._unsettled and heard.watch._unsettled[path].writing)
            heard.after(GRACE * 0.9)
            file.write("y = 2\n")
        until(lambda: not heard.watch._unsettled[path].writing)
        heard.after(SETTLE)
        assert told.calls == [{"a.py": "x = 1\ny = 2\n"}]

    def test_one_that_is_never_closed_is_told_all_the_same(
        self, heard: Driven, told: Told, home: Path
    ) -> None:
        path = str(home / "a.py")
        with (home / "a.py").open("w") as file:
            file.write("x = 1\n")
            file.flush()
            until(lambda: path in heard.watch._unsettled and (home / "a.py").stat().st_size > 0)
            heard.after(GRACE)
            until(lambda: bool(told.calls) or heard.watch._wake is not None)
            heard.after(GRACE)
            assert told.calls == [{"a.py": "x = 1\n"}]

    def test_one_that_is_taken_away_and_put_back_is_told(self, watch: Watch, told: Told, home: Path) -> None:
        (home / "a.py").rename(home / "a.py~")
        (home / "a.py").write_text("x = 1\n")
        told.until(lambda: bool(told.calls))
        assert told.all() == {"a.py": "x = 1\n"}

    def test_reading_a_file_is_no_event(self, heard: Driven, home: Path, files: list[str]) -> None:
        (home / "a.py").read_text()
        save(home / "b.py", "x = 1\n")
        heard.noticed(home / "b.py")
        assert heard.watch._unsettled.keys() == {files[1]}

    def test_the_last_of_many_saves_is_never_missed(self, watch: Watch, told: Told, home: Path) -> None:
        for n in range(200):
            save(home / "a.py", f"x = {n}\n")
            (home / "b.py").write_text(f"y = {n}\n")
        told.until(lambda: told.all() == {"a.py": "x = 199\n", "b.py": "y = 199\n"})
        assert told.most == 1

    def test_many_files_at_once_are_few_calls(
        self, heard: Driven, told: Told, home: Path, files: list[str]
    ) -> None:
        files += [str(home / f"m{n}.py") for n in range(100)]
        heard.watch.refresh()
        for path in files:
            Path(path).write_text("x = 1\n")
        until(
            lambda: (
                len(heard.watch._unsettled) == len(files)
                and not any(seen.writing for seen in heard.watch._unsettled.values())
            )
        )
        for _ in range(5):  # an event that comes late begins the quiet anew, for the file that it is of
            heard.after(SETTLE)
        assert sum(len(call) for call in told.calls) == len(files) and len(told.calls) <= 3

    def test_a_directory_that_is_made_anew_is_taken_up_again(
        self, heard: Driven, told: Told, home: Path, files: list[str]
    ) -> None:
        away = home / "package"
        away.mkdir()
        (away / "m.py").write_text("x = 0\n")
        files.append(str(away / "m.py"))
        heard.watch.refresh()
        shutil.rmtree(away)
        heard.noticed(away / "m.py", whole=False)
        heard.after(SETTLE)
        heard.after(GRACE)
        assert heard.watch.status().why == f"{away} is missing"
        away.mkdir()
        (away / "m.py").write_text("x = 1\n")
        heard.after(SLOW)
        heard.after(SETTLE)
        assert told.calls == [{"m.py": "x = 1\n"}] and heard.watch.status().why == ""
        save(away / "m.py", "x = 2\n")
        heard.noticed(away / "m.py")
        heard.after(GATHER)
        assert told.calls[1:] == [{"m.py": "x = 2\n"}]

    def test_an_event_that_is_lost_is_made_good(
        self, heard: Driven, told: Told, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lost = threading.Event()
        monkeypatch.setattr(Directories, "dispatch", lambda *_: lost.set())
        save(home / "a.py", "x = 1\n")
        assert lost.wait(PATIENCE)
        heard.after(SELDOM)
        heard.after(SETTLE)
        assert told.calls == [{"a.py": "x = 1\n"}]

    def test_no_thread_is_left_behind(self, told: Told, files: list[str], home: Path) -> None:
        (home / "deeper").mkdir()
        files.append(str(home / "deeper" / "m.py"))
        pulse = Pulse()
        watch = Watch(pulse, told)
        before = set(threading.enumerate())
        for n in range(20):
            watch.on(lambda: files)
            save(home / "a.py", f"x = {n}\n")
            watch.off()
        ours = {thread.name for thread in set(threading.enumerate()) - before}
        assert {name for name in ours if not name.startswith("grym-")} == set()
        assert pulse.close(PATIENCE) == ()
        assert set(threading.enumerate()) == before
