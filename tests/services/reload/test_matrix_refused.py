"""Edits that cannot serve, and saves that are none: what is refused is told, and the old code goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from grym_nb.errors import ReloadFailed, TaskNotFound
from grym_nb.services import ServiceHandle, ServiceRegistry
from tests.services.crowd import apart
from tests.services.reload.files import Edited
from tests.services.reload.kinds import REFUSED, SAVES, Kind
from tests.services.reload.kinds.refused import HELD, TEXTS


@pytest.fixture
def served(edited: Edited, registry: ServiceRegistry) -> ServiceHandle:
    handle = registry.register("service", edited.start(**TEXTS).S)
    assert handle.ask(3) == 4
    return handle


def refused(served: ServiceHandle, told: str) -> None:
    """See that a reload is refused in three lines, and the old code serves."""
    weights = served.held()[0]
    with pytest.raises(ReloadFailed) as failed:
        served.reload()
    said = str(failed.value)
    assert told in said and "goes on with the code it had (v1)" in said and len(said.splitlines()) <= 3
    assert served.ask() == 4 and served.version == "v1"
    assert served.held()[0] is weights and served.status().loads == 1


@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.name) for kind in REFUSED])
def test_what_cannot_serve_is_refused(edited: Edited, served: ServiceHandle, kind: Kind) -> None:
    for module, text in kind.edited().items():
        if text is None:
            edited.path(module).unlink()
        else:
            edited.write(module, text)
    refused(served, kind.told)
    for module, text in TEXTS.items():
        edited.write(module, text)
    assert served.reload().how == "unchanged"
    edited.edit("helper", ("N = 1", "N = 2"))
    assert served.reload().how == "in place" and served.ask() == 5


@pytest.mark.parametrize("module", ["m", "helper"])
def test_a_file_that_is_no_utf8_is_told(edited: Edited, served: ServiceHandle, module: str) -> None:
    path = edited.path(module)
    path.write_bytes(path.read_bytes() + b"# \xff\xfe\n")
    refused(served, f"{module}.py")


def test_a_rare_input_that_fails_is_answered_by_the_old_code(edited: Edited, served: ServiceHandle) -> None:
    edited.edit("m", ("return more(x)", "return {3: 40, 2: 30}[x]"))
    served.reload()
    assert served.ask() == 40 and served.version == "v2"
    assert served.ask(9) == 10 and served.version == "v1" and served.ask() == 4


@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.name) for kind in SAVES])
def test_a_save_is_taken_for_what_it_is(edited: Edited, registry: ServiceRegistry, kind: Kind) -> None:
    """As the benchmark has it, beside what peers make of it."""
    handle = registry.register("service", edited.start(**kind.texts).S)
    saved = edited.path("m").stat().st_mtime_ns
    assert handle.ask() == kind.before
    weights = handle.held()[0]
    for module, text in kind.edited().items():
        edited.path(module).write_text(str(text))
        os.utime(edited.path(module), ns=(saved, saved + (0 if kind.at_once else 2 * 10**9)))
    assert handle.reload().how == kind.how
    assert handle.ask(*kind.then) == kind.after and handle.held()[0] is weights


def test_slower_code_is_taken(edited: Edited, served: ServiceHandle) -> None:
    edited.edit("m", ("return more(x)", "return more(x) + sum(range(10 ** 6)) * 0 + 1"))
    assert served.reload().how == "in place" and served.ask() == 5


def test_a_file_that_is_touched_is_the_same(edited: Edited, served: ServiceHandle) -> None:
    for module in ("m", "helper"):
        os.utime(edited.path(module), (0, 0))
    assert served.reload().how == "unchanged" and served.version == "v1"


def taken_back(edited: Edited, served: ServiceHandle) -> None:
    edited.edit("m", ("more(x)", "more(x) + 1"))
    edited.edit("m", ("more(x) + 1", "more(x)"))
    assert served.reload().how == "unchanged" and served.ask() == 4


def taken_back_later(edited: Edited, served: ServiceHandle) -> None:
    edited.edit("m", ("more(x)", "more(x) + 1"))
    served.reload()
    edited.edit("m", ("more(x) + 1", "more(x)"))
    assert served.reload().after == "v3" and served.ask() == 4


def twice(edited: Edited, served: ServiceHandle) -> None:
    edited.edit("m", ("more(x)", "more(x) + 1"))
    edited.edit("helper", ("x + N", "x - N"))
    assert served.reload().after == "v2" and served.ask() == 3


@pytest.mark.parametrize("edits", [taken_back, taken_back_later, twice])
def test_what_counts_is_what_is_saved_at_last(
    edited: Edited, served: ServiceHandle, edits: Callable[[Edited, ServiceHandle], None]
) -> None:
    weights = served.held()[0]
    edits(edited, served)
    assert served.held()[0] is weights and served.status().loads == 1


def test_a_call_that_a_task_takes_no_more_is_not_tried_and_that_is_said(
    edited: Edited, served: ServiceHandle
) -> None:
    edited.edit("m", ("self, x=3", "self, *, y=5"), ("more(x)", "more(y)"))
    report = served.reload()
    assert "ask: it does not take what it was given any more" in report.notes
    assert served.ask(y=1) == 2 and served.ask() == 6


def test_tasks_are_added_renamed_and_removed(edited: Edited, served: ServiceHandle) -> None:
    edited.edit("m", (HELD, f'    @task("less")\n    def less(self, x):\n        return -x\n{HELD}'))
    served.reload()
    assert served.less(1) == -1 and served.ask() == 4
    edited.edit("m", ('@task("less")', '@task("fewer")'), ("def less", "def fewer"))
    assert "less" not in served.reload().notes and served.fewer(1) == -1
    with pytest.raises(TaskNotFound):
        served.less(1)
    edited.edit("m", ('    @task("fewer")\n    def fewer(self, x):\n        return -x\n', ""))
    served.reload()
    with pytest.raises(TaskNotFound):
        served.fewer(1)
    assert served.ask() == 4 and served.status().loads == 1


def test_an_edit_of_the_same_size_in_the_same_second_comes_where_bytecode_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / "cache"))
    told = apart("tests.services.reload.same_size", str(tmp_path))
    assert told == {"answers": [4, 5, 6, 7], "hows": ["in place"] * 3, "bytecode": True}
