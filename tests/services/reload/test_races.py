"""A reload, and somebody else at the same time; or Ctrl-C in the middle of it."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from textwrap import dedent
from types import SimpleNamespace
from typing import Any

import pytest

from grym_nb.errors import ReloadFailed, TaskFailed
from grym_nb.services import ServiceHandle, ServiceRegistry
from grym_nb.services.reload import smoke, swap
from tests.services.crowd import Gates, all_at_once, apart, outcome, start, until
from tests.services.reload.files import Edited

FULL = os.environ.get("GRYM_FULL") == "1"
RACED = """
    from grym_nb import ModelService, task

    class Raced(ModelService):
        def __init__(self, *, gain=1, gates=None):
            self.gain = gain
            self.gates = gates

        def load(self):
            self.weights = [object()]
            if self.gates is not None:
                self.gates.hold()

        @task("say")
        def say(self, x):
            return x * self.gain, "one"

        @task("several")
        def several(self, x):
            if x:
                yield "one"
            yield x

        @task("later")
        async def later(self, x):
            return x

        @task("batched", batch="items")
        def batched(self, items):
            return [x for x in items]

        @task("act", replay=False)
        def act(self, what):
            return what()

        @task("acts")
        def acts(self, name):
            return None
"""


@pytest.fixture
def raced(edited: Edited, registry: ServiceRegistry) -> ServiceHandle:
    return registry.register("raced", edited.start(raced=RACED).Raced, concurrency=2)


@pytest.mark.parametrize("way", ["plain", "hooks", "back", "loads"])
def test_a_reload_that_is_cut_short_leaves_the_old_code_or_the_new(way: str) -> None:
    left = apart("tests.services.reload.cut", way, "7" if FULL else "53", seconds=600.0)
    assert left["odd"] == [] and left["places"] > 1


@contextmanager
def before(what: str, act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have something done as an edit is about to be put in force, for the first time."""
    put: Any = getattr(swap.Edit, what)
    did: list[object] = []

    def first(self: swap.Edit, *args: Any, **more: Any) -> Any:
        if not did:
            did.append(self)
            did.append(act())
        return put(self, *args, **more)

    monkeypatch.setattr(swap.Edit, what, first)
    yield
    assert did


