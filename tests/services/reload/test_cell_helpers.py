"""A service from a cell follows the modules that it names, as one from a file does."""

from __future__ import annotations

import gc
import inspect
import os
import pickle
import random
import sys
import threading
import weakref
from collections import Counter
from types import ModuleType
from typing import Any

import pytest

from grym_nb.errors import ReloadFailed, TaskFailed
from grym_nb.events import ServiceReloaded
from grym_nb.services import ServiceHandle, ServiceRegistry
from tests.services.crowd import Gates, outcome, start
from tests.services.reload.files import Edited
from tests.services.reload.test_reached import Notebook

DEEP = """
    FACTOR = 2

    def deep(x):
        return x * FACTOR
"""
HELPER = """
    import deep

    SIZE = 3

    def scale(x):
        return deep.deep(x)

    def size():
        return SIZE

    def other(x):
        return x
"""
CELL = """
{imports}
from grym_nb.services import ModelService, task

def through(x):
    return {scale}(x)

class S(ModelService):
    def load(self):
        self.weights = [0] * {size}()
    @task
    def ask(self, x=1):
        return through(x)
    @task
    def twice(self, gate):
        first = through(1)
        gate()
        return first, through(1)
    @task
    def each(self):
        yield through(1)
        yield through(1)
    @task
    async def later(self, gate):
        import asyncio
        first = through(1)
        await asyncio.get_running_loop().run_in_executor(None, gate)
        return first, through(1)
"""
BY_MODULE = CELL.format(imports="import helper", scale="helper.scale", size="helper.size")
BY_NAME = CELL.format(imports="from helper import scale, size", scale="scale", size="size")


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch, registry: ServiceRegistry, edited: Edited) -> Notebook:
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    edited.start(deep=DEEP, helper=HELPER)
    return Notebook(registry)


def weights(service: ServiceHandle) -> Any:
    with service.use() as model:
        return model.weights


@pytest.mark.parametrize("cell", [BY_MODULE, BY_NAME], ids=["by module", "by name"])
@pytest.mark.parametrize("module", ["helper", "deep"])
def test_an_edit_of_a_helper_reaches_the_cell(
    notebook: Notebook, edited: Edited, cell: str, module: str
) -> None:
    service = notebook.register(cell)
    assert service.ask(1) == 2
    there = weights(service)
    changes = {"helper": ("deep.deep(x)", "deep.deep(x) + 10"), "deep": ("FACTOR = 2", "FACTOR = 12")}
    edited.edit(module, changes[module])
    report = service.reload()
    assert (report.how, report.after, service.ask(1)) == ("in place", "v2", 12)
    assert weights(service) is there
    assert any("bound anew in the notebook" in note for note in report.notes) == (cell is BY_NAME)
    assert str(edited.path(module)) in report.sources


def test_what_it_does_not_name_is_no_edit_of_it(notebook: Notebook, edited: Edited) -> None:
    service = notebook.register(BY_MODULE)
    service.ask(1)
    edited.edit("helper", ("    return x\n", "    return -x\n"))
    report = service.reload()
    assert (report.how, report.why) == ("unchanged", "nothing that it uses has changed")
    assert service.version == "v1" and notebook.names["helper"].other(1) == -1


@pytest.mark.parametrize(
    ("change", "why"),
    [(("deep.deep(x)", "deep.deep(x"), "SyntaxError"), (("deep.deep(x)", "deep.deep(y)"), "NameError")],
)
def test_an_edit_that_fails_is_refused(
    notebook: Notebook, edited: Edited, change: tuple[str, str], why: str
) -> None:
    service = notebook.register(BY_MODULE)
    assert service.ask(1) == 2
    edited.edit("helper", change)
    with pytest.raises(ReloadFailed, match=why):
        service.reload()
    assert (service.ask(1), service.version, notebook.names["helper"].scale(1)) == (2, "v1", 2)


def test_a_call_that_fails_later_is_answered_by_the_helpers_of_before(
    notebook: Notebook, edited: Edited
) -> None:
    service = notebook.register(BY_MODULE)
    service.ask(1)
    edited.edit("helper", ("return deep.deep(x)", "return 1 / (x - 5) + 100"))
    service.reload()
    assert service.ask(1) == 99.75
    assert service.ask(5) == 10 and service.version == "v1"
    assert service.ask(1) == 2 and notebook.names["helper"].scale(1) == 99.75
    edited.edit("helper", ("x - 5", "x + 5"))
    service.reload()
    assert service.ask(5) == 100.1


