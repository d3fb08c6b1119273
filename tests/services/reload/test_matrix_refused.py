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
from tests.services.reload.kinds.kind import service

HELPER = "N = 1\ndef more(x):\n    return x + N\n"
TEXT = service("return more(x)", head="from helper import more")
HELD = '    @task("held")'


@pytest.fixture
def served(edited: Edited, registry: ServiceRegistry) -> ServiceHandle:
    edited.start(helper=HELPER)
    handle = registry.register("service", edited.start(m=TEXT).S)
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


@pytest.mark.parametrize(
    ("module", "was", "now", "told"),
    [
        pytest.param("m", "def ask(self", "def ask(self:", "SyntaxError", id="syntax"),
        pytest.param("helper", "return x", "return return x", "SyntaxError", id="syntax of a helper"),
        pytest.param("helper", "    return", "return", "IndentationError", id="indentation"),
        pytest.param("m", "class S", "import nowhere_at_all\nclass S", "ModuleNotFoundError", id="import"),
        pytest.param("m", "import more", "import less", "ImportError", id="import of a name"),
        pytest.param("helper", "N = 1", "N = 1 / 0", "ZeroDivisionError", id="error at the top"),
        pytest.param("helper", "N = 1", "raise SystemExit(1)", "SystemExit", id="exit at the top"),
        pytest.param(
            "m", HELD, f"    def ping(self): raise OSError(1)\n{HELD}", "ping raised OSError", id="ping"
        ),
        pytest.param("m", "more(x)", "more(x).nothing", "AttributeError", id="each call"),
        pytest.param("helper", "x + N", "x + nobody", "NameError", id="each call of a helper"),
        pytest.param("m", "class S(", "class T(", "S is gone from m", id="the class"),
        pytest.param("m", '    @task("ask")\n', "", "at least one method with @task", id="the only tasks"),
        pytest.param(
            "m", HELD, f"    def __init__(self, *, gain): pass\n{HELD}", "gain: found", id="a parameter"
        ),
        pytest.param("m", "ModelService):", "ModelService, Nobody):", "NameError", id="a base"),
    ],
)
def test_what_cannot_serve_is_refused(
    edited: Edited, served: ServiceHandle, module: str, was: str, now: str, told: str
) -> None:
    changes = [(was, now), *([(f"{HELD}\n", "")] if "@task" in was else [])]
    before = edited.path(module).read_text()
    edited.edit(module, *changes)
    refused(served, told)
    edited.write(module, before)
    assert served.reload().how == "unchanged"
    edited.edit("helper", ("N = 1", "N = 2"))
    assert served.reload().how == "in place" and served.ask() == 5


@pytest.mark.parametrize("module", ["m", "helper"])
def test_a_file_that_is_gone_is_told(edited: Edited, served: ServiceHandle, module: str) -> None:
    path = edited.path(module)
    text = path.read_text()
    path.unlink()
    refused(served, f"{module}.py")
    path.write_text(text.replace("return more(x)", "return -more(x)").replace("x + N", "-x - N"))
    assert served.reload().how == "in place" and served.ask() == -4


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
