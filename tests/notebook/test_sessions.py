"""`%grym session save` and `restore`: another kernel has the services as they were."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grym_nb.errors import CommandError
from grym_nb.notebook.completion import offers
from grym_nb.notebook.session import restore, save, session
from grym_nb.runtime import Runtime
from grym_nb.services import ModelService, task
from grym_nb.settings import Settings

MODULE = """
from grym_nb.services import ModelService, task

class Scaled(ModelService):
    def __init__(self, *, by: float = 1.0, api_key: str = "", how=None, deep=None):
        self.by = by

    @task
    def scale(self, x: float) -> float:
        return self.by * x

class Broken(ModelService):
    def load(self):
        raise ValueError("no weights")

    @task
    def say(self): ...
"""


class OfACell(ModelService):
    """Stands for one whose class is in a cell."""

    def __init__(self, *, offset: float = 0.0) -> None:
        self.offset = offset

    @task
    def add(self, x: float) -> float:
        return x + self.offset


OfACell.__module__ = "__main__"


@pytest.fixture
def before() -> Iterator[Runtime]:
    yield from with_one()


@pytest.fixture
def after() -> Iterator[Runtime]:
    yield from with_one()


def with_one() -> Iterator[Runtime]:
    """Yield a runtime with one of the package's services."""
    with Runtime(Settings(health_seconds=0)) as own:
        for name in ("wav2vec2", "audioldm"):
            own.registry.remove(name)
        yield own


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that can be imported."""
    (tmp_path / "scaled_services.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return "scaled_services"


def rows(sheet: Any) -> dict[str, tuple[str, str]]:
    """Return what came of each service."""
    return {name: (how, why) for name, how, why in sheet.parts[0].rows}


def test_what_was_there_is_there_again(before: Runtime, after: Runtime, module: str, tmp_path: Path) -> None:
    """With its config, options and budgets; loaded where it was."""
    options = {"config": {"by": 3.0}, "memory": "20MB", "ttl": 60.0, "concurrency": 2, "timeout": 9.0}
    before.registry.register("scaled", f"{module}:Scaled", priority="high", **options)
    before.registry.register("idle", f"{module}:Scaled", needs=("scaled",))
    before.registry["scaled"].scale(1.0)
    before.resources.budget("4GB")
    path = tmp_path / "session.json"
    assert save(before, path).title == f"3 services, 1 of them loaded, in {path}"
    told = restore(after, path)
    assert rows(told) == {"dsp": ("registered", ""), "scaled": ("loaded", ""), "idle": ("registered", "")}
    assert "memory budgets are as they were" in told.title
    assert after.registry["scaled"].scale(2.0) == 6.0
    for name in ("scaled", "idle"):
        one, other = before.registry[name]._record.spec, after.registry[name]._record.spec
        assert not one.differs(other)
    assert after.registry["scaled"].policy.timeout == 9.0
    assert after.resources.ledger.budgets == before.resources.ledger.budgets
    assert rows(restore(after, path))["scaled"] == ("loaded", ""), "once more changes nothing"


def test_one_of_a_cell_is_set_as_it_was_once_its_cell_was_run(
    before: Runtime, after: Runtime, tmp_path: Path
) -> None:
    """Its code is in the notebook, and nowhere else."""
    before.registry.register("cell", OfACell).configure(offset=5.0)
    before.registry["cell"].load()
    path = tmp_path / "session.json"
    told = save(before, path)
    assert told.parts[0].rows == [("cell", "its code", "it is of a notebook: run its cell, then restore")]
    how, why = rows(restore(after, path))["cell"]
    assert (how, "run its cell" in why) == ("not restored", True)
    after.registry.register("cell", OfACell)
    assert rows(restore(after, path))["cell"] == ("loaded", "")
    assert after.registry["cell"].add(1.0) == 6.0


def test_no_secret_and_nothing_that_lives_is_in_the_file(
    before: Runtime, module: str, tmp_path: Path
) -> None:
    """And nobody else can read it; what was left out is told."""
    config = {"api_key": "sk-12345", "how": print, "by": 2.0, "deep": {"auth": [{"token": "tk-12345"}]}}
    before.registry.register("scaled", f"{module}:Scaled", config=config)
    path = tmp_path / "session.json"
    path.write_text("older")
    left = save(before, path).parts[0].rows
    assert [(what.split("=")[0], why) for _, what, why in left] == [
        ("api_key", "it is a secret"),
        ("how", "no file holds it"),
        ("deep", "it is a secret"),
    ]
    assert "sk-12345" not in path.read_text() and "tk-12345" not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.glob(".*")] == []


def test_one_that_cannot_be_loaded_keeps_no_other_from_it(
    before: Runtime, after: Runtime, module: str, tmp_path: Path
) -> None:
    """Why is told beside it."""
    before.registry.register("a", f"{module}:Scaled").load()
    before.registry.register("b", f"{module}:Scaled").load()
    path = tmp_path / "session.json"
    save(before, path)
    told = json.loads(path.read_text())
    by_name = {one["name"]: one for one in told["services"]}
    by_name["a"]["factory"] = f"{module}:Broken"
    by_name["dsp"]["factory"] = "no_such_module:Dsp"
    path.write_text(json.dumps(told))
    after.registry.remove("dsp")
    found = rows(restore(after, path))
    assert found["b"] == ("loaded", "")
    assert found["a"][0] == "registered" and "no weights" in found["a"][1]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"grym_nb": 2}', '{"grym_nb": 1, "services": [{}]}'])
def test_what_is_no_session_changes_nothing(after: Runtime, tmp_path: Path, text: str) -> None:
    """Three lines, and nothing is registered."""
    path = tmp_path / "session.json"
    path.write_text(text)
    with pytest.raises(CommandError, match="is no session"):
        restore(after, path)
    assert list(after.registry) == ["dsp"]


def test_files_that_cannot_be_read_or_written_are_told(after: Runtime, tmp_path: Path) -> None:
    """With the path."""
    with pytest.raises(CommandError, match="No such file"):
        restore(after, tmp_path / "none.json")
    with pytest.raises(CommandError, match="No such file"):
        save(after, tmp_path / "none" / "session.json")


def test_it_is_typed_with_a_file_or_without(
    after: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The usual one is in the folder of the kernel."""
    monkeypatch.chdir(tmp_path)
    session(after, ["save"])
    session(after, ["save", "other.json"])
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["grym-session.json", "other.json"]
    assert "1 of 1 service from" in session(after, ["restore"]).title
    with pytest.raises(CommandError, match="save or restore was expected"):
        session(after, ["sve"])
    assert offers("session ") == ("", ["save", "restore"])