@pytest.mark.parametrize("cell", [BY_MODULE, BY_NAME], ids=["by module", "by name"])
def test_an_edit_that_fails_at_every_call_is_refused(notebook: Notebook, edited: Edited, cell: str) -> None:
    service = notebook.register(cell)
    assert service.ask(1) == 2
    there, names = weights(service), dict(notebook.names)
    edited.edit("helper", ("return deep.deep(x)", "raise OSError('no')"))
    with pytest.raises(ReloadFailed, match=r"ask, called as before, raised OSError: no \(.*helper\.py:7\)"):
        service.reload()
    assert (service.ask(1), service.version) == (2, "v1") and weights(service) is there
    assert notebook.names == names
    edited.edit("helper", ("raise OSError('no')", "return x + 5"))
    assert (service.reload().how, service.ask(1), service.version) == ("in place", 6, "v2")


@pytest.mark.parametrize("cell", [BY_MODULE, BY_NAME], ids=["by module", "by name"])
def test_one_that_fails_at_a_rare_call_is_taken_back(notebook: Notebook, edited: Edited, cell: str) -> None:
    service = notebook.register(cell)
    service.ask(1)
    edited.edit("helper", ("return deep.deep(x)", "return deep.deep(x) + 1"))
    service.reload()
    edited.edit("helper", ("deep.deep(x) + 1", "1 / (x - 5) + 100"))
    service.reload()
    assert service.ask(1) == 99.75
    assert service.ask(5) == 11 and service.version == "v2"
    assert service.ask(1) == 3
    with pytest.raises(TaskFailed, match="TypeError"):
        service.ask(None)
    assert service.version == "v2" and service.ask(1) == 3
    service.rollback()
    assert (service.ask(1), service.version) == (2, "v1")
    edited.edit("helper", ("x - 5", "x + 5"))
    assert (service.reload().how, service.ask(5)) == ("in place", 100.1)


def test_an_input_that_no_version_answers_leaves_the_names_as_they_are(
    notebook: Notebook, edited: Edited
) -> None:
    service = notebook.register(BY_NAME)
    service.ask(1)
    edited.edit("deep", ("FACTOR = 2", "FACTOR = 3"))
    service.reload()
    names = dict(notebook.names)
    with pytest.raises(TaskFailed, match="TypeError"):
        service.ask(None)
    assert (service.version, service.ask(1)) == ("v2", 3) and notebook.names == names


def test_what_the_notebook_calls_meanwhile_is_no_code_that_is_being_tried(
    notebook: Notebook, edited: Edited
) -> None:
    service = notebook.register(BY_NAME)
    service.ask(1)
    trying, called = threading.Event(), threading.Event()
    notebook.names["helper_trying"] = sys.modules["helper"].meeting = (trying, called)  # type: ignore[attr-defined]
    edited.edit(
        "helper",
        (
            "return deep.deep(x)",
            "import helper; helper.meeting[0].set(); helper.meeting[1].wait(1.0); raise OSError(x)",
        ),
    )
    reloading = start(service.reload)
    assert trying.wait(10.0)
    assert notebook.names["scale"](4) == 8 and service.ask(5) == 10  # while the trial is in the new `scale`
    called.set()
    assert isinstance(outcome(reloading), ReloadFailed)
    assert notebook.names["scale"](4) == 8


def test_a_version_of_before_is_loaded_with_the_names_of_its_time(notebook: Notebook, edited: Edited) -> None:
    service = notebook.register(BY_NAME)
    assert len(weights(service)) == 3
    edited.edit("helper", ("SIZE = 3", "SIZE = 4"))
    assert service.reload().how == "loaded" and len(weights(service)) == 4
    service.rollback()
    assert (len(weights(service)), service.version) == (3, "v1")


