"""Who holds what was let go of is told by a name that its reader knows, with what lets go of it."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from grym_nb.hardening import holders, storages
from grym_nb.hardening.holders import Holder, Root, holders_of, notebook_roots, survey
from grym_nb.hardening.leftovers import Leftovers
from grym_nb.hardening.remains import Remains
from grym_nb.testing import FakeClock
from tests.services.crowd import Gates, outcome, start

pytestmark = pytest.mark.usefixtures("small_heap")

SIZE = 2_000_000


def made() -> tuple[list[Any], Remains]:
    """Return parts of a model, and what watches over them."""
    parts = [np.ones(SIZE // 2, np.uint8) for _ in range(2)]
    return parts, Remains("model", parts)


def holder(remains: Remains) -> Holder:
    [found] = holders_of(remains, survey(notebook_roots()))
    assert found.size == SIZE
    return found


@pytest.fixture
def plugin() -> Iterator[Any]:
    """A module of the user's."""
    sys.modules["plugin"] = types.ModuleType("plugin")
    sys.modules["plugin"].__spec__ = None  # as `import` leaves it, for what is no package
    try:
        yield sys.modules["plugin"]
    finally:
        del sys.modules["plugin"]


def test_a_class_that_holds_it_is_named_with_the_attribute(plugin: Any) -> None:
    plugin.Cfg = type("Cfg", (), {"__module__": "plugin"})
    plugin.Cfg.cached, remains = made()
    found = holder(remains)
    assert (found.name, found.hint) == ("plugin.Cfg.cached", "del plugin.Cfg.cached")
    plugin.Cfg.Inner = type("Inner", (), {"__module__": "plugin", "__qualname__": "Cfg.Inner"})
    plugin.Cfg.Inner.kept = {"deep": [plugin.Cfg.cached]}
    del plugin.Cfg.cached
    assert holder(remains).name == "plugin.Cfg.Inner.kept"


def test_a_class_that_nobody_can_reach_by_its_name_is_named_all_the_same() -> None:
    class Local:
        kept: Any = None

    Local.kept, remains = made()
    found = holder(remains)
    assert found.name.endswith("<locals>.Local.kept") and "kept" in found.hint


def test_the_class_of_an_object_that_holds_it_is_not_blamed(plugin: Any) -> None:
    plugin.Cfg = type("Cfg", (), {"__module__": "plugin"})
    plugin.cfg = plugin.Cfg()
    plugin.cfg.cached, remains = made()
    assert holder(remains).name == "plugin.cfg"


def test_a_context_variable_is_named_and_not_the_task_in_whose_context_it_is(plugin: Any) -> None:
    plugin.var = contextvars.ContextVar("weights")

    async def run() -> Holder:
        parts, remains = made()
        plugin.var.set(parts)
        del parts
        return holder(remains)

    found = asyncio.run(run())
    assert found.name == "the context variable 'weights' (plugin.var)"
    assert found.hint == "plugin.var.set(None);"


def test_what_is_kept_for_a_thread_is_named(plugin: Any) -> None:
    plugin.local = threading.local()
    plugin.local.kept, remains = made()
    found = holder(remains)
    assert (found.name, found.hint) == ("plugin.local", "del plugin.local.kept")


def test_what_lets_go_of_it_is_said_by_what_holds_it(plugin: Any) -> None:
    @functools.lru_cache
    def cached() -> tuple[list[Any], Remains]:
        return made()

    plugin.cached = cached
    remains = cached()[1]
    assert (holder(remains).name, holder(remains).hint) == ("plugin.cached", "plugin.cached.cache_clear()")
    cached.cache_clear()
    assert not remains.alive()
    plugin.cache, remains = made()
    assert (holder(remains).name, holder(remains).hint) == ("plugin.cache", "del plugin.cache")
    del plugin.cache
    assert not remains.alive()


def test_a_task_that_waits_is_cancelled_and_one_that_is_done_is_forgotten(plugin: Any) -> None:
    async def run() -> tuple[Holder, Holder]:
        began = asyncio.Event()

        async def wait(parts: Any) -> Any:
            began.set()
            await asyncio.Event().wait()

        parts, remains = made()
        plugin.task = asyncio.create_task(wait(parts))
        del parts
        await began.wait()
        waits = holder(remains)
        plugin.task.cancel()
        await asyncio.wait([plugin.task])
        del plugin.task
        gc.collect()
        assert not remains.alive()

        async def give(it: list[Any]) -> Any:
            return it.pop()

        parts, remains = made()
        plugin.task = asyncio.create_task(give([parts]))
        del parts
        await plugin.task
        return waits, holder(remains)

    waits, done = asyncio.run(run())
    assert (waits.name, waits.hint) == ("plugin.task", "plugin.task.cancel(); del plugin.task")
    assert (done.name, done.hint) == ("plugin.task", "del plugin.task")


