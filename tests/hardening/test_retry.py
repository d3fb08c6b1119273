"""Trying again: how often, after what pauses, for which errors, from what budget."""

from __future__ import annotations

import asyncio
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from grym_nb.errors import ConfigError, ServiceClosed, TaskFailed, ValidationError
from grym_nb.hardening import Retry, RetryBudget
from grym_nb.hardening.retry import may_change
from grym_nb.testing import FakeClock


class Flaky:
    """Fails so often, then answers with its number."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> int:
        self.calls += 1
        if self.calls <= len(self.errors):
            raise self.errors[self.calls - 1]
        return self.calls

    async def later(self) -> int:
        await asyncio.sleep(0)
        return self()


def task_failed(raised: type[BaseException]) -> TaskFailed:
    """As a service raises it for what its author's code raised."""
    error = TaskFailed("it raised")
    error.raised = raised
    return error


def quick(**options: Any) -> Retry:
    return Retry(**{"pause": 1e-6, "max_pause": 1e-6, **options})


def test_it_tries_until_there_is_an_answer() -> None:
    flaky = Flaky(OSError(), OSError())
    assert quick(attempts=3).call(flaky) == 3


def test_the_last_error_is_raised() -> None:
    flaky = Flaky(OSError("one"), OSError("two"), OSError("three"))
    with pytest.raises(OSError, match="two"):
        quick(attempts=2).call(flaky)
    assert flaky.calls == 2


def test_arguments_are_the_same_each_time() -> None:
    seen = []

    def note(*args: int, **kwargs: int) -> None:
        seen.append((args, kwargs))
        if len(seen) < 3:
            raise OSError

    quick(attempts=3).call(note, 1, two=2)
    assert seen == [((1,), {"two": 2})] * 3


@pytest.mark.parametrize(
    "error",
    [
        TypeError(),
        AttributeError(),
        ImportError(),
        UnboundLocalError(),
        ValidationError("no"),
        ServiceClosed("gone"),
        task_failed(TypeError),
        task_failed(ModuleNotFoundError),
    ],
)
def test_errors_that_cannot_change_are_raised_at_once(error: Exception) -> None:
    flaky = Flaky(error)
    with pytest.raises(type(error)):
        quick(attempts=3).call(flaky)
    assert flaky.calls == 1


@pytest.mark.parametrize("error", [OSError(), RuntimeError(), ValueError(), task_failed(OSError)])
def test_others_may_change(error: Exception) -> None:
    assert may_change(error)


