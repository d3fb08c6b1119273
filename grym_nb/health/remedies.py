"""What recovery may do to a service, and by which policy: each step is stronger than the one before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args

from grym_nb.errors import ConfigError, Problem, says_what_it_takes
from grym_nb.hardening.policy import NUMBER, SECONDS, WHOLE, Fit, Policy
from grym_nb.hardening.returning import give_back
from grym_nb.health.signs import Kind
from grym_nb.render import brief
from grym_nb.services.mending import abandon, load_proven

if TYPE_CHECKING:
    from grym_nb.services.record import ServiceRecord
    from grym_nb.services.registry import ServiceRegistry

__all__ = ["DOES", "Policies", "RecoveryPolicy", "Step", "lacks", "policies_of", "take"]

Step = Literal["reset", "reload", "restart"]

#: what a step does to a service, in words
DOES: Mapping[str, str] = {
    "reset": "lets go of what is only remembered",
    "reload": "loads it anew when its calls have ended",
    "restart": "loads it anew while calls that still run keep the old model",
}


def _all_of(value: object, known: tuple[str, ...]) -> bool:
    return isinstance(value, tuple) and all(one in known for one in value)


@says_what_it_takes
@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryPolicy(Policy):
    """What is tried, in which order, and how often.

    `on` are the kinds of signs after which it is worth while: by default what another try may cure, and not
    that the author's code raises; a breaker that opens has the service pinged, and says nothing by itself.
    A step that was taken because calls fail, or are slow, is on trial until enough of them went well or badly
    again: then it has helped, or the next one is taken. For one that nobody calls within `relapse_seconds` of
    the step (and of the time for which its breaker is open), or that somebody else loads, it is unproven, at
    no cost of the budget.
    Between two attempts are `pause` seconds, each time `factor` times as many, up to `max_pause`. A service
    that is unhealthy again within `relapse_seconds` of its last recovery gets the next step. It is left as
    failed after `budget` attempts that did not help, in a row or within `budget_seconds`, and left to itself
    for a while after as many that did: what is restarted under a call that hangs leaves a model behind. What
    can never fit is left as failed at once.
    `drain_seconds` is how long a reload waits for calls, `ping_seconds` how long a ping may take,
    `attempt_seconds` an attempt.
    """

    steps: tuple[Step, ...] = ("reset", "reload", "restart")
    on: tuple[str, ...] = ("breaker", "stuck", "ping")
    pause: float = 0.5
    factor: float = 2.0
    max_pause: float = 30.0
    relapse_seconds: float = 120.0
    budget: int = 8
    budget_seconds: float = 600.0
    drain_seconds: float = 5.0
    ping_seconds: float = 10.0
    attempt_seconds: float = 600.0

    REFUSAL: ClassVar[str] = "nothing can be mended so"
    FITS: ClassVar[Mapping[str, Fit]] = {
        "steps": Fit(
            "some of reset, reload and restart",
            lambda value: bool(value) and _all_of(value, tuple(_STEPS)),
        ),
        "on": Fit(
            f"some of {', '.join(get_args(Kind))}",
            lambda value: _all_of(value, get_args(Kind)),
        ),
        "pause": SECONDS,
        "factor": NUMBER,
        "max_pause": SECONDS,
        "relapse_seconds": SECONDS,
        "budget": WHOLE,
        "budget_seconds": SECONDS,
        "drain_seconds": SECONDS,
        "ping_seconds": SECONDS,
        "attempt_seconds": SECONDS,
    }

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Return the policy with these values; YAML and JSON know lists only, so they will do, too."""
        fit = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        return super(RecoveryPolicy, cls).of(fit)  # by name: slots make a class anew, which super() misses


def lacks(record: ServiceRecord) -> bool:
    """Tell whether something is left as failed that a service cannot do without."""
    return any(need.given_up for need in record._family.required(record))


def take(step: Step, record: ServiceRecord, policy: RecoveryPolicy) -> None:
    """Take a step; what is loaded by it has answered a ping."""
    _STEPS[step](record, policy)


def _reset(record: ServiceRecord, policy: RecoveryPolicy) -> None:
    """Let go of what is only remembered; what has failed to load is tried again."""
    record.ports.failures.clear(record.name)
    give_back()
    if record.lifecycle.state in ("failed", "registered"):  # the latter: there was no room for it before
        load_proven(record, policy.ping_seconds)


def _reload(record: ServiceRecord, policy: RecoveryPolicy) -> None:
    abandon(record, "recovery", policy.drain_seconds)
    load_proven(record, policy.ping_seconds)


def _restart(record: ServiceRecord, policy: RecoveryPolicy) -> None:
    """As a reload, but nobody is waited for: a call that hangs keeps its model to itself."""
    abandon(record, "recovery", 0.0)
    load_proven(record, policy.ping_seconds)


_STEPS: dict[str, Callable[[ServiceRecord, RecoveryPolicy], None]] = {
    "reset": _reset,
    "reload": _reload,
    "restart": _restart,
}


class Policies:
    """What is done about each service: its `own` policy by its name, else the `usual` one."""

    def __init__(
        self,
        registry: ServiceRegistry,
        usual: RecoveryPolicy,
        own: Mapping[str, RecoveryPolicy | None],
    ) -> None:
        self._registry = registry
        self.usual = usual
        self.own = dict(own)

    def of(self, name: str) -> RecoveryPolicy | None:
        """Return what is done about a service, which may be gone; None: it is not to be mended."""
        if name in self.own:
            return self.own[name]
        handle = self._registry.get(name, None)
        return self.usual if handle is None or handle._record.spec.recoverable else None


def policies_of(
    usual: Mapping[str, Any], named: Mapping[str, Mapping[str, Any] | None]
) -> tuple[RecoveryPolicy, dict[str, RecoveryPolicy | None]]:
    """Return what the settings say is done, in general and by name; raises for what does not fit."""
    return _policy_of("recovery", usual), {
        name: None if given is None else _policy_of(f"recoveries[{name!r}]", given)
        for name, given in named.items()
    }


def _policy_of(where: str, given: Any) -> RecoveryPolicy:
    if not isinstance(given, Mapping):
        problem = Problem(where, brief(given), "a mapping (on, steps, ...), or None: nothing is done")
        raise ConfigError("the settings do not fit", problems=[problem])
    try:
        return RecoveryPolicy.of(given)
    except ConfigError as error:
        raise ConfigError(f"{where} of the settings does not fit", problems=error.problems) from None
