"""A step of recovery that is on trial: a ping says nothing of calls, so these have yet to show what it did.

It has helped once enough calls since then go well, by the limits that a service is judged by. Where nobody
calls in time it is unproven, which is neither.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from grym_nb.health.signs import UNHEALTHY, SignLimits, Vitals, signs_of
from grym_nb.health.vitals import FAILURES, failures, third_of, worst_of
from grym_nb.metrics.histogram import Frozen
from grym_nb.render import count, seconds

if TYPE_CHECKING:
    from grym_nb.health.remedies import Step
    from grym_nb.services.record import ServiceRecord

__all__ = ["OF_CALLS", "Calls", "Outcome", "Trial", "calls_of", "outcome_of"]

#: what came of a step
Outcome = Literal["helped", "failed", "unproven"]
#: signs that only calls can say are gone
OF_CALLS = frozenset({"errors", "slow"})


@dataclass(frozen=True, slots=True)
class Calls:
    """All calls of a service up to a moment: those that failed, by how, and what the answered ones took."""

    failed: Counter[str]
    waited_out: int
    took: Counter[int]  # by bucket of a histogram


def calls_of(record: ServiceRecord) -> Calls:
    """Return the calls of a service up to now."""
    failed: Counter[str] = Counter()
    took: Counter[int] = Counter()
    for (_, outcome), meter in record.meters.copy().items():
        if outcome == "ok":
            took.update(meter.frozen().buckets)
        elif outcome in FAILURES:
            failed[outcome] += meter.count
    waited = record.metrics.select("service.call.waited_out", service=record.name)
    return Calls(failed, int(sum([seen.value for seen in waited])), took)  # type: ignore[misc]  # a counter's


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A step whose outcome calls have to show, from `since` on, by what they had been like `before`."""

    record: ServiceRecord
    step: Step
    reason: str  # for which the step was taken
    signs: frozenset[str]  # that have to be gone
    began: float  # the step
    since: float
    until: float
    model: tuple[int, int, int]  # the one that is on trial: its load, code and config
    before: Calls
    usual: float | None  # p95 of good times


def outcome_of(trial: Trial, now: float, limits: SignLimits) -> tuple[Outcome, str] | None:
    """Return what a step did, and how that shows; None as long as nobody knows."""
    record, over = trial.record, now >= trial.until
    if (record.loads, record.code_version, record.config_version) != trial.model:
        return "unproven", "it was loaded or changed by somebody else before its calls had shown anything"
    vitals = _since(trial, now)
    enough = vitals.calls >= limits.least_calls
    if not enough and not over:
        return None
    # At the end a few calls have to do: but of few, one may be slow for what it was given.
    found = signs_of(vitals, limits if enough else replace(limits, least_calls=1))
    signs = [sign for sign in found if sign.kind in trial.signs]
    grave = [sign for sign in signs if sign.level == UNHEALTHY and (enough or sign.kind == "errors")]
    if vitals.calls and grave:
        return "failed", grave[0].told
    if vitals.calls and not signs:
        return "helped", f"{count(vitals.calls, 'call')} went well"
    if not over:
        return None
    return "unproven", signs[0].told if signs else f"nobody has called it for {seconds(vitals.window)}"


def _since(trial: Trial, now: float) -> Vitals:
    """Return what calls have shown since the step."""
    record, before, after = trial.record, trial.before, calls_of(trial.record)
    failed = failures(after.failed - before.failed, after.waited_out - before.waited_out)
    answered, bad = Frozen.of(dict(after.took - before.took), 0.0), sum(failed.values())
    return Vitals(
        state=record.lifecycle.state,
        window=now - trial.since,
        calls=answered.count + bad,
        failed=bad,
        worst=worst_of(record, failed),
        p95=answered.percentiles(95)[0],
        third=third_of(answered),
        usual=trial.usual,
    )