def test_ctrl_c_is_never_tried_again() -> None:
    flaky = Flaky(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        quick(attempts=3, on=lambda error: True).call(flaky)
    assert flaky.calls == 1


def test_which_errors_is_said_by_type_or_asked_of_a_function() -> None:
    for on in (TypeError, (TypeError, KeyError), lambda error: isinstance(error, TypeError)):
        assert quick(attempts=2, on=on).call(Flaky(TypeError())) == 2
        with pytest.raises(OSError):
            quick(attempts=2, on=on).call(Flaky(OSError()))


def test_pauses_grow_up_to_a_cap() -> None:
    retry = Retry(attempts=6, pause=1.0, factor=3.0, max_pause=10.0, jitter=0.0)
    assert list(retry.pauses()) == [1.0, 3.0, 9.0, 10.0, 10.0]


def test_a_share_of_each_pause_is_left_to_chance() -> None:
    retry = Retry(attempts=200, pause=1.0, factor=1.0, jitter=0.4)
    pauses = list(retry.pauses())
    assert min(pauses) > 0.6 and max(pauses) <= 1.0
    assert max(pauses) - min(pauses) > 0.3


def test_pauses_pass_on_its_clock() -> None:
    clock = FakeClock()
    flaky = Flaky(OSError(), OSError())
    retry = Retry(attempts=3, pause=5.0, jitter=0.0, clock=clock)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(retry.call, flaky)
        for calls, pause in ((1, 5.0), (2, 10.0)):
            clock.until_waiting()
            assert flaky.calls == calls
            clock.advance(pause - 0.5)
            clock.until_waiting()
            clock.advance(0.5)
        assert answer.result(5.0) == 3


def test_a_decorated_function_keeps_its_kind() -> None:
    flaky = Flaky(OSError())

    @quick(attempts=2)
    def plain() -> int:
        """It asks."""
        return flaky()

    assert (plain(), plain.__name__, plain.__doc__) == (2, "plain", "It asks.")

    @quick(attempts=2)
    async def later() -> int:
        return await Flaky().later()

    assert inspect.iscoroutinefunction(later)
    assert asyncio.run(later()) == 1


def test_async_functions_are_tried_again() -> None:
    async def main() -> None:
        flaky = Flaky(OSError(), OSError())
        assert await quick(attempts=3).call(flaky.later) == 3
        with pytest.raises(OSError):
            await quick(attempts=2).call(Flaky(OSError(), OSError()).later)
        with pytest.raises(TypeError):
            await quick(attempts=2).call(Flaky(TypeError()).later)

    asyncio.run(main())


# -- the budget ------------------------------------------------------------------------------------


def test_what_fails_always_is_not_asked_several_times_as_often() -> None:
    """Ten retries to begin with, then one for every five calls."""
    retry, calls = quick(attempts=4, share=0.2, spare=10), 0

    def ask() -> None:
        nonlocal calls
        calls += 1
        raise OSError

    for _ in range(1000):
        with pytest.raises(OSError):
            retry.call(ask)
    assert 1200 <= calls <= 1210


def test_without_a_budget_there_is_no_limit() -> None:
    retry, flaky = quick(attempts=3, share=None), Flaky(*[OSError()] * 999)
    for _ in range(100):
        with pytest.raises(OSError):
            retry.call(flaky)
    assert flaky.calls == 300
    assert retry.budget is None


@given(
    share=st.sampled_from([0.0, 0.1, 0.25, 1.0, 3.0]),
    spare=st.integers(0, 5),
    steps=st.lists(st.sampled_from(["call", "call", "call", "retry"]), max_size=100),
)
def test_a_budget_is_a_number_that_is_added_to_and_taken_from(
    share: float, spare: int, steps: list[str]
) -> None:
    budget, left = RetryBudget(share, spare), float(spare)
    for step in steps:
        if step == "call":
            budget.called()
            left = min(float(spare), left + share)
        else:
            assert budget.take() == (left >= 1.0)
            left -= left >= 1.0
        assert budget.left == left
    assert repr(budget) == f"<RetryBudget: {left:.1f} of {spare}>"


def test_many_threads_take_no_more_than_there_is() -> None:
    budget, begin = RetryBudget(0.0, 500), threading.Barrier(8)

    def take() -> int:
        begin.wait()
        return sum(budget.take() for _ in range(200))

    with ThreadPoolExecutor(8) as pool:
        taken = [pool.submit(take) for _ in range(8)]
        assert sum(one.result() for one in taken) == 500


# -- what it refuses to be -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"attempts": 0}, "attempts: found 0"),
        ({"attempts": True}, "attempts"),
        ({"pause": 0}, "pause"),
        ({"factor": 0.9}, "factor"),
        ({"max_pause": float("inf")}, "max_pause"),
        ({"jitter": 1.1}, "jitter"),
        ({"on": "every"}, "on"),
        ({"share": -1}, "share"),
        ({"spare": -1}, "spare"),
        ({"clock": 3}, "clock"),
        ({"pause": 2.0, "max_pause": 1.0}, "at least the first pause, 2"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Retry(**options)


def test_names_are_checked_with_the_closest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'attempts'"):
        Retry.of({"attemps": 3})


def test_equal_ones_are_equal_and_each_has_its_own_budget() -> None:
    """So a cell that is run again registers the same."""
    one, two = Retry(attempts=2), Retry(attempts=2)
    assert one == two and hash(one) == hash(two)
    assert one.budget is not two.budget
    assert one.new_budget() is not one.budget
