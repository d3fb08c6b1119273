"""A breaker beside a plain model of it: calls overlap, come back late or never, and hands interfere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from grym_nb.errors import BreakerOpen
from grym_nb.hardening import BreakerPolicy, CircuitBreaker
from grym_nb.testing import FakeClock

SLOW = 2.0


@dataclass
class Model:
    """What the policy's own words say, with nothing saved: every outcome is kept, and counted anew."""

    policy: BreakerPolicy
    state: str = "closed"
    age: int = 0  # how many moves it has made: who began before the last one says nothing
    since: float = 0.0
    wait: float = 0.0
    failed_rounds: int = 0
    answers: list[tuple[bool, bool]] = field(default_factory=list)  # (failed, slow), since the last move
    let_in: int = 0
    out: int = 0

    def move(self, state: str, now: float) -> None:
        self.state, self.since, self.age = state, now, self.age + 1
        self.answers, self.let_in, self.out = [], 0, 0

    def trip(self, now: float) -> None:
        self.failed_rounds = self.failed_rounds + 1 if self.state == "half open" else 0
        grown = self.policy.open_seconds * self.policy.open_factor**self.failed_rounds
        self.move("open", now)
        self.wait = min(grown, self.policy.max_open_seconds)

    def close(self, now: float) -> None:
        self.move("closed", now)
        self.failed_rounds = 0

    def too_many(self, answers: list[tuple[bool, bool]]) -> bool:
        failed, slow = (sum(column) / len(answers) for column in zip(*answers, strict=True))
        return failed >= self.policy.failure_rate or slow >= self.policy.slow_rate

    def ask(self, now: float) -> bool:
        if self.state == "open" and now - self.since >= self.wait:
            self.move("half open", now)
        if self.state == "half open":
            if self.out < self.policy.probes_at_once and self.let_in < self.policy.probes:
                self.out += 1
                self.let_in += 1
                return True
            if self.out and now - self.since >= self.wait:
                self.trip(now)
        return self.state == "closed"

    def answered(self, age: int, failed: bool, slow: bool, now: float) -> None:
        if age != self.age:
            return
        self.answers.append((failed, slow))
        if self.state == "closed":
            recent = self.answers[-self.policy.window :]
            if len(recent) >= self.policy.min_calls and self.too_many(recent):
                self.trip(now)
        elif self.state == "half open":
            self.out -= 1
            if len(self.answers) == self.policy.probes:
                self.trip(now) if self.too_many(self.answers) else self.close(now)

    def gave_back(self, age: int) -> None:
        if age == self.age and self.state == "half open":
            self.out -= 1
            self.let_in -= 1


@st.composite
def policies(draw: Any) -> BreakerPolicy:
    """Small numbers, so that each border is met often."""
    window, probes = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    return BreakerPolicy(
        window=window,
        min_calls=draw(st.integers(1, window)),
        failure_rate=draw(st.sampled_from([0.25, 0.5, 1.0])),
        slow_seconds=SLOW,
        slow_rate=draw(st.sampled_from([0.5, 1.0])),
        open_seconds=4.0,
        open_factor=draw(st.sampled_from([1.0, 2.0, 3.0])),
        max_open_seconds=draw(st.sampled_from([4.0, 20.0])),
        probes=probes,
        probes_at_once=draw(st.integers(1, probes)),
    )


class BreakerBesideAModel(RuleBasedStateMachine):
    """Calls begin, end well, badly, slowly, or say nothing; time passes; it is opened and closed by hand."""

    @initialize(policy=policies())
    def made(self, policy: BreakerPolicy) -> None:
        self.clock = FakeClock(0.0)
        self.breaker = CircuitBreaker("it", policy, clock=self.clock)
        self.model = Model(policy)
        self.calls: list[tuple[int, int]] = []  # its turn, and the model's age, when it began
        self.refused = 0

    @rule()
    def begin(self) -> None:
        try:
            turn = self.breaker.ask()
        except BreakerOpen:
            self.refused += 1
            assert not self.model.ask(self.clock())
        else:
            assert self.model.ask(self.clock())
            self.calls.append((turn, self.model.age))

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 50), failed=st.booleans(), slow=st.sampled_from([False, False, True]))
    def end(self, which: int, failed: bool, slow: bool) -> None:
        turn, age = self.calls.pop(which % len(self.calls))
        self.breaker.answered(turn, SLOW if slow else 0.1, failed=failed)
        self.model.answered(age, failed, slow, self.clock())

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 50))
    def say_nothing(self, which: int) -> None:
        turn, age = self.calls.pop(which % len(self.calls))
        self.breaker.give_back(turn)
        self.model.gave_back(age)

    @rule(seconds=st.sampled_from([1.0, 4.0, 12.0, 20.0]))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(times=st.integers(1, 6), failed=st.booleans())
    def call(self, times: int, failed: bool) -> None:
        """Several of one kind, one after the other: what fails fails for a while."""
        for _ in range(times):
            before = len(self.calls)
            self.begin()
            if len(self.calls) > before:
                self.end(before, failed, False)

    @rule(what=st.sampled_from([0.0, 3.0, float("inf")]))
    def by_hand(self, what: float) -> None:
        now = self.clock()
        if what:
            self.breaker.open(seconds=None if what == float("inf") else what)
            self.model.move("open", now)
            self.model.wait = what
        else:
            self.breaker.close()
            self.model.close(now)

    @invariant()
    def the_breaker_is_as_the_model(self) -> None:
        if not hasattr(self, "breaker"):
            return
        seen, model = self.breaker.snapshot(), self.model
        assert (seen.state, seen.refused) == (model.state, self.refused)
        if model.state == "open":
            left = max(0.0, model.since + model.wait - self.clock())
            assert seen.retry_after == (None if left == float("inf") else left)
        else:
            shown = model.answers[-model.policy.window :] if model.state == "closed" else model.answers
            assert seen.calls == len(shown)
            assert (seen.failed, seen.slow) == (sum(f for f, _ in shown), sum(s for _, s in shown))


TestBreakerBesideAModel = BreakerBesideAModel.TestCase
TestBreakerBesideAModel.settings = settings(max_examples=500)