def test_of_a_list_of_millions_the_nearest_is_looked_at_and_the_rest_is_found_from_below(
    plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holders, "_MOST_AT_A_ROOT", 100)
    plugin.rows = [{"row": [at]} for at in range(1000)]
    plugin.rows[-1]["kept"], remains = made()
    rows = Root("the variable rows", (plugin.rows,), None, "del rows")
    [(_, nearest)] = survey([rows])
    assert not nearest
    [found] = holders_of(remains, survey([rows, *notebook_roots()]))
    assert (found.name, found.hint, found.size) == ("plugin.rows", "del plugin.rows", SIZE)
    plugin.rows[:1] = plugin.rows[-1].pop("kept")
    [found] = holders_of(remains, survey([rows]))
    assert (found.name, found.hint) == ("the variable rows", "del rows")


def test_what_a_function_let_go_of_after_it_was_asked_is_held_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(storages, "_is_traced", lambda frame: False)  # by the coverage of this suite
    parts, remains = made()
    assert holder(remains).name == f"the variable parts in {what_runs()}()"
    del parts
    assert not remains.alive()


def test_who_looks_for_holders_leaves_no_frame_of_its_own_behind() -> None:
    gc.collect()
    gc.disable()
    try:
        notebook_roots()
        there = [one.f_code for one in gc.get_objects() if type(one) is types.FrameType]
    finally:
        gc.enable()
    assert holders._threads.__code__ not in there


def test_a_thread_with_a_profiler_of_its_own_keeps_its_variables() -> None:
    """What such a one is called with is written back into the function, without what is missing there."""
    gates, answer = Gates(), list[object]()

    def profiler(frame: types.FrameType, event: str, arg: object) -> None:
        if event == "c_call" and frame.f_code is work.__code__:
            gates.hold()

    def work() -> None:
        sys.setprofile(profiler)
        try:
            word = "kept"
            answer.append(len(word))
            answer.append(word)
        finally:
            sys.setprofile(None)

    running = start(work)
    gates.wait("in")
    list(notebook_roots())
    gates.tell("go")
    outcome(running)
    assert answer == [4, "kept"]


def what_runs() -> str:
    return sys._getframe(1).f_code.co_name


def test_a_module_that_has_parts_under_several_names_is_told_with_each_of_them(plugin: Any) -> None:
    (plugin.encoder, plugin.decoder), remains = made()
    plugin._same = plugin.encoder
    plugin.use = [plugin]  # as a module has at least one thing that the collector knows
    found = holder(remains)
    assert found.name == "plugin.encoder, plugin.decoder"
    assert found.hint == "del plugin.encoder; del plugin.decoder"


class Proxy:
    """Does not like to be asked for its class, as those of a web request that there is none of."""

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("not yours")


def test_variables_that_do_not_like_to_be_asked_for_their_class_stop_no_report(plugin: Any) -> None:
    plugin.proxy = proxy = Proxy()
    proxy.kept, remains = made()
    assert holder(remains).name.startswith("the variable proxy in ")
    del proxy
    assert holder(remains).name == "plugin.proxy"


def test_a_tensor_of_a_class_of_its_own_is_found_where_only_a_module_has_it(plugin: Any) -> None:
    torch = pytest.importorskip("torch")
    kind = type("Int8Params", (torch.nn.Parameter,), {})
    plugin.cached = [torch.zeros(SIZE, dtype=torch.uint8).as_subclass(kind)]
    remains = Remains("model", plugin.cached)
    assert holder(remains).name == "plugin.cached"


def test_an_array_is_found_by_one_that_looks_at_its_memory_and_in_a_dict_of_nothing_else(plugin: Any) -> None:
    made = np.zeros(SIZE, np.uint8)
    remains = Remains("model", made)
    plugin.cached = [made.reshape(2, -1)[:, 1:]]
    del made
    assert holder(remains).name == "plugin.cached"
    plugin.cached = [{"view": plugin.cached[0]}]
    assert holder(remains).name == "plugin.cached"


def test_a_storage_that_gave_back_what_it_had_is_not_left() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.zeros(SIZE, dtype=torch.uint8)
    remains = Remains("model", tensor)
    assert sum(remains.alive().values()) == SIZE
    tensor.untyped_storage().resize_(0)
    assert not remains.alive()


def test_how_much_went_back_lately_is_told_apart_from_what_went_before() -> None:
    clock = FakeClock()
    left = Leftovers(dict, clock)
    for _ in range(2):
        parts, remains = made()
        left.watch_over(remains)
        del parts
        left.left()
        clock.advance(5.0)
    [note] = left.notes()
    assert note.startswith("4.0 MB of model, which nobody holds any more, ")
    assert note.endswith(", 2.0 MB of it 5 s ago")


def test_a_thread_that_holds_it_as_well_is_told_with_what_there_is_to_do() -> None:
    let = threading.Event()
    parts, remains = made()
    thread = threading.Thread(target=lambda held: let.wait(30), args=(parts,))
    thread.start()
    try:
        left = Leftovers(dict, FakeClock())
        left.watch_over(remains)
        [row] = left.table().rows
        assert row[-1] == "del parts; del thread; end what runs in that thread"
    finally:
        let.set()
        thread.join()
