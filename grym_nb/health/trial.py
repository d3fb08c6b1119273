"""A step of recovery that is on trial: a ping says nothing of calls, so these have yet to show what it did.

It has helped once enough calls since then are answered well, by the limits that a service is judged by:
calls of its tasks, in the model that is on trial. That they fail speaks against a step, whatever it was taken
for. Where nobody calls in time, or somebody else puts another model in its place, it is unproven, which is
neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from grym_nb.errors import ConfigError, Problem
from grym_nb.health.signs import UNHEALTHY, SignLimits, Vitals, signs_of
from grym_nb.health.vitals import FAILURES, failures, third_of, worst_of
from grym_nb.metrics.histogram import Frozen
from grym_nb.render import brief, count, seconds

if TYPE_CHECKING:
    from grym_nb.health.remedies import Step
    from grym_nb.metrics import Histogram
    from grym_nb.services.record import ServiceRecord

__all__ = ["OF_CALLS", "Calls", "Outcome", "Trial", "calls_of", "model_of", "outcome_of", "proof_of"]

#: what came of a step
Outcome = Literal["helped", "failed", "unproven"]
#: signs that only calls can say are gone
OF_CALLS = frozenset({"errors", "slow"})
_NO_TASK = "use"  # a block with the model in hand: nothing that a service offers was asked of it
_REPLACED = "it was loaded or changed by somebody else before its calls had shown anything"


@dataclass(frozen=True, slots=True)
class Calls:
    """All calls of a service up to a moment: those that failed, by how, and what the answered ones took."""

    failed: Counter[str]
    waited_out: int
    took: Counter[int]  # by bucket of a histogram


def calls_of(record: ServiceRecord) -> Calls:
    """Return the calls of a service's tasks up to now, without those that ended in a model let go of."""
    all_of_them = _ended(record.meters)
    behind = _ended(record.strays)  # after those, which it is a part of: none is taken for one of ours
    waited = record.metrics.select("service.call.waited_out", service=record.name)
    waited_out = int(sum([seen.value for seen in waited]))  # type: ignore[misc]  # a counter's
    return Calls(all_of_them[0] - behind[0], waited_out, all_of_them[1] - behind[1])


def _ended(meters: dict[tuple[str, str], Histogram]) -> tuple[Counter[str], Counter[int]]:
    """Return how many calls failed, by how, and how many were answered, by the bucket of what they took."""
    failed: Counter[str] = Counter()
    took: Counter[int] = Counter()
    for (task, outcome), meter in meters.copy().items():
        if task == _NO_TASK:
            continue
        if outcome == "ok":
            took.update(meter.frozen().buckets)
        elif outcome in FAILURES:
            failed[outcome] += meter.count
    return failed, took


def model_of(record: ServiceRecord) -> tuple[int, int, int]:
    """Return by what the model of a service is told from those before it: its load, code and config."""
    return record.loads, record.code_version, record.config_version


def proof_of(given: Collection[str]) -> frozenset[str]:
    """Return the signs that calls have to show as gone; raises where one of them is none that they can."""
    known = f"some of {', '.join(map(repr, sorted(OF_CALLS)))}, as in proof=('errors',)"
    fits = isinstance(given, Collection) and not isinstance(given, (str, bytes))
    if not fits or not all(isinstance(sign, str) and sign in OF_CALLS for sign in given):
        problem = Problem("proof", brief(given), known)
        raise ConfigError("no call can show that this is gone", problems=[problem])
    return frozenset(given)


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
    model: tuple[int, int, int]  # the one that is on trial, see `model_of`
    before: Calls
    usual: float | None  # p95 of good times

    @classmethod
    def of(
        cls,
        record: ServiceRecord,
        step: Step,
        reason: str,
        signs: frozenset[str],
        began: float,
        since: float,
        until: float,
        usual: float | None,
    ) -> Trial:
        """Return the trial of what is there now, from the calls on that come next."""
        now = model_of(record), calls_of(record)
        return cls(record, step, reason, signs, began, since, until, *now, usual)

    @property
    def replaced(self) -> bool:
        """Whether another model is there than the one on trial: what that does tells nothing of the step."""
        return model_of(self.record) != self.model

    def looked_at_in(self, most: float, now: float) -> float:
        """Return in how many seconds to look at it again: at its end, and at times before and after that.

        Past its end nobody can say what came of it as long as there is no thread for that.
        """
        left = self.until - now
        return min(left, most) if left > 0.0 else most

    def known(self, outcome: Outcome, shown: str) -> tuple[Outcome, str]:
        """Return what came of it and how that shows, as somebody thinks: nothing where it was replaced."""
        return ("unproven", _REPLACED) if self.replaced else (outcome, shown)


def outcome_of(trial: Trial, now: float, limits: SignLimits) -> tuple[Outcome, str] | None:
    """Return what a step did, and how that shows; None as long as nobody knows."""
    if trial.replaced:
        return "unproven", _REPLACED
    vitals, over = _since(trial, now), now >= trial.until
    answered = vitals.calls - vitals.failed
    enough = answered >= limits.least_calls  # to say how quick they are
    if vitals.calls < limits.least_calls and not over:
        return None
    # At the end a few calls have to do: but of few, one may be slow for what it was given.
    found = signs_of(vitals, limits if enough else replace(limits, least_calls=1))
    signs = [sign for sign in found if sign.kind in trial.signs | {"errors"}]  # what fails is no better
    grave = [sign for sign in signs if sign.level == UNHEALTHY and (enough or sign.kind == "errors")]
    if vitals.calls and grave:
        return "failed", grave[0].told
    if answered and not signs and (over or enough or "slow" not in trial.signs):
        return "helped", f"{count(answered, 'call')} went well"
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
