"""What suits a model, made of what is shared: functions chosen by the type of an item and the model's name.

>>> @adapter("tempo", "metronome*")
... def beats_per_second(item):
...     return item.content["bpm"] / 60
>>> adapter_for("tempo", "metronome-2") is beats_per_second
True

What comes with the package is in `builtin`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, NamedTuple, TypeVar

from grym_nb.context.item import ContextItem
from grym_nb.context.storage import readable
from grym_nb.errors import GrymError, Problem, ValidationError, says_what_it_takes
from grym_nb.render import brief

__all__ = ["Adapter", "adapted", "adapter", "adapter_for", "suited"]

Adapter = Callable[[ContextItem], Any]
F = TypeVar("F", bound=Adapter)


class _Registered(NamedTuple):
    source: str
    target: str
    adapt: Adapter
    exactness: tuple[bool, bool, int, bool, int]

    def suits(self, type: str, model: str) -> bool:
        # Also by what stands behind the owner: "facebook/wav2vec2-base".
        named = _matches(model, self.target) or _matches(model.rpartition("/")[2], self.target)
        return named and _matches(type, self.source)


_registered: dict[tuple[str, str], _Registered] = {}
_order = itertools.count(1)


@says_what_it_takes
def adapter(source: str, target: str) -> Callable[[F], F]:
    """Return a decorator: the function makes of an item the content that suits a model.

    `source` matches the types of items and `target` the names of models, whatever their case and owner
    (``"facebook/wav2vec2-base"``); ``*`` stands for any characters, ``?`` for one. The same pair again
    replaces what was registered: a cell that is run twice registers once.
    """
    _refuse(source=source, target=target)

    def register(function: F) -> F:
        _refuse(function=function)
        one = _made(source, target, function, ours=False)
        _registered[one.source, one.target] = one
        return function

    return register


def adapter_for(type: str, model: str) -> Adapter | None:
    """Return what adapts items of a type to a model, or None.

    The most exact one: first by the model, then by the type, then by how many characters are no wildcards.
    Of equal ones a user's, and of those the last.
    """
    _refuse(type=type, model=model)
    type, model = type.lower(), model.lower()
    suits = [one for one in (*_built_in(), *list(_registered.values())) if one.suits(type, model)]
    return max(suits, key=lambda one: one.exactness).adapt if suits else None


def adapted(items: Sequence[ContextItem], model: str, own: Adapter | None = None) -> list[ContextItem]:
    """Return the items with the content that suits a model; what nothing is registered for as it is.

    `own`, the model's own, goes before whatever is registered. Raises once for all items, with everything
    that is wrong with each.
    """
    suits, problems = suited(items, model, own)
    if problems:
        raise ValidationError(f"this context does not suit {model!r}", problems=problems)
    return suits


def suited(
    items: Sequence[ContextItem], model: str, own: Adapter | None = None
) -> tuple[list[ContextItem], list[Problem]]:
    """Return the items that suit a model, adapted, and what is wrong with each of the others."""
    _refuse(model=model, **({} if own is None else {"own": own}))
    chosen = {type: own or adapter_for(type, model) for type in {item.type for item in items}}
    problems: list[Problem] = []
    tried = [_adapted(item, chosen[item.type], problems) for item in items]
    return [item for item in tried if item is not None], problems


def _adapted(item: ContextItem, adapt: Adapter | None, problems: list[Problem]) -> ContextItem | None:
    try:
        readable(item)
        if adapt is None:
            return item
        content = adapt(item)
    except Exception as error:
        problems += _problems(item, error)
        return None
    if isinstance(content, ContextItem):
        content = content.content  # it gave back the item, and meant what is in it
    return item if content is item.content else item._replace(content=content)


def _problems(item: ContextItem, error: Exception) -> list[Problem]:
    """Return what an adapter said is wrong with an item, each with the item's name."""
    where = f"{item.id} ({item.type!r}, key={item.key!r})"
    told = getattr(error, "problems", ()) or getattr(error, "details", {}).get("problems", ())
    if isinstance(error, GrymError) and told:
        return [Problem(f"{where}.{one.path}", one.found, one.expected) for one in told]
    found = f"{type(error).__name__}: {_message(error)}"
    return [Problem(f"{where}.content", found, "a content that its adapter can use")]


def _message(error: Exception) -> str:
    try:
        return error.message if isinstance(error, GrymError) else str(error)
    except Exception:  # a stranger that cannot even say what is wrong
        return brief(error)


# -- which one -------------------------------------------------------------------------------------


def _made(source: str, target: str, adapt: Adapter, *, ours: bool) -> _Registered:
    source, target = source.lower(), target.lower()
    literal = sum(character not in "*?" for character in source + target)
    exactness = (_is_exact(target), _is_exact(source), literal, not ours, next(_order))
    return _Registered(source, target, adapt, exactness)


def _is_exact(pattern: str) -> bool:
    return "*" not in pattern and "?" not in pattern


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern.replace("[", "[[]"))  # a bracket stands for itself


@cache
def _built_in() -> tuple[_Registered, ...]:
    from grym_nb.context.builtin import BUILT_IN

    return tuple(_made("*", target, adapt, ours=True) for target, adapt in BUILT_IN.items())


def _takes_one(function: Callable[..., Any]) -> bool:
    from inspect import signature

    try:
        signature(function).bind(None)
    except TypeError:
        return False
    except ValueError:  # of a builtin, which does not say
        return True
    return True


def _refuse(**given: Any) -> None:
    """Raise for what is not what its name says: a function, or else text."""
    from inspect import iscoroutinefunction

    problems = []
    for name, value in given.items():
        if name in ("function", "own"):
            if not callable(value) or iscoroutinefunction(value) or not _takes_one(value):
                problems.append(Problem(name, brief(value), "a function of an item: f(item) -> content"))
        elif not isinstance(value, str) or not value.strip():
            problems.append(Problem(name, brief(value), "text, such as 'tempo' or 'wav2vec2*'"))
    if problems:
        raise ValidationError("nothing can be adapted so", problems=problems)