def test_names_are_as_they_were_where_the_load_fails(notebook: Notebook, edited: Edited) -> None:
    service = notebook.register(BY_NAME)
    there = weights(service)
    edited.edit("helper", ("return SIZE", "raise OSError('no room')"))
    with pytest.raises(ReloadFailed, match="no room"):
        service.reload()
    assert weights(service) is there and notebook.names["size"]() == 3


BOX = "class Box:\n    def get(self, x):\n        return x\n"
OF_BOX = """
from boxes import Box
from grym_nb.services import ModelService, task

class S(ModelService):
    def load(self):
        self.box = Box()
    @task
    def ask(self, x=1):
        return self.box.get(x), Box().get(x), isinstance(self.box, Box)
"""


def test_a_class_that_the_notebook_has_by_name_is_taken_back_by_the_first_call_that_fails(
    notebook: Notebook, edited: Edited
) -> None:
    """It would be the newer one to all calls while it is tried: so it is not."""
    edited.start(boxes=BOX)
    service = notebook.register(OF_BOX)
    assert service.ask(1) == (1, 1, True)
    was = notebook.names["Box"]
    edited.edit("boxes", ("return x", "raise OSError(x)"))
    report = service.reload()
    assert "not tried on its last calls: the notebook has Box by name, for all calls" in report.notes
    assert service.ask(1) == (1, 1, True) and service.version == "v1" and notebook.names["Box"] is was
    edited.edit("boxes", ("raise OSError(x)", "return 1 / (x - 5)"))
    assert service.reload().how == "in place"
    assert service.ask(6) == (1.0, 1.0, True) and notebook.names["Box"] is not was
    assert service.ask(5) == (5, 5, True)
    assert notebook.names["Box"] is was and service.ask(6) == (6, 6, True)


def test_what_load_keeps_of_a_name_is_the_newer_function(notebook: Notebook, edited: Edited) -> None:
    cell = BY_NAME.replace("self.weights = [0] * size()", "self.weights = [scale(1)]; self.kept = scale")
    service = notebook.register(cell.replace("return through(x)", "return through(x), self.kept(x)", 2))
    assert service.ask(1) == (2, 2) and weights(service) == [2]
    edited.edit("helper", ("deep.deep(x)", "deep.deep(x) * 10"))
    assert service.reload().how == "loaded"
    assert service.ask(1) == (20, 20) and weights(service) == [20]
    with service.use() as model:
        assert model.kept(1) == 20
    notebook.run("from helper import scale")
    edited.edit("helper", ("deep.deep(x) * 10", "deep.deep(x) * 10 + 0 * len([x])"))
    edited.edit("deep", ("FACTOR = 2", "FACTOR = 3"))
    service.reload()
    assert service.ask(1) == (30, 30)


def test_calls_that_are_split_have_each_their_helper(notebook: Notebook, edited: Edited) -> None:
    service = notebook.register(BY_NAME)
    service.ask(1)
    edited.edit("helper", ("deep.deep(x)", "-deep.deep(x)"))
    service.reload(share=0.5)
    assert sorted(service.ask(1) for _ in range(10)) == [-2] * 5 + [2] * 5


def test_each_version_has_by_name_what_it_had_at_its_time(notebook: Notebook, edited: Edited) -> None:
    service = notebook.register(BY_NAME)
    service.ask(1)
    for factor in (3, 4):
        edited.edit("deep", (f"FACTOR = {factor - 1}", f"FACTOR = {factor}"))
        service.reload()
    assert [service.at(version).ask(1) for version in ("v1", "v2", "v3")] == [2, 3, 4]
    scale = notebook.names["scale"]
    assert scale(1) == 4 and pickle.loads(pickle.dumps(scale)) is sys.modules["helper"].scale
    assert inspect.getsource(scale) == inspect.getsource(sys.modules["helper"].scale)
    service.unload()
    edited.edit("deep", ("FACTOR = 4", "FACTOR = 5"))
    service.reload()
    assert service.ask(1) == 5


