"""Validation declared on signatures: types and checks, all problems at once.

One implementation serves the arguments of tasks and the config of services. A signature is read once; a
call with the right number of plain positional arguments then costs a comparison and its own checks.

>>> def scale(clip, gain: Annotated[float, within(0, 2)] = 1.0): ...
>>> [str(problem) for problem in Checker(scale).problems(("clip", 3.5), {})]
['gain: found 3.5, expected a number from 0 to 2']
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Union

from grym_nb.errors import ConfigError, Problem, says_what_it_takes
from grym_nb.render import brief, redacted

__all__ = ["Check", "Checker", "not_empty", "one_of", "positive", "within"]


@dataclass(frozen=True, slots=True)
class Check:
    """A condition on one value, for ``Annotated[type, check]``: what is expected, and the test."""

    expected: str
    test: Callable[[Any], bool] = field(repr=False)

    def holds(self, value: Any) -> bool:
        """Tell whether `value` passes; a test that raises counts as not passed."""
        try:
            return bool(self.test(value))
        except Exception:  # a comparison between strangers
            return False


@says_what_it_takes
def within(low: float, high: float) -> Check:
    """Return a check that a number lies in [low, high]."""
    ends: tuple[Any, Any] = (low, high)
    if not (all(isinstance(end, Real) for end in ends) and low <= high):
        problem = Problem("within", f"{brief(low)} and {brief(high)}", "two numbers, the lower one first")
        raise ConfigError("this check could never pass", problems=[problem])
    return Check(f"a number from {low:g} to {high:g}", lambda v: low <= v <= high)


def positive() -> Check:
    """Return a check that a number is above zero."""
    return Check("a number above 0", lambda v: v > 0)


def one_of(*choices: Any) -> Check:
    """Return a check that a value is one of `choices`."""
    if not choices:
        raise ConfigError("this check could never pass", hint="one_of('fast', 'exact')")
    return Check("one of " + ", ".join(map(repr, choices)), lambda v: v in choices)


def not_empty() -> Check:
    """Return a check that something has a length above zero."""
    return Check("something that is not empty", lambda v: len(v) > 0)


def _named(kind: type) -> Check:
    # By name, not by identity: a class that was reloaded or redefined is still what it is called.
    wanted = (kind.__module__, kind.__qualname__)
    return Check(
        _HOW.get(wanted, kind.__name__),
        lambda v: (
            isinstance(v, kind) or any((c.__module__, c.__qualname__) == wanted for c in type(v).__mro__)
        ),
    )


_PLAIN: dict[Any, Check] = {
    float: Check("a number", lambda v: isinstance(v, Real) and not isinstance(v, bool)),
    int: Check("a whole number", lambda v: isinstance(v, Integral) and not isinstance(v, bool)),
    bool: Check("True or False", lambda v: type(v).__name__ in ("bool", "bool_")),
    str: Check("text", lambda v: isinstance(v, str)),
    bytes: Check("bytes", lambda v: isinstance(v, (bytes, bytearray, memoryview))),
    None: Check("None", lambda v: v is None),
    type(None): Check("None", lambda v: v is None),
}
#: how a value of ours is come by, where its name alone would not tell
_HOW = {("grym_nb.clip.sound", "Clip"): "a Clip, such as grym.Clip.read(path)"}
_CONTAINERS = (list, tuple, dict, set, frozenset)
_KNOWN_ROOTS = ("grym_nb", "numpy", "torch")


def _rules(annotation: Any) -> list[Check]:
    """Return the checks an annotation asks for; none for what we do not judge (users' own classes)."""
    if annotation in (Any, inspect.Parameter.empty):
        return []
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        inner, *extra = typing.get_args(annotation)
        # `positive` for `positive()`: what else could be meant.
        made = [check() if check in (positive, not_empty) else check for check in extra]
        if unmade := [check.__name__ for check in made if check in (within, one_of)]:
            raise ConfigError(f"the check {unmade[0]} says not what it checks", hint=f"{unmade[0]}(...)")
        return [*_rules(inner), *(check for check in made if isinstance(check, Check))]
    if origin in (Union, types.UnionType):
        options = [_rules(option) for option in typing.get_args(annotation)]
        if not all(options):
            return []
        return [
            Check(
                " or ".join(" and ".join(c.expected for c in option) for option in options),
                lambda v: any(all(c.holds(v) for c in option) for option in options),
            )
        ]
    if origin is Literal:
        return [one_of(*typing.get_args(annotation))]
    kind = origin or annotation
    if kind in _CONTAINERS:
        return [Check(f"a {kind.__name__}", lambda v: isinstance(v, kind))]
    if isinstance(kind, type) and kind.__module__.split(".")[0] in _KNOWN_ROOTS:
        return [_named(kind)]
    try:
        return [_PLAIN[kind]] if kind in _PLAIN else []
    except TypeError:  # an unhashable annotation says nothing to us
        return []


class Checker:
    """What a function accepts: read once from its signature, asked at every call."""

    __slots__ = ("_checks", "_keywords", "_most", "_required", "_signature", "_starred", "names")

    def __init__(self, function: Callable[..., Any], *, method: bool = False) -> None:
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        # A decorator without `wraps` leaves `(*args, **kwargs)`, in which there is no `self` to leave out.
        if method and parameters and parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL:
            del parameters[0]
        self._signature = signature.replace(parameters=parameters)
        hints = _hints(function)
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        self.names = tuple(p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
        self._most = len(positional)
        self._starred = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        # The fewest positional arguments that leave nothing out, or more than there are when a
        # keyword-only one is required: then the short way is closed.
        self._required = sum(p.default is p.empty for p in positional)
        if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
            self._required = self._most + 1
        self._checks: dict[str, list[Check]] = {
            p.name: rules
            for p in parameters
            if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
            and (rules := _rules(hints.get(p.name, p.annotation)))
        }
        self._keywords = {p.name: i for i, p in enumerate(positional)}

    def problems(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Problem, ...]:
        """Return everything that is wrong with these arguments."""
        if not kwargs and self._required <= len(args) <= self._most:
            if not self._checks:
                return ()
            given: Mapping[str, Any] = dict(zip(self._keywords, args, strict=False))
        else:
            try:
                given = self._signature.bind(*args, **kwargs).arguments
            except TypeError:
                return tuple(self._misfits(args, kwargs))
            if self.missing(given):  # Python 3.13.0 binds `f(x, /, **kw)` to f(x=1)
                return tuple(self._misfits(args, kwargs))
        return tuple(self._wrong(given))

    def _wrong(self, given: Mapping[str, Any]) -> Iterator[Problem]:
        for name, checks in self._checks.items():
            if name in given:
                for check in checks:
                    if not check.holds(given[name]):
                        # To say a default aloud changes nothing, even `None` for an `x: float = None`.
                        if given[name] is not self._signature.parameters[name].default:
                            found = redacted({name: given[name]})[name]  # it may be a secret
                            yield Problem(name, found, check.expected)
                        break

    def _misfits(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[Problem]:
        """Name every argument that does not bind, and judge those that do."""
        if len(args) > self._most and not self._starred:
            yield Problem("arguments", f"{len(args)} positional", f"at most {self._most}")
        given = dict(zip(self._keywords, args, strict=False))
        parameters = self._signature.parameters
        unnamed = {n for n, p in parameters.items() if p.kind is p.POSITIONAL_ONLY}
        for name, value in kwargs.items():
            if name in unnamed:
                if self._open:
                    continue  # `**kwargs` takes it: the parameter itself has no name to callers
                yield Problem(name, "a value by name", "a value by position")
            elif name in given:
                yield Problem(name, "a value by position and one by name", "one of them")
            elif name not in self.names and not self._open:
                known = f"no such argument; there are: {', '.join(self.names) or 'none'}"
                yield Problem(name, redacted({name: value})[name], known)
            given[name] = value
        for name in self.missing(given):
            yield Problem(name, "nothing", "a value: it has no default")
        yield from self._wrong(given)

    def strangers(self, kwargs: Mapping[str, Any]) -> list[Problem]:
        """Return the keyword arguments that no parameter takes."""
        if self._open:
            return []
        return [p for p in self._misfits((), kwargs) if p.path in kwargs and p.path not in self.names]

    def missing(self, given: Mapping[str, Any]) -> list[str]:
        """Return the names without a default that `given` lacks."""
        return [
            p.name
            for p in self._signature.parameters.values()
            if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
            and p.default is p.empty
            and p.name not in given
        ]

    def place_of(self, name: str) -> int | None:
        """Return the position at which a parameter can be given; None when it is by name only."""
        return self._keywords.get(name)

    def is_unnamed(self, name: str) -> bool:
        """Tell whether a parameter can only be given by position."""
        return self._signature.parameters[name].kind is inspect.Parameter.POSITIONAL_ONLY

    def takes(self, count: int) -> bool:
        """Tell whether it can be called with that many arguments by position, whatever they are."""
        try:
            self._signature.bind(*range(count))
        except TypeError:
            return False
        return True

    def names_after(self, taken: int) -> list[str]:
        """Return the parameters that can be given by name, after the first `taken` by position."""
        parameters = self._signature.parameters
        given = list(self._keywords)[:taken]
        return [
            name
            for name in self.names
            if name not in given and parameters[name].kind is not inspect.Parameter.POSITIONAL_ONLY
        ]

    @property
    def _open(self) -> bool:
        return any(p.kind is p.VAR_KEYWORD for p in self._signature.parameters.values())

    @property
    def signature(self) -> str:
        """The signature as text, without the instance, types by their bare names."""
        told = [p.replace(annotation=_bare(p.annotation)) for p in self._signature.parameters.values()]
        result = _bare(self._signature.return_annotation)
        return str(self._signature.replace(parameters=told, return_annotation=result))

    def defaults(self) -> dict[str, Any]:
        """Return the default of every parameter that has one."""
        return {p.name: p.default for p in self._signature.parameters.values() if p.default is not p.empty}


class _Bare:
    """An annotation as its bare text, where `inspect` would print a quoted string."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _bare(annotation: Any) -> Any:
    if annotation is inspect.Parameter.empty:
        return annotation
    if typing.get_origin(annotation) is Annotated:
        inner, *checks = typing.get_args(annotation)
        told = " and ".join(check.expected for check in checks if isinstance(check, Check))
        return _Bare(f"{_bare(inner)!r} ({told})" if told else repr(_bare(inner)))
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return _Bare(re.sub(r"\b(?:[A-Za-z_]\w*\.)+([A-Za-z_]\w*)", r"\1", text))


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # an annotation that names what is not there says nothing to us
        return {}
