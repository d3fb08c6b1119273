"""How a service's calls are guarded: by its own policy, from register and the settings, in the one path."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from grym_nb.errors import (
    BreakerOpen,
    CallCancelled,
    CallTimeout,
    ConfigError,
    GrymError,
    LoadFailed,
    QueueFull,
    TaskFailed,
    ValidationError,
)
from grym_nb.events import BreakerChanged
from grym_nb.hardening import BreakerPolicy, Retry
from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, Task, task
from grym_nb.services.policy import CallPolicy, parsed
from grym_nb.settings import Settings
from grym_nb.testing import FakeClock
from tests.services.crowd import Gates, outcome, start, until

QUICK = {"min_calls": 2, "window": 4, "open_seconds": 10.0}


class Work(ModelService):
    """Does what it is told."""

    @task("work.do")
    def do(self, what: Callable[[], Any]) -> Any:
        return what()

    @task
    def twice(self, x: int) -> int:
        if not isinstance(x, int):
            raise ValidationError("no number")
        return 2 * x


def fail(error: BaseException | None = None) -> None:
    raise OSError("down") if error is None else error


def failing(handle: ServiceHandle, times: int = 2) -> None:
    for _ in range(times):
        with pytest.raises(TaskFailed):
            handle.do(fail)


# -- the breaker -----------------------------------------------------------------------------------


def test_a_failing_service_is_refused_fast_and_comes_back(driven: ServiceRegistry, clock: FakeClock) -> None:
    moves: list[str] = []
    driven.ports.events.subscribe(lambda event: moves.append(event.after), BreakerChanged)
    work = driven.register("work", Work, breaker=QUICK)
    failing(work)
    with pytest.raises(BreakerOpen) as refusal:
        work.twice(1)
    assert refusal.value.lines() == [
        "work is not called for 10 s: 2 of 2 calls failed",
        "→ call it again then; once it is mended: grym.get('work').breaker.close()",
    ]
    assert (refusal.value.service, refusal.value.task) == ("work", "twice")
    assert work.metrics().errors == {"task.failed": 2, "call.refused": 1}
    assert "breaker open" in repr(work) and "2 of 2 calls failed" in repr(work.status())
    clock.advance(10.0)
    assert work.twice(1) == 2
    assert moves == ["open", "half open", "closed"]


def test_it_is_refused_before_anything_is_loaded(driven: ServiceRegistry) -> None:
    loads: list[int] = []

    class Broken(Work):
        def load(self) -> None:
            loads.append(1)
            raise OSError("no weights")

    broken = driven.register("broken", Broken, breaker=QUICK)
    for _ in range(2):
        with pytest.raises(LoadFailed):
            broken.twice(1)
    for way in (broken.twice, broken.twice.with_(timeout=5), lambda x: broken.twice.submit(x).result(10)):
        with pytest.raises(BreakerOpen):
            way(1)
    with pytest.raises(BreakerOpen), broken.use():
        pytest.fail("it is open")
    assert len(loads) == 2


@pytest.mark.parametrize(
    "way",
    [
        lambda work: work.twice("x"),
        lambda work: work.twice(),
        lambda work: work.do(lambda: fail(KeyboardInterrupt())),
        lambda work: work.do(lambda: work.twice("x")),
    ],
)
def test_what_is_no_failure_of_the_service_does_not_count(
    driven: ServiceRegistry, way: Callable[[Any], Any]
) -> None:
    work = driven.register("work", Work, breaker=QUICK)
    for _ in range(4):
        with pytest.raises((GrymError, KeyboardInterrupt)):
            way(work)
    assert work.breaker is not None
    assert (work.breaker.state, work.breaker.snapshot().failed) == ("closed", 0)


def test_what_a_call_calls_rides_on_its_turn(driven: ServiceRegistry, clock: FakeClock) -> None:
    """Half open it lets one call through, and what that calls of the same service with it."""
    work = driven.register("work", Work, breaker=QUICK)
    failing(work)
    clock.advance(10.0)
    assert work.do(lambda: work.twice(work.twice(1))) == 4
    assert work.breaker is not None and work.breaker.state == "closed"


def test_a_call_that_hangs_is_known_at_its_deadline(driven: ServiceRegistry, clock: FakeClock) -> None:
    """The breaker does not wait for what may never come back."""
    gates = Gates()
    work = driven.register("work", Work, breaker={**QUICK, "min_calls": 1, "window": 1}, concurrency=2)
    work.load()
    hangs = work.do.with_(timeout=5).submit(lambda: (gates.tell("inside"), gates.wait("on")))
    gates.wait("inside")
    clock.advance(5.0)
    assert isinstance(outcome(start(hangs.result)), CallTimeout)
    until(lambda: work.breaker is not None and work.breaker.state == "open")
    clock.advance(1.0)
    assert any("stuck" in told for told in work.status().running)
    gates["on"].set()
    until(lambda: not work.status().running)
    assert work.breaker is not None and work.breaker.snapshot().calls == 1  # once, and not again now


def test_a_call_that_waits_for_another_says_nothing(driven: ServiceRegistry, clock: FakeClock) -> None:
    gates = Gates()
    busy = driven.register("busy", Work)
    outer = driven.register("outer", Work, breaker={**QUICK, "min_calls": 1, "window": 1})
    busy.load(), outer.load()
    holds = busy.do.submit(lambda: (gates.tell("inside"), gates.wait("on")))
    gates.wait("inside")
    waits = outer.do.with_(timeout=5).submit(lambda: busy.do(int))
    until(lambda: busy.status().waiting == 1)
    clock.advance(5.0)
    assert isinstance(outcome(start(waits.result)), CallTimeout)
    gates["on"].set()
    holds.result(10)
    until(lambda: not outer.status().running)


def test_a_stream_counts_by_how_it_ended(driven: ServiceRegistry) -> None:
    class Streams(ModelService):
        @task
        def items(self, n: int, fails: bool = False) -> Any:
            yield from range(n)
            if fails:
                raise OSError

    streams = driven.register("streams", Streams, breaker=QUICK)
    assert list(streams.items(3)) == [0, 1, 2]
    with pytest.raises(TaskFailed):
        list(streams.items(1, fails=True))
    assert streams.breaker is not None
    assert streams.breaker.snapshot().reason == "1 of 2 calls failed"


def test_which_errors_count_is_said_by_what_the_code_raises(driven: ServiceRegistry) -> None:
    work = driven.register("work", Work, breaker={**QUICK, "counts": (OSError,)})
    for _ in range(3):
        with pytest.raises(TaskFailed):
            work.do(lambda: fail(KeyError("x")))
    assert work.breaker is not None and work.breaker.snapshot().failed == 0
    failing(work)
    assert work.breaker.state == "open"
    asked = driven.register("asked", Work, breaker={**QUICK, "counts": lambda error: "gone" in error.message})
    failing(asked, 3)
    assert asked.breaker is not None and asked.breaker.state == "closed"


def test_new_code_begins_with_a_clean_breaker(driven: ServiceRegistry) -> None:
    work = driven.register("work", Work, breaker=QUICK)
    failing(work)
    driven.register("work", Work, breaker=QUICK, ttl=60)
    assert work.breaker is not None and work.breaker.state == "open"

    class Mended(Work):
        @task("work.do")
        def do(self, what: Callable[[], Any]) -> Any:
            return "mended"

    driven.register("work", Mended, breaker=QUICK, ttl=60)
    assert work.do(fail) == "mended"
    driven.register("work", Mended)
    assert work.breaker is None


def test_eight_calls_of_a_service_run_side_by_side(registry: ServiceRegistry) -> None:
    together = threading.Barrier(8, timeout=10.0)
    work = registry.register("work", Work, breaker=True, concurrency=8)
    calls = [work.do.submit(together.wait) for _ in range(8)]
    assert sorted(call.result(10) for call in calls) == list(range(8))


# -- retry, queue, deadline, fallback --------------------------------------------------------------


class Flaky:
    def __init__(self, fails: int) -> None:
        self.left, self.calls = fails, 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.left:
            raise OSError("not yet")
        return self.calls


STEADY = Retry(attempts=3, pause=0.1, jitter=0.0)


def test_a_service_tries_again_as_it_says(driven: ServiceRegistry, clock: FakeClock) -> None:
    work = driven.register("work", Work, retry=STEADY)
    call = start(work.do, Flaky(2))
    for pause in (0.1, 0.2):
        clock.until_waiting(1)
        clock.advance(pause)
    assert outcome(call) == 3
    assert work.metrics().errors == {} and work.metrics().calls == 1
    once = Flaky(1)
    with pytest.raises(TaskFailed):
        work.do.with_(retries=0)(once)
    assert once.calls == 1


def test_the_last_error_says_how_often_it_was_tried(driven: ServiceRegistry, clock: FakeClock) -> None:
    work = driven.register("work", Work, retry=Retry(attempts=2, pause=0.1, jitter=0.0))
    call = start(work.do, Flaky(9))
    clock.until_waiting(1)
    clock.advance(0.1)
    error = outcome(call)
    assert isinstance(error, TaskFailed) and error.details["attempts"] == 2
    with pytest.raises(TaskFailed) as wrong:
        work.do(lambda: fail(TypeError()))
    assert "attempts" not in wrong.value.details  # the code is wrong, and stays so


def test_the_calls_of_a_service_share_a_budget(registry: ServiceRegistry) -> None:
    quick = Retry(attempts=3, pause=1e-6, max_pause=1e-6, spare=4, share=0.0)
    work, other = (registry.register(name, Work, retry=quick) for name in ("work", "other"))
    flaky = Flaky(999)
    for _ in range(10):
        with pytest.raises(TaskFailed):
            work.do(flaky)
    assert flaky.calls == 14
    assert other.do(Flaky(2)) == 3


def test_a_line_that_is_full_refuses_with_its_figures(registry: ServiceRegistry) -> None:
    gates = Gates()
    work = registry.register("work", Work, max_waiting=1).load()
    running = work.do.submit(lambda: (gates.tell("inside"), gates.wait("on")))
    gates.wait("inside")
    waiting = work.twice.submit(2)
    for way in (work.twice.submit, work.twice, work.twice.with_(timeout=5)):
        with pytest.raises(QueueFull) as refusal:
            way(3)
    assert refusal.value.lines()[:2] == [
        "work.twice is refused: as many wait for work as may, 1",
        "  1 of 1 slots are in use",
    ]
    assert (refusal.value.details["limit"], refusal.value.details["use"]) == (1, 1)
    gates["on"].set()
    running.result(10)
    assert waiting.result(10) == 4 and work.twice(3) == 6
    assert work.metrics().errors == {"resource.queue_full": 3} and work._record.users == 0


def test_a_service_bounds_its_calls(driven: ServiceRegistry, clock: FakeClock) -> None:
    gates = Gates()
    work = driven.register("work", Work, timeout=5).load()
    call = start(work.do, lambda: (gates.tell("inside"), gates.wait("on")))
    gates.wait("inside")
    until(lambda: clock.waiters > 0)
    clock.advance(5.0)
    assert isinstance(outcome(call), CallTimeout)
    gates["on"].set()
    until(lambda: not work.status().running)
    with work.use() as model:  # which is no call of a task
        clock.advance(60.0)
        assert model.twice(1) == 2


def test_something_else_answers_when_all_has_failed(driven: ServiceRegistry) -> None:
    asked: list[Any] = []

    def instead(error: GrymError, what: Any) -> str:
        asked.append((error.code, what))
        return "instead"

    work = driven.register("work", Work, fallback=instead, breaker=QUICK)
    assert [work.do(fail) for _ in range(3)] == ["instead"] * 3
    assert [code for code, _ in asked] == ["task.failed", "task.failed", "call.refused"]
    result = work.execute(Task("work.do", fail))
    assert (result.success, result.data, result.metadata["fallback"]) == (True, "instead", "call.refused")
    assert work.metrics().ok == 4 and work.status().errors == 0
    assert [call.outcome for call in driven.calls()] == ["fallback"] * 4
    with pytest.raises(ValidationError):
        work.do()


def test_a_fallback_that_fails_says_so(driven: ServiceRegistry) -> None:
    work = driven.register("work", Work, fallback=lambda error, what: fail(KeyError("oh")))
    with pytest.raises(TaskFailed, match="KeyError"):
        work.do(fail)


# -- what is said, and where -----------------------------------------------------------------------


def test_what_is_in_force_says_where_it_was_said() -> None:
    settings = Settings(
        policy={"timeout": 60, "retry": 2}, policies={"work": {"timeout": 30, "breaker": {"window": 30}}}
    )
    with ServiceRegistry(settings=settings) as registry:
        work = registry.register("work", Work, timeout=5)
        other = registry.register("other", Work)
        assert (work.policy.timeout, other.policy.timeout) == (5.0, 60.0)
        assert work.policy.breaker == BreakerPolicy(window=30) and other.policy.breaker is None
        assert work.policy.sources == {
            "timeout": "register",
            "retry": "settings",
            "breaker": "settings for it",
        }
        registry.register("work", Work, timeout=None)
        assert work.policy.timeout is None and work.policy.sources["timeout"] == "register"
        shown = [line.split("  ") for line in repr(work.policy).splitlines()]
        rows = {cells[0]: [cell.strip() for cell in cells if cell.strip()] for cells in shown}
        assert rows["retry"] == ["retry", "2 attempts (attempts=2)", "settings"]
        assert rows["breaker"] == ["breaker", "window=30", "settings for it"]
        assert rows["max_waiting"] == ["max_waiting", "any number", "default"]
        assert work.policy._repr_html_().startswith('<table class="grym-table">')


def test_a_cell_that_is_run_again_changes_nothing(driven: ServiceRegistry) -> None:
    def register() -> tuple[str, ...]:
        before = driven["work"]._record.spec if "work" in driven else None
        handle = driven.register(
            "work", Work, retry=Retry(attempts=2), breaker=BreakerPolicy(), fallback=lambda error, what: None
        )
        return () if before is None else before.differs(handle._record.spec)

    register()
    breaker = driven["work"].breaker
    assert register() == () and driven["work"].breaker is breaker
    driven.register("work", Work, retry=3)
    assert driven["work"].policy.retry == Retry(attempts=3) and driven["work"].breaker is None


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"timeout": 0}, "timeout"),
        ({"timeout": "5"}, "timeout"),
        ({"retry": 0}, "retry"),
        ({"retry": {"attempts": 0}}, "retry.attempts"),
        ({"retry": {"attemps": 2}}, "retry.attemps"),
        ({"breaker": "on"}, "breaker"),
        ({"breaker": {"window": 0}}, "breaker.window"),
        ({"breaker": {"window": 10**12}}, "breaker.window"),
        ({"breaker": {"open_seconds": 10**400}}, "breaker.open_seconds"),
        ({"max_waiting": -1}, "max_waiting"),
        ({"fallback": "other"}, "fallback"),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_is_said(
    driven: ServiceRegistry, options: dict[str, Any], path: str
) -> None:
    with pytest.raises(ConfigError, match="'work' cannot be registered") as refusal:
        driven.register("work", Work, **options)
    assert [problem.path for problem in refusal.value.problems] == [path]
    assert "work" not in driven
    with pytest.raises(ConfigError, match="the settings say no policy") as refusal:
        ServiceRegistry(settings=Settings(policies={"work": options, "other": 3}))
    paths = [problem.path for problem in refusal.value.problems]
    assert paths == [f"policies['work'].{path}", "policies['other']"]


def test_a_call_between_two_attempts_is_seen_and_told(driven: ServiceRegistry, clock: FakeClock) -> None:
    work = driven.register("work", Work, retry={"attempts": 3, "pause": 4.0, "jitter": 0.0}, timeout=5.0)
    call = work.do.submit(fail)
    until(lambda: driven.waiting())
    assert [frame.id for frame in driven.waiting()] == [call.id] and driven.running() == ()
    assert work.status().waiting == 1 and "waiting" in repr(call)
    clock.until_waiting(1)
    clock.advance(4.0)
    until(lambda: "2 failed" in driven.waiting()[0].pauses if driven.waiting() else False)
    clock.advance(1.0)
    late = outcome(call)
    assert isinstance(late, CallTimeout)
    assert "waiting for its next attempt: 2 failed, the last with work.do raised OSError: down" in late.cause
    until(lambda: driven.waiting() == ())


def test_a_call_between_two_attempts_ends_when_it_is_cancelled(driven: ServiceRegistry) -> None:
    work = driven.register("work", Work, retry={"attempts": 3, "pause": 20.0})
    blocking = start(work.do, fail)
    until(lambda: driven.waiting())
    assert driven.waiting()[0].cancel()
    assert isinstance(outcome(blocking), CallCancelled)
    assert driven.waiting() == ()


def test_a_fallback_that_fails_says_that_it_is_one(driven: ServiceRegistry) -> None:
    def instead(error: GrymError, what: Any) -> None:
        raise KeyError("nothing there")

    work = driven.register("work", Work, fallback=instead)
    with pytest.raises(TaskFailed, match=r"the fallback of work\.do raised KeyError") as caught:
        work.do(fail)
    assert "work.do raised OSError: down" in caught.value.cause
    with pytest.raises(ConfigError, match="a function that takes the error first"):
        driven.register("work", Work, fallback=lambda: 3)


def test_an_option_that_is_nearly_one_is_told_with_the_closest(driven: ServiceRegistry) -> None:
    with pytest.raises(ConfigError) as caught:
        driven.register("work", Work, timout=3, gain=2)
    told = {problem.path: problem.expected for problem in caught.value.problems}
    assert "Did you mean 'timeout'?" in told["timout"] and "Did you mean" not in told["gain"]
    assert caught.value.hint.startswith("config of the service goes into config={'gain': 2}; options: ")


def test_settings_take_mappings_only() -> None:
    with pytest.raises(ConfigError, match="a mapping of names to values"):
        Settings(policy="strict")  # type: ignore[arg-type]


def test_an_unknown_value_is_told_with_the_closest() -> None:
    _, [problem] = parsed({"time_out": 3})
    assert "Did you mean 'timeout'?" in problem.expected
    assert CallPolicy.of(("a", {}), ("b", {})) == CallPolicy()
    assert parsed({"breaker": False, "retry": 1, "timeout": None, "fallback": None})[0] == {
        "breaker": None, "retry": None, "timeout": None, "fallback": None,
    }  # fmt: skip