def test_who_goes_back_takes_no_other_with_it(
    notebook: Notebook, edited: Edited, registry: ServiceRegistry
) -> None:
    """Not one that was edited again since, nor one that came later."""
    one = notebook.register(BY_NAME)
    notebook.run(
        BY_NAME.replace("class S", "class T").replace("return through(x)", "return through(x), other(x)")
    )
    notebook.run("from helper import other")
    two = registry.register("two", notebook.names["T"])
    assert (one.ask(1), two.ask(1)) == (2, (2, 1))
    edited.edit("helper", ("return deep.deep(x)", "return deep.deep(x) * 100"))
    one.reload()
    edited.edit("helper", ("    return x\n", "    return x + 6\n"))
    two.reload()
    three = registry.register("three", notebook.names["T"])
    assert (one.ask(1), two.ask(1), three.ask(1)) == (200, (200, 7), (200, 7))
    one.rollback()
    assert (one.ask(1), two.ask(1), three.ask(1)) == (2, (200, 7), (200, 7))


@pytest.mark.parametrize("cell", [BY_MODULE, BY_NAME], ids=["by module", "by name"])
def test_calls_under_way_end_with_the_helpers_with_which_they_began(
    notebook: Notebook, edited: Edited, registry: ServiceRegistry, cell: str
) -> None:
    notebook.run(cell)
    service = registry.register("service", notebook.names["S"], concurrency=3)
    service.ask(1)
    gates = Gates()

    def gate(name: str) -> None:
        gates.tell(name)
        gates.wait("edited")

    calls = [
        start(lambda: service.twice(lambda: gate("plain"))),
        start(lambda: service.later(lambda: gate("async"))),
    ]
    stream = service.each()
    assert next(stream) == 2
    gates.wait("plain"), gates.wait("async")
    edited.edit("deep", ("FACTOR = 2", "FACTOR = 3"))
    try:
        report = service.reload()
    finally:
        gates.tell("edited")
    assert report.under_way == 3
    assert [call.result(10.0) for call in calls] == [(2, 2), (2, 2)] and next(stream) == 2
    stream.close()
    assert service.twice(lambda: None) == (3, 3) and list(service.each()) == [3, 3]


def test_versions_beside_one_another_have_their_helpers(notebook: Notebook, edited: Edited) -> None:
    service = notebook.register(BY_MODULE)
    service.ask(1)
    for factor in (3, 4):
        edited.edit("deep", (f"FACTOR = {factor - 1}", f"FACTOR = {factor}"))
        service.reload()
    assert [service.at(version).ask(1) for version in ("v1", "v2", "v3")] == [2, 3, 4]
    service.rollback()
    assert service.ask(1) == 3
    edited.edit("deep", ("FACTOR = 4", "FACTOR = 5"))
    service.reload()
    assert [service.at(version).ask(1) for version in ("v1", "v2", "v4")] == [2, 3, 5] and service.ask(1) == 5


@pytest.mark.parametrize("cell", [BY_MODULE, BY_NAME], ids=["by module", "by name"])
def test_what_load_uses_of_a_helper_is_loaded_anew(notebook: Notebook, edited: Edited, cell: str) -> None:
    service = notebook.register(cell)
    assert len(weights(service)) == 3
    edited.edit("helper", ("SIZE = 3", "SIZE = 4"))
    assert service.reload().how == "loaded"
    assert len(weights(service)) == 4


def test_a_name_that_stands_for_something_else_by_now_is_left_alone(
    notebook: Notebook, edited: Edited
) -> None:
    service = notebook.register(BY_NAME)
    service.ask(1)
    notebook.names["scale"] = own = str
    edited.edit("helper", ("deep.deep(x)", "-deep.deep(x)"))
    service.reload()
    assert service.ask(1) == "1" and notebook.names["scale"] is own


def test_a_cell_that_is_run_again_after_an_edit_of_a_helper_is_unchanged(
    notebook: Notebook, edited: Edited, registry: ServiceRegistry
) -> None:
    service = notebook.register(BY_MODULE)
    service.ask(1)
    edited.edit("deep", ("FACTOR = 2", "FACTOR = 3"))
    service.reload()
    assert notebook.register(BY_MODULE).version == "v2"
    assert service.ask(1) == 3
    assert notebook.register(BY_MODULE.replace("return through(x)", "return -through(x)")).version == "v3"
    assert [service.at(version).ask(1) for version in ("v1", "v2", "v3")] == [2, 3, -3]


