"""How the calls of a service are guarded: each value with where it was said.

What is said nearest to the service counts: `register`, then the settings for it, then those for all.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from grym_nb.errors import ConfigError, GrymError, Problem, closest
from grym_nb.hardening import BreakerPolicy, Retry
from grym_nb.hardening.policy import FLAG, Policy
from grym_nb.hardening.resources import canonical
from grym_nb.render import Table, brief, seconds
from grym_nb.services.content import code_of

__all__ = ["CallPolicy", "check_layers", "content_of", "layers_of", "parsed"]

_Fallback = Callable[..., Any]


@dataclass(frozen=True, slots=True, repr=False)
class CallPolicy:
    """The policy of a service's calls. `sources` tells where each value was said; the rest is the default.

    `timeout` is how many seconds a call has, `retry` how it is tried again, `breaker` when the service is not
    asked any more, `max_waiting` how many calls may stand in line, `fallback` what answers when all has
    failed: ``f(error, *args, **kwargs)``. `device` is where its calls take turns with those of others (None:
    where the model says it is, or its config), and `exclusive` whether they have it for themselves (None: if
    it is an accelerator).
    """

    timeout: float | None = None
    retry: Retry | None = None
    breaker: BreakerPolicy | None = None
    max_waiting: int | None = None
    fallback: _Fallback | None = None
    device: str | None = None
    exclusive: bool | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, *layers: tuple[str, Mapping[str, Any]]) -> Self:
        """Return the policy of layers, the last one counting most: each says where, and what."""
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for source, said in layers:
            values |= said
            sources |= dict.fromkeys(said, source)
        return cls(**values, sources=sources)

    def table(self) -> Table:
        """Return it as a table: each value, and where it was said."""
        rows = [
            (name, tell(getattr(self, name)), self.sources.get(name, "default"))
            for name, tell in _WORDS.items()
        ]
        return Table("policy", ("what", "value", "said by"), rows)

    def __repr__(self) -> str:
        return self.table().text()

    def _repr_html_(self) -> str:
        return self.table().html()


# -- what may be said ------------------------------------------------------------------------------


def parsed(given: Mapping[str, Any], path: str = "") -> tuple[dict[str, Any], list[Problem]]:
    """Return the values of a policy as they are meant, and all that is wrong with them."""
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, value in given.items():
        read = _READ.get(name)
        if read is None:
            near = closest(str(name), _READ)
            problems.append(Problem(f"{path}{name}", brief(value), f"one of {', '.join(_READ)}.{near}"))
            continue
        try:
            values[name] = read(value)
        except GrymError as error:
            found = getattr(error, "problems", ())
            problems += [Problem(f"{path}{p.path}", p.found, p.expected) for p in found]
    return values, problems


def content_of(value: Any) -> Any:
    """Return what a value of a policy is, by its content: two that say the same are equal."""
    if isinstance(value, Policy):
        return tuple([code_of(getattr(value, one.name)) for one in fields(value) if one.compare])  # type: ignore[arg-type]
    return code_of(value)


def _refused(name: str, value: Any, expected: str) -> ConfigError:
    return ConfigError("this is no policy", problems=[Problem(name, brief(value), expected)])


def _within(name: str, make: Callable[[Mapping[str, Any]], Any], value: Mapping[str, Any]) -> Any:
    try:
        return make(value)
    except ConfigError as error:
        problems = [Problem(f"{name}.{p.path}", p.found, p.expected) for p in error.problems]
        raise ConfigError("this is no policy", problems=problems) from None


def _timeout(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
        return float(min(value, threading.TIMEOUT_MAX))
    raise _refused("timeout", value, "seconds above 0, or None for no limit")


def _retry(value: Any) -> Retry | None:
    if value is None or isinstance(value, Retry):
        return value
    if isinstance(value, Mapping):
        made: Retry = _within("retry", Retry.of, value)
        return made
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return Retry(attempts=value) if value > 1 else None
    raise _refused("retry", value, "how many attempts in all, Retry(...) or its values, or None")


def _breaker(value: Any) -> BreakerPolicy | None:
    if value is None or value is False:
        return None
    if value is True:
        return BreakerPolicy()
    if isinstance(value, BreakerPolicy):
        return value
    if isinstance(value, Mapping):
        made: BreakerPolicy = _within("breaker", BreakerPolicy.of, value)
        return made
    raise _refused("breaker", value, "True, BreakerPolicy(...) or its values, or None")


def _max_waiting(value: Any) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise _refused("max_waiting", value, "a whole number from 0, or None for no limit")


def _fallback(value: Any) -> _Fallback | None:
    if value is None:
        return None
    if callable(value) and _takes_one(value):
        made: _Fallback = value
        return made
    raise _refused("fallback", value, "a function that takes the error first: f(error, *args, **kwargs)")


def _takes_one(function: Any) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of what is written in C
        return True
    return any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL) for p in parameters)


def _device(value: Any) -> str | None:
    if value is None:
        return None
    name = str(value)
    if (isinstance(value, str) or type(value).__name__ == "device") and name.strip():
        return canonical(name)
    raise _refused("device", value, "the name of a device such as 'cuda:0', or None for where the model is")


def _exclusive(value: Any) -> bool | None:
    if value is None or FLAG.fits(value):
        flag: bool | None = value
        return flag
    raise _refused("exclusive", value, "True, False, or None: if the device is an accelerator")


_READ: dict[str, Callable[[Any], Any]] = {
    "timeout": _timeout,
    "retry": _retry,
    "breaker": _breaker,
    "max_waiting": _max_waiting,
    "fallback": _fallback,
    "device": _device,
    "exclusive": _exclusive,
}


# -- in words --------------------------------------------------------------------------------------


def _differing(policy: Any) -> str:
    """Return the values of a policy that are not what they are anyway."""
    usual = type(policy)()
    names = [one.name for one in fields(policy) if one.compare]
    told = [f"{n}={getattr(policy, n)!r}" for n in names if getattr(policy, n) != getattr(usual, n)]
    return ", ".join(told) or "as usual"


_WORDS: dict[str, Callable[[Any], str]] = {
    "timeout": lambda value: seconds(value) if value is not None else "none",
    "retry": lambda value: "none" if value is None else f"{value.attempts} attempts ({_differing(value)})",
    "breaker": lambda value: "none" if value is None else _differing(value),
    "max_waiting": lambda value: "any number" if value is None else str(value),
    "fallback": lambda value: "none" if value is None else brief(value),
    "device": lambda value: value or "where the model says it is",
    "exclusive": lambda value: "on accelerators" if value is None else "yes" if value else "no",
}


def check_layers(everywhere: Mapping[str, Any], by_service: Mapping[str, Any]) -> None:
    """Raise a `ConfigError` that lists all that is wrong with what the settings say."""
    problems = parsed(everywhere, "policy.")[1]
    for name, given in by_service.items():
        path = f"policies[{name!r}]"
        if isinstance(given, Mapping):
            problems += parsed(given, f"{path}.")[1]
        else:
            problems.append(Problem(path, brief(given), "a mapping such as {'timeout': 30}"))
    if problems:
        raise ConfigError("the settings say no policy", problems=problems)


def layers_of(
    name: str, everywhere: Mapping[str, Any], by_service: Mapping[str, Mapping[str, Any]]
) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Return what the settings say of a service's policy, which was checked when they were taken."""
    for source, given in (("settings", everywhere), ("settings for it", by_service.get(name, {}))):
        yield source, parsed(given)[0]