@pytest.mark.parametrize("came", ["configure", "unload", "load", "register", "rollback", "remove"])
def test_whoever_comes_between_the_new_code_is_in_force(
    came: str,
    edited: Edited,
    registry: ServiceRegistry,
    raced: ServiceHandle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    edited.edit("raced", ('self.gain, "one"', 'self.gain, "two"'))
    if came != "load":
        raced.say(1)
        raced.reload()
        edited.edit("raced", ('self.gain, "two"', 'self.gain, "three"'))
    acts: dict[str, Callable[[], object]] = {
        "configure": lambda: raced.configure(gain=2),
        "unload": raced.unload,
        "load": raced.load,
        "register": lambda: registry.register("raced", raced._record.spec.callable, concurrency=5),
        "rollback": raced.rollback,
        "remove": lambda: registry.remove("raced"),
    }
    with before("put", lambda: outcome(start(acts[came])), monkeypatch):
        raced.reload(force=True)
    if came == "remove":
        assert raced.state == "closed"
        return
    gain = 2 if came == "configure" else 1
    assert raced.say(1) == (gain, "two" if came == "load" else "three")
    assert raced.config.get("gain", 1) == gain
    record = raced._record
    assert record.instance is not None and type(record.instance.model) is record.spec.made_class
    assert record.lane.slots == (5 if came == "register" else 2)
    assert raced.reload().how == "unchanged"


@pytest.mark.parametrize("when", ["tried", "needs_quiet", "put"])
def test_a_model_that_goes_meanwhile_is_no_fault_of_the_new_code(
    when: str, edited: Edited, raced: ServiceHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    raced.say(1)
    edited.edit("raced", ('self.gain, "one"', 'self.gain, "two"'))
    with before(when, lambda: outcome(start(raced.unload)), monkeypatch):
        assert raced.reload().how == "at load"
    assert raced.say(1) == (1, "two")


def test_a_load_under_way_ends_first(edited: Edited, registry: ServiceRegistry) -> None:
    gates = Gates()
    raced = registry.register("raced", edited.start(raced=RACED).Raced, config={"gates": gates})
    loading = start(raced.load)
    gates.wait("in")
    edited.edit("raced", ('self.gain, "one"', 'self.gain, "two"'))
    reloading_ = start(raced.reload)
    until(registry.codebase._turn.locked)
    gates["go"].set()
    assert outcome(loading) is raced and outcome(reloading_).after == "v2"
    assert raced.say(1) == (1, "two") and raced.status().loads == 1


def test_two_who_reload_at_once(edited: Edited, raced: ServiceHandle) -> None:
    raced.say(1)
    for n in range(3):
        edited.write("raced", RACED.replace('"one"', f'"{n}"'))
        hows = sorted(report.how for report in all_at_once(4, lambda _: raced.reload()))
        assert hows == ["in place", "unchanged", "unchanged", "unchanged"] and raced.say(1) == (1, f"{n}")


def test_from_within_another_service(edited: Edited, registry: ServiceRegistry, raced: ServiceHandle) -> None:
    other = registry.register("other", edited.start(other=RACED.replace("Raced", "Other")).Other)
    raced.say(1)
    edited.edit("raced", ('self.gain, "one"', 'self.gain, "two"'))
    assert other.act(raced.reload).how == "in place" and raced.say(1) == (1, "two")


def test_what_is_tried_cannot_reload(edited: Edited, registry: ServiceRegistry, raced: ServiceHandle) -> None:
    other = registry.register("other", edited.start(other=RACED.replace("Raced", "Other")).Other)
    other.load()
    raced.acts("other")
    raced.configure(gates=SimpleNamespace(hold=int, reload=other.reload))
    raced.acts("other")
    edited.edit("raced", ("return None", "self.gates.reload()"))
    with pytest.raises(ReloadFailed, match="cannot be reloaded by code that is being tried"):
        raced.reload()
    assert raced.acts("other") is None and not registry.codebase._turn.locked()


HANGS = "self.gates.frame = current_frame(); self.gates.hold()"


@pytest.fixture
def hanging(
    edited: Edited, registry: ServiceRegistry, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[ServiceHandle, Gates]]:
    """A service with one slot, and gates through which `HANGS` passes: what is tried with it hangs."""
    monkeypatch.setattr(smoke, "_LATE", 0.05)
    text = f"from grym_nb.services.frame import current_frame\n{dedent(RACED)}"
    service = registry.register("hanging", edited.start(raced=text).Raced)
    service.configure(gates=(gates := Gates()))
    gates["go"].set()
    service.acts("x")
    gates["go"].clear(), gates["in"].clear()
    yield service, gates
    gates["go"].set()


def ends_late(service: ServiceHandle, gates: Gates) -> None:
    """Have what hangs end while a call is in the slot that it had: the call keeps it, and then it is free."""
    lane, others = service._record.lane, Gates()
    assert (service._record.users, lane.free) == (0, 1) and outcome(start(service.say, 1))[0] == 1
    call = start(service.act, others.hold)
    others.wait("in")
    gates["go"].set()
    until(lambda: gates.frame.ended)  # type: ignore[attr-defined]
    assert (service._record.users, lane.free) == (1, 0)
    others["go"].set()
    outcome(call)
    assert (service._record.users, lane.free, len(lane.places)) == (0, 1, 1)


@pytest.mark.parametrize("what", ["call", "ping"])
def test_what_does_not_come_to_an_end_is_not_waited_for_and_holds_nothing(
    what: str, edited: Edited, hanging: tuple[ServiceHandle, Gates]
) -> None:
    service, gates = hanging
    if what == "call":
        edited.edit("raced", ("return None", HANGS))
    else:
        edited.edit(
            "raced", ('    @task("acts")', f"    def ping(self):\n        {HANGS}\n\n    @task('acts')")
        )
    report = service.reload()
    assert report.how == "in place" and "it was not done after 0.05 s" in report.notes
    ends_late(service, gates)
    assert service.version == "v2" and len(report.notes) == 1


def test_old_code_that_does_not_come_to_an_end_where_the_new_failed_holds_nothing(
    edited: Edited, hanging: tuple[ServiceHandle, Gates]
) -> None:
    service, gates = hanging
    edited.edit("raced", ("return None", HANGS))
    service.reload(force=True)
    gates["go"].set()
    service.acts("x")
    gates["go"].clear()
    edited.edit("raced", (HANGS, "raise KeyError(name)"))
    with pytest.raises(ReloadFailed, match="acts, called as before, raised KeyError"):
        service.reload()
    assert service.version == "v2"
    ends_late(service, gates)
    assert service._record.tape.calls(), "what was asked to end says nothing about the call"


def test_what_is_tried_holds_nothing_after_ctrl_c(
    edited: Edited,
    hanging: tuple[ServiceHandle, Gates],
    ctrl_c: Callable[[Callable[[], Any]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service, gates = hanging
    monkeypatch.setattr(smoke, "_LATE", 60.0)
    edited.edit("raced", ("return None", HANGS))
    ctrl_c(lambda: gates.wait("in"))
    with pytest.raises(KeyboardInterrupt):
        service.reload()
    assert service.version == "v1"
    ends_late(service, gates)


@pytest.mark.parametrize("way", ["blocking", "submitted", "async", "batched", "streamed"])
def test_new_code_that_raises_is_answered_by_the_old(way: str, edited: Edited, raced: ServiceHandle) -> None:
    raced.load()
    edited.edit(
        "raced",
        ('return x * self.gain, "one"', "raise KeyError(x)"),
        ("async def later(self, x):\n", "async def later(self, x):\n        raise KeyError(x)\n"),
        ("return [x for x in items]", "raise KeyError(items)"),
        ("        if x:\n", "        if x == 1:\n            raise KeyError(x)\n        if x:\n"),
    )
    raced.reload()
    ways: dict[str, Callable[[], object]] = {
        "blocking": lambda: raced.say(1),
        "submitted": lambda: raced.say.submit(1).result(30),
        "async": lambda: raced.later(1),
        "batched": lambda: raced.batched([0, 1, 2]),
        "streamed": lambda: list(raced.several(1)),
    }
    expected = {"blocking": (1, "one"), "submitted": (1, "one"), "async": 1, "batched": [0, 1, 2]}
    assert ways[way]() == expected.get(way, ["one", 1])
    assert raced.version == "v1" and raced._record.reloads[-1].how == "taken back"


def test_a_stream_that_has_yielded_is_not_begun_again(edited: Edited, raced: ServiceHandle) -> None:
    raced.load()
    edited.edit(
        "raced", ('            yield "one"\n', '            yield "two"\n            raise KeyError(x)\n')
    )
    raced.reload()
    stream = iter(raced.several(1))
    assert next(stream) == "two"
    with pytest.raises(TaskFailed, match="KeyError"):
        next(stream)
    assert raced.version == "v2" and raced._record.lane.free == 2


def test_a_call_that_is_kept_keeps_no_code(edited: Edited, raced: ServiceHandle) -> None:
    calls = [raced.say.submit(1)]
    calls[0].result(30)
    assert raced._record.instance is not None
    old = weakref.ref(type(raced._record.instance.model))
    for n in range(8):
        edited.write("raced", RACED.replace('"one"', f'"{n}"'))
        raced.reload()
        if n == 0:
            assert raced._record.instance is not None
            old = weakref.ref(type(raced._record.instance.model))
        calls.append(raced.say.submit(1))
        assert calls[-1].result(30) == (1, f"{n}")
    gc.collect()
    assert old() is None and len(calls) == 9


def test_a_version_that_was_taken_back_to_goes_as_others_do(edited: Edited, raced: ServiceHandle) -> None:
    raced.say(1)
    for n in range(12):
        edited.write("raced", RACED.replace('"one"', f'"{n}"'))
        raced.reload(), raced.rollback()
    edited.write("raced", RACED.replace('"one"', '"last"'))
    raced.reload()
    record = raced._record
    assert min(record.specs) > record.newest - record.ports.settings.versions_kept
    assert raced.say(1) == (1, "last")


def test_what_came_of_reloads_is_read_as_another_one_ends(edited: Edited, raced: ServiceHandle) -> None:
    raced.say(1)
    for n in range(3):
        edited.write("raced", RACED.replace('"one"', f'"{n}"'))
        raced.reload()
    told = reversed(raced._record.reloads)
    assert next(told).after == "v4"
    raced.rollback()
    assert [one.after for one in told] == ["v3", "v2"]


def test_a_tape_that_was_read_is_as_it_was(edited: Edited, raced: ServiceHandle) -> None:
    raced.say(1)
    tape = raced._record.tape
    kept = iter(tape.calls())
    tape.due.clear()
    raced.say(2)
    assert [one.args for one in kept] == [(1,)] and [one.args for one in tape.calls()] == [(2,), (1,)]
    for taped in tape.calls():
        tape.drop(taped), tape.drop(taped)
    assert tape.calls() == () and tape.size == 0


def test_versions_are_read_as_another_one_comes(edited: Edited, raced: ServiceHandle) -> None:
    raced.say(1)
    numbers = iter(raced._record.specs)
    assert next(numbers) == 1
    edited.write("raced", RACED.replace('"one"', '"two"'))
    raced.reload()
    assert list(numbers) == [] and list(raced._record.specs) == [1, 2]