def test_a_helper_that_is_saved_is_in_force(
    notebook: Notebook, edited: Edited, registry: ServiceRegistry
) -> None:
    gates = Gates()
    registry.ports.events.subscribe(
        lambda event: gates[f"{event.how} {event.version}"].set(), ServiceReloaded
    )
    service = notebook.register(BY_MODULE)
    service.ask(1)
    assert registry.watching.on().files == 2
    try:
        edited.edit("deep", ("FACTOR = 2", "FACTOR = 3"))
        gates.wait("in place v2")
        assert service.ask(1) == 3
    finally:
        registry.watching.off()


def test_a_cell_and_a_file_get_a_helper_together_or_not_at_all(
    notebook: Notebook, edited: Edited, registry: ServiceRegistry
) -> None:
    module = edited.start(
        filed="""
            from grym_nb.services import ModelService, task
            import helper

            class Filed(ModelService):
                @task
                def ask(self, x):
                    return helper.scale(x)
        """
    )
    cell, filed = notebook.register(BY_MODULE), registry.register("filed", module.Filed)
    assert (cell.ask(1), filed.ask("a")) == (2, "aa")
    edited.edit("helper", ("deep.deep(x)", "deep.deep(x) + 1"))
    with pytest.raises(ReloadFailed, match="filed's ask"):
        cell.reload()
    assert (cell.ask(1), filed.ask("a"), cell.version) == (2, "aa", "v1")
    edited.edit("helper", ("deep.deep(x) + 1", "deep.deep(x) * 2"))
    cell.reload()
    assert (cell.ask(1), filed.ask("a"), cell.version, filed.version) == (4, "aaaa", "v2", "v2")


def test_where_no_version_answers_the_input_is_at_fault(notebook: Notebook, edited: Edited) -> None:
    service = notebook.register(BY_MODULE)
    service.ask(1)
    edited.edit("deep", ("FACTOR = 2", "FACTOR = 3"))
    service.reload()
    with pytest.raises(TaskFailed, match="TypeError"):
        service.ask(None)
    assert service.version == "v2" and service.ask(1) == 3


def test_a_version_of_before_is_loaded_with_its_helpers(notebook: Notebook, edited: Edited) -> None:
    service = notebook.register(BY_MODULE)
    assert (service.ask(1), len(weights(service))) == (2, 3)
    edited.edit("deep", ("FACTOR = 2", "FACTOR = 3"))
    service.reload()
    service.rollback()
    edited.edit("helper", ("SIZE = 3", "SIZE = 4"))
    service.unload()
    assert (service.ask(1), len(weights(service)), service.version) == (2, 3, "v1")
    service.reload()
    assert (service.ask(1), len(weights(service)), service.version) == (3, 4, "v3")


def test_what_is_edited_while_nothing_is_loaded_is_loaded_by_the_next_call(
    notebook: Notebook, edited: Edited
) -> None:
    service = notebook.register(BY_MODULE)
    edited.edit("helper", ("SIZE = 3", "SIZE = 4"))
    assert service.reload().how == "at load"
    assert (len(weights(service)), service.version) == (4, "v2")


def test_a_base_that_was_edited_is_said_to_wait_for_the_cell(notebook: Notebook, edited: Edited) -> None:
    edited.start(
        based="""
            from grym_nb.services import ModelService, task

            class Based(ModelService):
                @task
                def ask(self, x):
                    return x
        """
    )
    cell = "import based\nclass S(based.Based):\n    def load(self):\n        self.weights = [1]\n"
    service = notebook.register(cell)
    there = weights(service)
    edited.edit("based", ("return x", "return -x"))
    report = service.reload()
    assert "S: has its base as it was, until its cell is run again" in report.notes
    assert service.ask(1) == 1
    assert notebook.register(cell).ask(1) == -1 and weights(service) is there


def test_an_edit_of_a_cell_that_fails_is_refused(notebook: Notebook, edited: Edited) -> None:
    service = notebook.register(BY_MODULE)
    assert service.ask(1) == 2
    there = weights(service)
    for now, why in (("nobody(x)", "NameError"), ("through(x) + [1]", "TypeError")):
        with pytest.raises(ReloadFailed, match=why):
            notebook.register(BY_MODULE.replace("return through(x)", f"return {now}"))
        assert (service.ask(1), service.version) == (2, "v1") and weights(service) is there


