"""What went wrong, as text: the user's frames and the shapes in them, and not one live frame kept."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import traceback
import weakref
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest

from grym_nb.errors import CheckpointError, GrymError, LoadFailed, TaskFailed, ValidationError
from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, Task, task
from grym_nb.services.failure import Failure, LastFailure, Site, describe, sites_of
from grym_nb.testing import FakeClock
from tests.services.crowd import WAIT, outcome, start

SECRET = "sk-very-secret"


@pytest.fixture(autouse=True, scope="module")
def _only_what_is_new() -> Iterator[None]:
    """Let the collector look at what these tests make, and not each time at all that was imported."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def raised(fail: Callable[[], Any]) -> BaseException:
    """Return what `fail` raises."""
    try:
        fail()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


# -- sites -----------------------------------------------------------------------------------------


def inner(clip: Any, gain: float) -> None:
    """Fail with some locals."""
    frames = np.zeros((4, 80), np.float32)
    names = ["a", "b"]
    raise ValueError(f"{len(frames)} {names} {gain}")


def outer(clip: Any) -> None:
    """Call what fails."""
    inner(clip, gain=0.5)


def test_a_site_says_where_the_line_and_the_shapes_of_the_locals() -> None:
    """Outermost first; arrays are told by dtype and shape."""
    error = raised(lambda: outer(np.zeros(9)))
    sites = sites_of(error.__traceback__)
    assert [site.function for site in sites] == ["raised", "<lambda>", "outer", "inner"]
    last = sites[-1]
    assert last.code == 'raise ValueError(f"{len(frames)} {names} {gain}")'
    assert dict(last.values) == {
        "clip": "ndarray float64 (9,)",
        "gain": "0.5",
        "frames": "ndarray float32 (4, 80)",
        "names": "['a', 'b']",
    }
    assert last.file == os.path.relpath(__file__)
    assert str(last) == f"{last.file}:{last.line} in inner: {last.code}"
    assert last.text().splitlines() == [
        f"{last.file}:{last.line} in inner",
        f"    {last.code}",
        *(f"        {name} = {value}" for name, value in last.values.items()),
    ]


def test_frames_of_libraries_and_of_ours_are_left_out() -> None:
    """The standard library's and installed packages' lines help nobody find their mistake."""

    class Odd:
        def __len__(self) -> int:
            raise RuntimeError("from within a library")

    def through_json() -> None:
        json.loads("{", object_hook=lambda found: 1 / 0)

    def through_numpy() -> None:
        np.vectorize(lambda x: 1 / 0)(np.zeros(2))

    def through_us() -> None:
        from grym_nb.services import not_empty
        from grym_nb.services.checks import Check

        Check("x", not_empty().test).test(Odd())

    for fail in (through_json, through_numpy, through_us):
        functions = [site.function for site in sites_of(raised(fail).__traceback__)]
        files = {site.file for site in sites_of(raised(fail).__traceback__)}
        assert files == {os.path.relpath(__file__)}
        assert functions[:2] == ["raised", fail.__name__]
    assert [s.function for s in sites_of(raised(through_numpy).__traceback__)][-1] == "<lambda>"
    assert [s.function for s in sites_of(raised(through_us).__traceback__)][-1] == "__len__"


def test_code_that_is_in_no_file_is_a_site_all_the_same() -> None:
    """A cell, an `exec`: without the line, where nobody has it; a module's names are not its locals."""
    space: dict[str, Any] = {}
    exec(compile("x = 3\ndef f(y):\n    return y / 0\nprobe = f", "<cell>", "exec"), space)
    [*_, last] = sites_of(raised(lambda: space["probe"](1)).__traceback__)
    assert last == Site("<cell>", 3, "f", "", {"y": "1"})
    [*_, top] = sites_of(raised(lambda: exec(compile("z = 1\n1 / 0", "<cell>", "exec"), {})).__traceback__)
    assert top == Site("<cell>", 2, "<module>", "", {})


