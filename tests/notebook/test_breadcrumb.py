"""A kernel that is killed for its memory cannot say so: the next one does."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grym_nb.hardening.pressure import Pressure
from grym_nb.notebook import breadcrumb
from grym_nb.notebook.breadcrumb import Crumbs, found
from grym_nb.runtime import Runtime
from grym_nb.services import ModelService, task
from grym_nb.settings import Settings
from grym_nb.testing import FakeClock
from tests.kernel import Kernel, KernelDied

HANGS = """
%load_ext grym_nb
import grym_nb as grym, os
class Huge(grym.ModelService):
    def load(self):
        os.kill(os.getpid(), 9)
    @grym.task
    def ask(self): ...
from grym_nb.devices import process_memory
huge = grym.register("huge", Huge, memory=290_000_000 - process_memory().rss)
"""


class Small(ModelService):
    def load(self) -> None:
        self.part = np.zeros(100)

    @task
    def ask(self) -> None: ...


def test_a_kernel_that_was_killed_as_it_loaded_is_told_of_by_the_next_and_once(tmp_path: Path) -> None:
    env = {"MEM_LIMIT": "300MB", "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    with Kernel(env=env, cwd=tmp_path) as killed:
        killed.run(HANGS).checked()
        with pytest.raises(KernelDied):
            killed.run("huge.load()")
    (elsewhere := tmp_path / "elsewhere").mkdir()
    with Kernel(env=env, cwd=elsewhere) as other:
        assert other.run("%load_ext grym_nb").checked().stderr == "", "it is not its to tell, or to forget"
    with Kernel(env=env, cwd=tmp_path) as after:
        told = after.run("%load_ext grym_nb").checked().stderr
        assert "the kernel before this one" in told and "loading huge with nothing loaded" in told
        assert "MB more asked for" in told and "of 300 MB in use" in told
        assert after.run("%reload_ext grym_nb").checked().stderr == ""
    with Kernel(env=env, cwd=tmp_path) as third:
        assert third.run("%load_ext grym_nb").checked().stderr == ""


def test_a_clean_end_leaves_no_word(tmp_path: Path) -> None:
    env = {"JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    with Kernel(env=env, cwd=tmp_path) as clean:
        clean.run(HANGS.replace("os.kill(os.getpid(), 9)", "pass")).checked()
        clean.run("huge.load()").checked()
        assert len(list((tmp_path / "runtime" / "grym_nb").glob("*.json"))) == 1
    assert list((tmp_path / "runtime" / "grym_nb").iterdir()) == []


@pytest.fixture
def crumb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write what a kernel left that is not there any more; return what the next one says of it."""
    monkeypatch.setattr(breadcrumb, "kills", lambda: 1)

    def write(**changes: Any) -> list[str]:
        told = {"at": time.time(), "folder": os.getcwd(), "doing": "", "there": ["asr"], "asked": 0}
        told |= {"used": 50, "limit": 100, "source": "test", "kills": 1}
        (tmp_path / "999999999.json").write_text(json.dumps(told | changes))
        return list(found(folder=tmp_path))

    return write


def test_it_speaks_only_where_memory_may_be_why(crumb: Any) -> None:
    assert crumb() == []
    [line] = crumb(used=90)
    assert "ended without a word, idle or in a call with asr loaded: 90 B of 100 B in use" in line
    [line] = crumb(doing="loading tts", asked=50)
    assert "loading tts with asr loaded: 50 B of 100 B in use, 50 B more asked for" in line
    assert crumb(doing="loading tts", asked=20) == []
    [line] = crumb(kills=0)
    assert "was killed for its memory" in line


def test_other_folders_old_words_and_broken_files_say_nothing(crumb: Any, tmp_path: Path) -> None:
    theirs = tmp_path / "999999999.json"
    assert crumb(used=99, folder="/elsewhere") == [] and theirs.exists(), "who starts there is told"
    assert crumb(used=99, folder="/elsewhere", at=time.time() - 1e6) == [] and not theirs.exists()
    assert crumb(used=99, at=time.time() - 1e6) == [] and not theirs.exists()
    (tmp_path / "999999998.json").write_text("{not json")
    (tmp_path / "noone.json").write_text("[]")
    told = {"at": time.time(), "folder": os.getcwd()}
    (tmp_path / "999999997.json").write_text(json.dumps(told))  # of another version
    assert list(found(folder=tmp_path)) == [] and list(tmp_path.glob("*.json")) == []


def test_what_runs_is_left_alone_and_a_folder_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Runtime() as runtime:
        crumbs = Crumbs(runtime, folder=tmp_path / "here")
        small = runtime.registry.register("small", Small).load()
        mine = tmp_path / "here" / f"{os.getpid()}.json"
        assert json.loads(mine.read_text())["there"] == ["small"]
        assert list(found(folder=tmp_path / "here")) == [] and mine.exists()
        crumbs.end()
        assert not mine.exists()
        (tmp_path / "file").write_text("")
        crumbs = Crumbs(runtime, folder=tmp_path / "file")
        small.unload().load()
        crumbs.end()


def test_how_much_is_left_is_looked_at_between_the_loads_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    with Runtime(Settings(health_seconds=0), clock=clock) as runtime:
        shares = (50, 90, 90, 96, 96, 90, 50, 90)
        looks = iter(shares)
        runtime.resources.pressure = lambda: Pressure(next(looks), 100, "test")
        crumbs = Crumbs(runtime, folder=tmp_path)
        mine = tmp_path / f"{os.getpid()}.json"
        runtime.registry.register("small", Small).load()  # from then on
        said: list[int] = []
        for _ in shares[1:]:
            clock.advance(2.0)
            runtime.registry.ports.pulse.step()
            said.append(len(caplog.messages))
        assert said == [1, 1, 2, 2, 2, 2, 3] and json.loads(mine.read_text())["doing"] == ""
        assert "96 B of 100 B in use (96%, test); idle services go before any is loaded" in caplog.messages[1]
        crumbs.end()


def test_near_its_limit_a_kernel_loads_nothing_more_and_says_who_has_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Runtime(Settings(health_seconds=0)) as runtime:
        shares = iter([0.5, 0.9, 0.9, 0.97, 0.97, 0.97, 0.9])
        runtime.resources.pressure = lambda: Pressure(int(next(shares) * 100), 100, "test")
        names = ("one", "two", "three", "four", "five")
        one, two, three, four, five = (runtime.registry.register(name, Small) for name in names)
        one.load()
        two.load()
        three.load()
        [said] = [r.getMessage() for r in caplog.records if "running out" in r.getMessage()]
        assert said.startswith("memory is running out: 90 B of 100 B in use (90%, test); ")
        assert said.endswith("; grym.current().resources.memory() shows who has it"), "there is no magic here"
        with pytest.raises(Exception, match="four is not loaded: 97 B of 100 B in use") as refused:
            four.load()
        assert "also without" in str(refused.value) and one.state == "registered"
        five.load()