def test_versions_of_helpers_that_nobody_has_are_let_go_of(
    notebook: Notebook, edited: Edited, registry: ServiceRegistry
) -> None:
    service = notebook.register(BY_NAME)
    service.ask(1)
    seen = []
    for factor in range(3, 20):
        edited.edit("deep", (f"FACTOR = {factor - 1}", f"FACTOR = {factor}"))
        service.reload()
        assert service.ask(1) == factor
        seen.append(weakref.ref(registry.codebase.versions.newest.modules["deep"]))
    gc.collect()
    kept = registry.ports.settings.versions_kept
    assert [ref() is None for ref in seen] == [True] * (len(seen) - kept) + [False] * kept


@pytest.mark.parametrize("cell", [BY_MODULE, BY_NAME], ids=["by module", "by name"])
def test_two_cells_on_one_helper_get_it_together(
    notebook: Notebook, edited: Edited, registry: ServiceRegistry, cell: str
) -> None:
    one = notebook.register(cell)
    notebook.run(cell.replace("class S", "class T"))
    other = registry.register("other", notebook.names["T"])
    assert (one.ask(1), other.ask(1)) == (2, 2)
    edited.edit("deep", ("FACTOR = 2", "FACTOR = 3"))
    one.reload()
    assert (one.ask(1), other.ask(1), one.version, other.version) == (3, 3, "v2", "v2")
    one.rollback()
    assert (one.ask(1), other.ask(1)) == (2, 3)
    edited.edit("deep", ("FACTOR = 3", "FACTOR = 4"))
    one.reload()
    assert (one.ask(1), other.ask(1), one.version, other.version) == (4, 4, "v3", "v3")
    for service in (one, other):
        service.rollback()
    assert (one.ask(1), other.ask(1)) == (2, 3)


def test_calls_under_way_go_on_as_they_began_where_the_service_goes_back(
    notebook: Notebook, edited: Edited
) -> None:
    service = notebook.register(BY_NAME)
    service.ask(1)
    edited.edit("deep", ("FACTOR = 2", "FACTOR = 3"))
    service.reload()
    stream = service.each()
    assert next(stream) == 3
    service.rollback()
    assert next(stream) == 3
    stream.close()
    assert service.ask(1) == 2 and list(service.each()) == [2, 2]


def test_a_helper_in_a_package_that_imports_relatively(
    notebook: Notebook, edited: Edited, registry: ServiceRegistry
) -> None:
    edited.write("kit/__init__", "from .tools import scale")
    edited.write("kit/tools", "from . import numbers\ndef scale(x):\n    return x * numbers.N")
    edited.write("kit/numbers", "N = 2")
    service = notebook.register(CELL.format(imports="import kit", scale="kit.scale", size="(lambda: 1)"))
    assert service.ask(1) == 2
    edited.edit("kit/numbers", ("N = 2", "N = 3"))
    assert (service.reload().how, service.ask(1)) == ("in place", 3)
    edited.edit("kit/tools", ("x * numbers.N", "-x * numbers.N"))
    assert (service.reload().how, service.ask(1), service.at("v1").ask(1)) == ("in place", -3, 2)
    edited.path("kit/numbers").unlink()
    edited.edit("kit/tools", ("-x", "+x"))
    with pytest.raises(ReloadFailed, match=r"numbers\.py cannot be read"):
        service.reload()
    assert service.ask(1) == -3


def test_an_object_of_a_helpers_class_in_the_state_is_of_the_new_class(
    notebook: Notebook, edited: Edited
) -> None:
    edited.write("boxes", "class Box:\n    n = 1\n    def get(self):\n        return self.n")
    notebook.run("import boxes")
    service = notebook.register(
        CELL.format(imports="import boxes", scale="(lambda x: x)", size="(lambda: 1)")
        .replace("self.weights =", "self.box = boxes.Box(); self.weights =")
        .replace("return through(x)", "return self.box.get() + x, isinstance(self.box, boxes.Box)")
    )
    assert service.ask(1) == (2, True)
    there = weights(service)
    edited.edit("boxes", ("return self.n", "return self.n + 10"))
    report = service.reload()
    assert (report.how, service.ask(1)) == ("in place", (12, True)) and weights(service) is there
    assert service.at("v1").ask(1) == (2, True)