def test_deep_recursion_keeps_the_innermost_sites() -> None:
    """A thousand equal lines tell nothing."""

    def down(n: int) -> int:
        return down(n - 1) if n else 1 // 0

    sites = sites_of(raised(lambda: down(500)).__traceback__)
    assert len(sites) == 12
    assert sites[-1].values == {"n": "0", "down": sites[-1].values["down"]}


def test_nothing_raised_nothing_told() -> None:
    """No traceback, no sites."""
    assert sites_of(None) == ()


def test_locals_that_cannot_be_shown_do_not_hide_the_failure() -> None:
    """Their repr may raise, or be a novel."""

    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError

    def fail() -> None:
        bad, long, many, shape = Hostile(), "x" * 10**6, list(range(10**5)), {"a": np.zeros(3)}
        raise ValueError(len([bad, long, many, shape]))

    values = sites_of(raised(fail).__traceback__)[-1].values
    assert values["bad"] == "<Hostile, its repr raised RuntimeError>"
    assert (values["many"], len(values["long"])) == ("list of 100000", 60)


def test_secrets_in_locals_and_inputs_are_not_told() -> None:
    """By the names they go by, at any depth; also of what was given by position."""

    def fail(api_key: str, config: Any, plain: str) -> None:
        token, nested = SECRET, {"deep": [{"password": SECRET}]}
        raise ValueError(len([api_key, token, nested, config, plain]))

    error = raised(lambda: fail(SECRET, {"auth_token": SECRET}, "shown"))
    site = sites_of(error.__traceback__)[-1]
    assert SECRET not in site.text()
    assert site.values["plain"] == "'shown'"
    failure = describe(
        error, service="s", task="t", version="v1", args=({"hf_token": SECRET},), kwargs={"secret": SECRET}
    )
    assert SECRET not in failure.text()


def test_a_failure_reads_as_one_text() -> None:
    """What, on which input, and where."""
    error = raised(lambda: outer(np.zeros(9)))
    failure = describe(
        error, service="loud", task="measure", version="v2", args=(np.zeros(9), 3), kwargs={"gain": 0.5}
    )
    assert (failure.error, failure.message) == ("ValueError", "4 ['a', 'b'] 0.5")
    assert failure.inputs == ("ndarray float64 (9,)", "3", "gain=0.5")
    lines = failure.text().splitlines()
    assert lines[:4] == [
        "loud.measure (v2) raised ValueError: 4 ['a', 'b'] 0.5",
        "  input: ndarray float64 (9,)",
        "  input: 3",
        "  input: gain=0.5",
    ]
    assert failure.text().endswith(failure.sites[-1].text())
    with pytest.raises(FrozenInstanceError):
        failure.error = "x"  # type: ignore[misc]


