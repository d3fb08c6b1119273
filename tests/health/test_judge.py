"""What speaks against a service, and the verdict that does not flutter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_nb.errors import ConfigError
from grym_nb.health.judge import Judge, Limits
from grym_nb.health.signs import DEGRADED, UNHEALTHY, Sign, SignLimits, Stuck, Vitals, signs_of

SLOW = Sign("slow", DEGRADED, "p95 2.1 s, 3.0 times its usual 700 ms")
FAILING = Sign("errors", UNHEALTHY, "5 of 9 calls failed")
OPEN = Sign("breaker", UNHEALTHY, "its breaker is open", certain=True)


def test_a_quiet_service_has_no_signs() -> None:
    assert signs_of(Vitals(state="ready")) == ()
    assert signs_of(Vitals(state="ready", calls=100, failed=1, p95=0.2, usual=0.15)) == ()
    assert signs_of(Vitals(state="registered", reason="idle")) == ()


@pytest.mark.parametrize(
    ("vitals", "level", "told"),
    [
        (Vitals(state="failed", reason="OSError: no weights"), UNHEALTHY, "OSError: no weights"),
        (Vitals(state="failed"), UNHEALTHY, "it could not be loaded"),
        (
            Vitals(state="ready", breaker="open", breaker_why="5 of 10 failed"),
            UNHEALTHY,
            "its breaker is open: 5 of 10 failed",
        ),
        (Vitals(state="ready", breaker="half open"), DEGRADED, "its breaker lets probes through only"),
        (Vitals(state="ready", calls=10, failed=1), DEGRADED, "1 of 10 calls failed in the last minute"),
        (
            Vitals(state="ready", calls=8, failed=4, worst="ValueError", window=20.0),
            UNHEALTHY,
            "4 of 8 calls failed in the last 20 s, ValueError the most often",
        ),
        (
            Vitals(state="ready", calls=9, p95=2.1, usual=0.7),
            DEGRADED,
            "p95 2.1 s, 3.0 times its usual 700 ms",
        ),
        (
            Vitals(state="ready", calls=9, p95=7.0, usual=0.7),
            UNHEALTHY,
            "p95 7 s, 10.0 times its usual 700 ms",
        ),
        (
            Vitals(state="ready", stuck=(Stuck("asr.go (call 7)", 40.0, "past its deadline"),)),
            UNHEALTHY,
            "asr.go (call 7) runs for 40 s, past its deadline",
        ),
        (
            Vitals(state="ready", slots=2, stuck=(Stuck("asr.go (call 7)", 40.0, "past its deadline"),)),
            DEGRADED,
            "asr.go (call 7) runs for 40 s, past its deadline",
        ),
        (
            Vitals(state="ready", stuck=(Stuck("asr.go (call 7)", 80.0, "longer than any", late=False),)),
            DEGRADED,
            "asr.go (call 7) runs for 1 min 20 s, longer than any",
        ),
        (
            Vitals(state="ready", calls=12, p95=7.0, third=2.1, usual=0.7),
            DEGRADED,
            "3 of 12 calls took 2.1 s or more, 3.0 times its usual 700 ms",
        ),
        (
            Vitals(state="ready", calls=37, p95=0.5, third=0.48, usual=0.0215),
            UNHEALTHY,
            "p95 500 ms, 23.3 times its usual 21.5 ms",
        ),
        (
            Vitals(state="ready", broken="9 of 9 calls failed when it was last used"),
            DEGRADED,
            "9 of 9 calls failed when it was last used",
        ),
        (
            Vitals(state="ready", stuck=(Stuck("a.go (call 6)", 40.0, "past its deadline", "b.ask"),)),
            DEGRADED,
            "a.go (call 6) runs for 40 s, past its deadline, it waits for b.ask",
        ),
        (Vitals(state="ready", unanswered=1, ping="OSError: gone"), DEGRADED, "ping: OSError: gone"),
        (Vitals(state="ready", unanswered=2, ping="OSError: gone"), UNHEALTHY, "ping: OSError: gone"),
        (Vitals(state="ready", waiting=20), DEGRADED, "20 calls wait in line"),
    ],
)
def test_each_sign_says_how_bad_it_is_and_in_words_why(vitals: Vitals, level: int, told: str) -> None:
    [sign] = signs_of(vitals)
    assert (sign.level, sign.told) == (level, told)


def test_few_calls_and_small_times_say_nothing() -> None:
    assert signs_of(Vitals(state="ready", calls=4, failed=4)) == ()
    assert signs_of(Vitals(state="ready", calls=50, p95=0.004, usual=0.0004)) == ()
    assert signs_of(Vitals(state="ready", calls=50, p95=0.2)) == ()
    assert signs_of(Vitals(state="ready", calls=6, p95=9.0, third=0.1, usual=0.1)) == (), "one slow call"
    assert signs_of(Vitals(state="ready", calls=9, failed=5, p95=9.0, usual=0.1))[1:] == ()
    stricter = SignLimits(least_calls=2)
    assert signs_of(Vitals(state="ready", calls=4, failed=4), stricter) != ()


def test_the_worst_sign_comes_first() -> None:
    signs = signs_of(Vitals(state="ready", calls=12, p95=2.1, usual=0.7, failed=7, waiting=50))
    assert [sign.kind for sign in signs] == ["errors", "slow", "queue"]


def test_worse_is_confirmed_and_better_has_to_last() -> None:
    judge = Judge(Limits(worse_seconds=10.0, better_seconds=20.0, looks=2))
    assert judge.look(0.0, (SLOW,)).verdict == "healthy"
    assert judge.look(5.0, (SLOW,)).verdict == "healthy"
    assert judge.look(10.0, (SLOW,)).verdict == "degraded" and judge.health.since == 10.0
    assert judge.look(20.0, ()).verdict == "degraded"
    assert judge.look(30.0, (SLOW,)).verdict == "degraded"  # it came back: from the beginning
    assert judge.look(40.0, ()).verdict == "degraded"
    assert judge.look(59.0, ()).verdict == "degraded"
    assert judge.look(60.0, ()).verdict == "healthy" and judge.health.since == 60.0


def test_a_single_look_convinces_nobody_however_late_it_comes() -> None:
    judge = Judge(Limits(worse_seconds=1.0, better_seconds=1.0, looks=2))
    judge.look(0.0, ())
    assert judge.look(100.0, (FAILING,)).verdict == "healthy"
    assert judge.look(101.0, (FAILING,)).verdict == "unhealthy"


def test_what_is_certain_is_believed_at_once() -> None:
    judge = Judge()
    assert judge.look(0.0, (OPEN,)).verdict == "unhealthy"
    half = Sign("breaker", DEGRADED, "half open", certain=True)
    assert judge.look(1.0, (half,)).verdict == "unhealthy", "that it is better has to last all the same"


def test_what_is_certain_is_believed_whatever_else_there_may_be() -> None:
    judge = Judge(Limits(worse_seconds=10.0, looks=2))
    half = Sign("breaker", DEGRADED, "half open", certain=True)
    assert judge.look(0.0, (FAILING, half)).verdict == "degraded"
    assert judge.look(10.0, (FAILING, half)).verdict == "unhealthy", "which it was all that time"


def test_where_it_was_leaning_is_forgotten_at_rest() -> None:
    judge = Judge(Limits(worse_seconds=10.0, looks=2))
    judge.look(0.0, (FAILING,))
    judge.rest()
    assert judge.look(7200.0, (FAILING,)).verdict == "healthy"
    assert judge.look(7210.0, (FAILING,)).verdict == "unhealthy"


def test_a_verdict_that_lasts_longer_than_its_signs_still_says_what_it_rests_on() -> None:
    judge = Judge(Limits(better_seconds=20.0))
    judge.look(0.0, (OPEN,))
    assert judge.look(5.0, ()).told(5.0) == "just over: its breaker is open"
    health = judge.look(15.0, ())
    assert health.verdict == "unhealthy" and health.signs == ()
    assert health.told(15.0) == "over for 10 s: its breaker is open"
    assert judge.look(25.0, ()).told(25.0) == ""


def test_of_several_levels_the_mildest_has_held_all_the_time() -> None:
    judge = Judge(Limits(worse_seconds=10.0, looks=2))
    judge.look(0.0, (SLOW,))
    assert judge.look(10.0, (FAILING, SLOW)).verdict == "degraded"
    judge.look(12.0, (FAILING, SLOW))
    assert judge.look(22.0, (FAILING, SLOW)).verdict == "unhealthy"


def test_the_reasons_say_since_when() -> None:
    judge = Judge(Limits(worse_seconds=0.0, looks=1))
    judge.look(0.0, (SLOW,))
    health = judge.look(40.0, (FAILING, SLOW))
    assert health.told(40.0) == "5 of 9 calls failed; p95 2.1 s, 3.0 times its usual 700 ms, for 40 s"
    judge.forget()
    assert judge.health.verdict == "unknown" and judge.look(50.0, ()).verdict == "healthy"


@pytest.mark.parametrize(
    "wrong", [{"looks": -1}, {"worse_seconds": "soon"}, {"better_seconds": float("nan")}]
)
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="nobody can be judged so"):
        Limits(**wrong)  # type: ignore[arg-type]


@given(
    st.lists(
        st.tuples(st.floats(0.1, 20.0), st.sampled_from([(), (SLOW,), (FAILING,), (OPEN,)])), max_size=60
    )
)
def test_a_verdict_never_changes_before_that_has_held_for_long_enough(
    looks: list[tuple[float, tuple[Sign, ...]]],
) -> None:
    judge = Judge(Limits(worse_seconds=10.0, better_seconds=20.0, looks=2))
    rank = {"unknown": 0, "healthy": 0, "degraded": 1, "unhealthy": 2}
    now, before, seen = 0.0, 0, [(0.0, 0)]
    for pause, signs in looks:
        now += pause
        seen.append((now, max((sign.level for sign in signs), default=0)))
        after = rank[judge.look(now, signs).verdict]
        if after > before and signs != (OPEN,):
            held = [level for at, level in seen if at > now - 10.0]
            assert len(seen) > 2 and min(held) >= after, "worse, all that time"
        if after < before:
            held = [level for at, level in seen if at > now - 20.0]
            assert len(held) >= 1 and max(held) <= after, "better, all that time"
        before = after