def test_calls_without_pause_see_one_edit_each(
    notebook: Notebook, edited: Edited, registry: ServiceRegistry
) -> None:
    """Whatever is edited: none fails, and none has helpers of two edits, in its own thread or on the loop."""
    rounds, stop = (100 if os.environ.get("GRYM_FULL") == "1" else 20), threading.Event()
    notebook.run(
        BY_MODULE.replace("return first, through(1)", "return first, helper.scale(1), through(1)").replace(
            "first = through(1)\n", "first = through(1); helper.other(gate)\n"
        )
    )
    service = registry.register("service", notebook.names["S"], concurrency=4)
    service.ask(1)
    said: list[Any] = []
    wrong: list[BaseException] = []

    def call(way: str) -> None:
        while not stop.is_set():
            try:
                answer = service.ask(7) if way == "ask" else getattr(service, way)(lambda: None)
                said.append(answer)
            except Exception as error:
                wrong.append(error)

    running = [start(call, way) for way in ("ask", "twice", "later", "twice")]
    rng, hows = random.Random(4), Counter[str]()
    try:
        for n in range(3, 3 + rounds):
            text = f"FACTOR = {n}\n\ndef deep(x):\n    return x * FACTOR\n"
            kind = rng.choice(["good", "good", "syntax", "name", "rare"])
            text = {
                "good": text,
                "syntax": text + "def half(",
                "name": text.replace("x * FACTOR", "x * FACTORS"),
                "rare": text.replace("    return", "    assert x != 7\n    return"),
            }[kind]
            edited.path("deep").write_text(text)
            try:
                hows[f"{kind} {service.reload().how}"] += 1
            except ReloadFailed:
                hows[f"{kind} refused"] += 1
    finally:
        stop.set()
        done = [outcome(one) for one in running]
    assert done == [None] * 4 and wrong == [], (done, wrong[:1])
    assert [one for one in said if isinstance(one, tuple) and len(set(one)) > 1] == []
    assert len(said) > rounds and hows["good in place"] > 1, hows
    edited.path("deep").write_text("def deep(x):\n    return x * 1000\n")
    service.reload()
    assert service.ask(1) == 1000


def test_no_call_fails_while_what_the_notebook_has_by_name_is_edited(
    notebook: Notebook, edited: Edited, registry: ServiceRegistry
) -> None:
    """Edits that fail at every call are tried, others fail at a rare one: none of it is anybody's answer."""
    rounds, stop = (100 if os.environ.get("GRYM_FULL") == "1" else 20), threading.Event()
    notebook.run(BY_NAME)
    service = registry.register("service", notebook.names["S"], concurrency=4)
    service.ask(1)
    said: list[Any] = []
    wrong: list[BaseException] = []

    def call(x: int) -> None:
        while not stop.is_set():
            try:
                said.append(service.ask(x) / x)
            except Exception as error:
                wrong.append(error)

    running = [start(call, x) for x in (1, 2, 7, 7)]
    rng, hows = random.Random(5), Counter[str]()
    try:
        for n in range(3, 3 + rounds):
            text = f"FACTOR = {n}\n\ndef deep(x):\n    return x * FACTOR\n"
            kind = rng.choice(["good", "every", "rare"])
            bad = {"good": "", "every": "    raise OSError(x)\n", "rare": "    assert x != 7\n"}[kind]
            edited.path("deep").write_text(text.replace("    return", bad + "    return"))
            try:
                hows[f"{kind} {service.reload().how}"] += 1
            except ReloadFailed:
                hows[f"{kind} refused"] += 1
    finally:
        stop.set()
        done = [outcome(one) for one in running]
    assert done == [None] * 4 and wrong == [], (done, wrong[:1])
    assert len(said) > rounds and set(said) <= set(range(2, 3 + rounds)), set(said)
    assert hows["good in place"] and hows["every refused"] and not hows["every in place"], hows
    edited.path("deep").write_text("def deep(x):\n    return x * 1000\n")
    service.reload()
    assert service.ask(1) == 1000