def test_an_error_that_cannot_be_told_is_named_all_the_same() -> None:
    """Its `__str__` may raise, too."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    failure = describe(raised(lambda: outer(1)), service="s", task="t", version="v")
    assert failure.message
    failure = describe(Mute(), service="s", task="t", version="v")
    assert failure.error == "Mute"


# -- the one slot ----------------------------------------------------------------------------------


def kept_failure(service: str) -> tuple[Failure, TracebackType | None]:
    """Return a failure of a service and its live frames."""
    error = raised(lambda: outer(1))
    return describe(error, service=service, task="t", version="v1"), error.__traceback__


def test_the_slot_holds_the_frames_of_the_last_failure_only() -> None:
    """The next one takes its place; letting go keeps the text."""
    slot = LastFailure()
    assert (slot.failure, slot.traceback) == (None, None)
    first, frames = kept_failure("a")
    slot.keep(first, frames)
    assert (slot.failure, slot.traceback) == (first, frames)
    second, others = kept_failure("b")
    slot.keep(second, others)
    assert (slot.failure, slot.traceback) == (second, others)
    slot.clear("a")
    assert slot.traceback is others
    slot.clear("b")
    assert (slot.failure, slot.traceback) == (second, None)
    slot.keep(first, frames)
    slot.clear()
    slot.clear()
    assert (slot.failure, slot.traceback) == (first, None)


# -- through a service -----------------------------------------------------------------------------


class Heavy:
    """Stands for a tensor: what must not be kept alive."""


class Breaks(ModelService):
    """Fails in every way, with a heavy local in the frame."""

    def __init__(self, *, fail_load: bool = False) -> None:
        self.fail_load = fail_load
        self.refs: list[Any] = REFS

    def load(self) -> None:
        heavy = Heavy()
        self.refs.append(weakref.ref(heavy))
        if self.fail_load:
            raise OSError(f"no weights {type(heavy).__name__}")

    def heavy(self) -> Heavy:
        heavy = Heavy()
        self.refs.append(weakref.ref(heavy))
        return heavy

    @task
    def plain(self, x: Any = None) -> None:
        heavy = self.heavy()
        raise ValueError(f"plain {type(heavy).__name__}")

    @task
    async def later(self, x: Any = None) -> None:
        heavy = self.heavy()
        await asyncio.sleep(0)
        raise ValueError(f"later {type(heavy).__name__}")

    @task
    def parts(self, x: Any = None) -> Iterator[int]:
        heavy = self.heavy()
        yield 1
        raise ValueError(f"parts {type(heavy).__name__}")

    @task
    def caused(self, x: Any = None) -> None:
        heavy = self.heavy()
        try:
            raise KeyError(f"first {type(heavy).__name__}")
        except KeyError as error:
            raise ValueError("second") from error

    @task
    def ours(self, x: Any = None) -> None:
        """Raise an error of our tree while two others are being handled."""
        heavy = self.heavy()
        try:
            raise KeyError(f"cause {type(heavy).__name__}")
        except KeyError as error:
            cause = error
        try:
            raise LookupError("context")
        except LookupError:
            raise ValidationError("ours") from cause

    @task
    def ours_in_parts(self, x: Any = None) -> Iterator[int]:
        yield 1
        self.ours()

    @task
    def grouped(self, x: Any = None) -> None:
        heavy = self.heavy()
        errors = []
        for name in ("a", "b"):
            try:
                raise ValueError(f"{name} {type(heavy).__name__}")
            except ValueError as error:
                errors.append(error)
        raise ExceptionGroup("both", errors)

    @task
    def mute(self, x: Any = None) -> None:
        class Mute(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no words")

        raise Mute

    @task
    def asks(self, question: Any, api_key: str, *, token: str = "") -> None:
        raise ValueError("refused")


REFS: list[Any] = []


def by_call(handle: ServiceHandle, name: str) -> Any:
    """Block for it, as a cell does."""
    return raised(lambda: getattr(handle, name)())


def by_submit(handle: ServiceHandle, name: str) -> Any:
    """Keep the call, and two errors of it."""
    call = handle.submit(name)
    return call, raised(lambda: call.result(WAIT)), call.exception(WAIT), call.outcome


def by_await(handle: ServiceHandle, name: str) -> Any:
    """Await it on another loop."""

    async def main() -> BaseException:
        try:
            await handle.submit(name)
        except GrymError as error:
            return error
        raise AssertionError

    return outcome(start(lambda: asyncio.run(main())))


def by_execute(handle: ServiceHandle, name: str) -> Any:
    """Keep the result."""
    return handle.execute(Task(name))


def by_reading(handle: ServiceHandle, name: str) -> Any:
    """Read the generator until it fails; others are called."""
    made = raised(lambda: list(getattr(handle, name)()))
    return made


WAYS = [by_call, by_submit, by_await, by_execute, by_reading]
TASKS = ["plain", "later", "parts", "caused", "ours", "ours_in_parts", "grouped"]


@pytest.fixture
def breaks(registry: ServiceRegistry) -> Iterator[ServiceHandle]:
    """A loaded service, and no references from another test."""
    REFS.clear()
    yield registry.register("breaks", Breaks).load()
    REFS.clear()


def alive() -> int:
    """Return how many heavy things are still there."""
    gc.collect()
    return sum(ref() is not None for ref in REFS)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("name", TASKS)
def test_a_kept_error_pins_nothing(breaks: ServiceHandle, way: Callable[..., Any], name: str) -> None:
    """Not the error, the call, the result, the record, the story: only the one slot, until it is cleared."""
    if way is by_call and "parts" in name:
        way = by_reading
    kept = way(breaks, name)
    breaks._record.ports.failures.clear()
    assert (len(REFS) > 1, alive()) == (True, 0)
    assert kept is not None
    assert breaks._record.last_error is not None
    assert breaks.state == "ready"


def test_the_slot_has_the_live_frames_until_it_is_cleared_or_the_service_unloads(
    breaks: ServiceHandle,
) -> None:
    """That is what `%grym debug` looks at."""
    slot = breaks._record.ports.failures
    by_call(breaks, "plain")
    assert alive() == 1
    frames = [frame.f_code.co_name for frame, _ in traceback.walk_tb(slot.traceback)]
    assert frames[-1] == "plain"
    del frames
    by_call(breaks, "caused")
    assert alive() == 1
    breaks.unload()
    assert (alive(), slot.traceback) == (0, None)
    assert slot.failure is not None and slot.failure.task == "caused"


@pytest.mark.parametrize("retries", [1, 3])
def test_retried_failures_pin_nothing(driven: ServiceRegistry, clock: FakeClock, retries: int) -> None:
    """Each attempt leaves a failure of its own."""
    REFS.clear()
    breaks = driven.register("breaks", Breaks)
    running = start(breaks.plain.with_(retries=retries))
    for _ in range(retries):
        clock.until_waiting(1)
        clock.advance(10.0)
    kept = outcome(running)
    assert len(REFS) == retries + 2
    driven.ports.failures.clear()
    assert (isinstance(kept, TaskFailed), alive()) == (True, 0)


@pytest.mark.parametrize("how", ["call", "load", "submit", "use", "parts", "execute"])
def test_a_failed_load_pins_nothing(registry: ServiceRegistry, how: str) -> None:
    """However it was asked for: the half-made model and its frames are gone."""
    REFS.clear()
    handle = registry.register("breaks", Breaks, config={"fail_load": True})
    kept: Any = {
        "call": lambda: raised(lambda: handle.plain()),
        "load": lambda: raised(handle.load),
        "submit": lambda: [call := handle.plain.submit(), call.exception(WAIT), call.outcome],
        "use": lambda: raised(handle.use().__enter__),
        "parts": lambda: raised(lambda: next(handle.parts())),
        "execute": lambda: handle.execute(Task("plain")),
    }[how]()
    registry.ports.failures.clear()
    assert (len(REFS), alive(), handle.state) == (1, 0, "failed")
    error = kept[1] if how == "submit" else kept.error if how == "execute" else kept
    assert isinstance(error, LoadFailed)
    assert "no weights Heavy" in str(error)
    REFS.clear()


def test_an_error_that_was_being_handled_keeps_its_own_frames(breaks: ServiceHandle) -> None:
    """What the caller's code was doing is the caller's: its traceback is not ours to drop."""
    try:
        raise LookupError("mine")
    except LookupError as mine:
        by_call(breaks, "plain")
        assert mine.__traceback__ is not None
        assert mine.__traceback__.tb_frame.f_code.co_name.startswith("test_an_error_that_was")


@pytest.mark.parametrize("name", ["plain", "later", "parts", "caused"])
def test_an_error_of_the_author_is_told_with_its_line_and_input(breaks: ServiceHandle, name: str) -> None:
    """Three lines at most; the rest is in its story."""
    error = raised(lambda: list(getattr(breaks, name)(np.zeros((2, 3)))))
    assert isinstance(error, TaskFailed)
    assert (error.service, error.task, error.details["error"]) == ("breaks", name, "ValueError")
    assert len(str(error).splitlines()) == 3
    assert "input: ndarray float64 (2, 3)" in error.cause
    assert f"in {name}" in error.cause
    assert error.failure.sites[-1].function == name
    assert [note for note in error.__notes__ if "heavy = " in note]
    assert breaks._record.ports.failures.failure == error.failure == breaks._record.last_error


def test_an_error_of_our_tree_that_the_author_raises_is_an_answer(breaks: ServiceHandle) -> None:
    """It keeps its type and words, and gets the names of the service and the task."""
    error = raised(lambda: breaks.ours())
    assert type(error) is ValidationError
    assert (error.message, error.service, error.task) == ("ours", "breaks", "ours")
    assert error.failure.sites[-1].function == "ours"


def test_an_error_in_a_need_is_told_once_by_where_it_happened(registry: ServiceRegistry) -> None:
    """Not wrapped again by each service it comes through."""

    class Asks(ModelService):
        needs = ("breaks",)

        @task
        def ask(self) -> Any:
            return self.needs.breaks.plain(3)

    REFS.clear()
    registry.register("breaks", Breaks)
    asks = registry.register("asks", Asks)
    error = raised(lambda: asks.ask())
    assert isinstance(error, TaskFailed)
    assert (error.service, error.task) == ("breaks", "plain")
    assert error.message == "breaks.plain raised ValueError: plain Heavy"
    registry.ports.failures.clear()
    assert alive() == 0
    REFS.clear()


def test_an_error_without_words_is_a_failed_task(breaks: ServiceHandle) -> None:
    """`__str__` raises: it is named by its type, and the service goes on."""
    error = raised(lambda: breaks.mute())
    assert isinstance(error, TaskFailed)
    assert "breaks.mute raised Mute" in error.message
    assert breaks._record.lane.free == 1


def test_secrets_given_to_a_task_are_in_no_word_of_its_failure(breaks: ServiceHandle) -> None:
    """Whether they were given by name or by position."""
    by_position = raised(lambda: breaks.asks({"token": SECRET}, SECRET))
    by_name = raised(lambda: breaks.asks("q", api_key=SECRET, token=SECRET))
    for error in (by_position, by_name):
        assert isinstance(error, TaskFailed)
        notes = "\n".join(error.__notes__)
        for told in (str(error), error.failure.text(), notes, repr(breaks.status()), repr(error.failure)):
            assert SECRET not in told
    assert "'q'" in str(by_name)


def test_texts_given_to_names_of_secrets_are_left_out_of_the_code(tmp_path: Path) -> None:
    """A line of a notebook is shown as it stands, but for what is written there of a secret."""
    path = tmp_path / "cell.py"
    path.write_text(
        "def login(name, *, password, headers):\n    raise ValueError(name)\n"
        "login('bob', password='hunter2', headers={'Authorization': 'S3', 'x': 'plain'})\n"
    )
    with pytest.raises(ValueError) as caught:
        exec(compile(path.read_text(), str(path), "exec"), {})
    told = "\n".join(site.text() for site in sites_of(caught.value.__traceback__))
    assert "password='***'" in told and "'x': 'plain'" in told
    assert "hunter2" not in told and "S3" not in told


def test_what_an_error_was_raised_from_is_told(registry: ServiceRegistry) -> None:
    """Nearest first, with the place; what was suppressed is not."""

    class Chained(ModelService):
        @task
        def chained(self, quiet: bool) -> None:
            try:
                {}["weights"]
            except KeyError as error:
                raise OSError("cannot read") from (None if quiet else error)

    chained = registry.register("chained", Chained)
    with pytest.raises(TaskFailed) as caught:
        chained.chained(False)
    assert "raised from KeyError: 'weights', at " in caught.value.failure.text()
    with pytest.raises(TaskFailed) as caught:
        chained.chained(True)
    assert "raised from" not in caught.value.failure.text()


def test_a_load_that_says_what_to_do_is_heard_in_full(registry: ServiceRegistry) -> None:
    """Its cause and its hint stand in the error of the load; the same files will not do the next time."""

    class Picky(ModelService):
        def load(self) -> None:
            raise CheckpointError("'dir' is of another kind", cause="accepted: A, B", hint="give it an A")

        @task
        def ask(self) -> None:
            """Never get here."""

    error = raised(registry.register("picky", Picky).load)
    assert isinstance(error, LoadFailed) and not error.can_change
    assert error.lines() == [
        "picky could not be loaded: CheckpointError: 'dir' is of another kind",
        "  accepted: A, B",
        "→ give it an A",
    ]
