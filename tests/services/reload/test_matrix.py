"""Each kind of edit comes into force with the weights as they are; it can be taken back, and made again."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import linecache
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from grym_nb.services import ServiceHandle, ServiceRegistry
from tests.services.reload.files import Edited
from tests.services.reload.kinds import KINDS, Kind
from tests.services.reload.kinds.kind import service

BYSTANDER = service("return x").replace("class S(", "class Bystander(")


@dataclass
class Stand:
    """A service of some kind, and one beside it."""

    kind: Kind
    edited: Edited
    service: ServiceHandle
    other: ServiceHandle

    def write(self, texts: dict[str, str | None]) -> None:
        for module, text in texts.items():
            if text is None:
                self.edited.path(module).unlink()
            else:
                self.edited.path(module).write_bytes(encoded(text))

    def answer(self) -> Any:
        return answer(self.service)

    def state(self) -> tuple[Any, ...]:
        """Return what an edit has to leave as it is, of the service and of the other one."""
        return *self.service.held(), *self.other.held()


def answer(service: ServiceHandle) -> Any:
    """Return what a service answers; of a stream all parts."""
    value = service.ask()
    return list(value) if isinstance(value, Iterator) else value


def encoded(text: str) -> bytes:
    return text.encode("latin-1" if "latin-1" in text else "utf-8")


def same(one: tuple[Any, ...], other: tuple[Any, ...]) -> list[bool]:
    return [a is b for a, b in zip(one, other, strict=True)]


def each(kinds: Iterable[Kind]) -> list[Any]:
    """Return kinds as parameters; those are skipped of which a package is not here."""
    found = []
    for kind in kinds:
        marks = []
        if kind.needs and importlib.util.find_spec(kind.needs) is None:
            marks.append(pytest.mark.skip(reason=f"{kind.needs} is not installed"))
        found.append(pytest.param(kind, id=kind.name, marks=marks))
    return found


@pytest.fixture
def stand(kind: Kind, edited: Edited, registry: ServiceRegistry) -> Stand:
    for module, text in kind.texts.items():
        edited.path(module).parent.mkdir(exist_ok=True)
        edited.path(module).write_bytes(encoded(text))
    importlib.invalidate_caches()
    made = importlib.import_module(kind.module).S
    beside = edited.start(bystander=BYSTANDER).Bystander
    return Stand(
        kind,
        edited,
        registry.register("service", made, config=kind.config),
        registry.register("bystander", beside),
    )


@pytest.mark.parametrize("kind", each(KINDS))
def test_an_edit_of_a_file_is_in_force(kind: Kind, stand: Stand) -> None:
    service = stand.service
    assert stand.answer() == kind.before
    state = stand.state()
    stand.write(kind.edited())
    report = service.reload()
    assert report.how == kind.how, report
    assert stand.answer() == kind.after
    kept = kind.how != "loaded"
    assert same(stand.state(), state) == [kept] * (len(state) - 1) + [True]
    assert service.status().loads == (1 if kept else 2)
    assert service.version == ("v1" if kind.how == "unchanged" else "v2")
    assert (stand.other.version, stand.other.status().loads) == ("v1", 1)
    with service.use() as model:
        assert type(model) is sys.modules[kind.module].S


@pytest.mark.parametrize("kind", each(one for one in KINDS if one.how != "unchanged"))
def test_an_edit_of_a_file_is_taken_back_and_made_again(kind: Kind, stand: Stand) -> None:
    service = stand.service
    assert stand.answer() == kind.before
    state = stand.state()
    stand.write(kind.edited())
    service.reload()
    assert stand.answer() == kind.after
    assert service.rollback().after == service.version == "v1"
    assert stand.answer() == kind.before
    stand.write(dict(kind.texts))
    service.reload()
    assert stand.answer() == kind.before
    stand.write(kind.edited())
    service.reload()
    assert stand.answer() == kind.after
    if kind.how != "loaded":
        assert service.status().loads == 1 and all(same(stand.state(), state))


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of a notebook's cells, as IPython has it."""
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    return main


def run_cell(notebook: ModuleType, text: str) -> Any:
    file = f"<cell {hash(text)}>"  # with its source at hand, as IPython has it
    linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
    exec(compile(text, file, "exec", dont_inherit=True), vars(notebook))
    return notebook.S


@pytest.mark.parametrize("kind", each(one for one in KINDS if one.cell))
def test_an_edit_of_a_cell_is_in_force(kind: Kind, notebook: ModuleType, registry: ServiceRegistry) -> None:
    service = registry.register("service", run_cell(notebook, kind.texts["m"]), config=kind.config)
    assert answer(service) == kind.before
    weights = service.held()[0]
    edited = kind.edited()["m"]
    assert edited is not None
    registry.register("service", run_cell(notebook, edited), config=kind.config)
    assert answer(service) == kind.after
    assert (service.held()[0] is weights) == (kind.how != "loaded")
    assert service.status().loads == (1 if kind.how != "loaded" else 2)
    assert service.version == "v2"
    service.rollback()
    assert service.version == "v1"
    if own_text(kind.texts["m"]) != own_text(edited):  # what else it names is in the notebook, and new
        assert answer(service) == kind.before


@pytest.mark.parametrize(
    "kind", [one for one in KINDS if one.cell and not one.needs], ids=lambda one: one.name
)
def test_a_cell_that_is_run_again_is_unchanged(
    kind: Kind, notebook: ModuleType, registry: ServiceRegistry
) -> None:
    text = kind.texts["m"]
    service = registry.register("service", run_cell(notebook, text), config=kind.config)
    assert answer(service) == kind.before
    weights = service.held()[0]
    for _ in range(2):
        registry.register("service", run_cell(notebook, text), config=kind.config)
    assert service.version == "v1" and service.held()[0] is weights


def own_text(text: str) -> str:
    """Return what the text of a module has of the service's class itself."""
    return "".join(ast.dump(one) for one in ast.parse(text).body if getattr(one, "name", "") == "S")
