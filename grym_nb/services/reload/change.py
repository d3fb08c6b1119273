"""What other code for a service takes: to be put in force, no more; other attributes; or another load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from inspect import getattr_static
from typing import TYPE_CHECKING, Any

from grym_nb.services.content import PLAIN, code_of, is_settled
from grym_nb.services.model import needs_of
from grym_nb.services.reads import same
from grym_nb.services.reload.attributes import attributes_of
from grym_nb.services.reload.generators import random_kept
from grym_nb.services.reload.loads import HOOKS, INIT, changed_in_load, load_of

if TYPE_CHECKING:
    from grym_nb.services.instance import Instance
    from grym_nb.services.spec import ServiceSpec

__all__ = ["Change", "Newer", "change_of", "class_of", "stale"]

#: what takes the place of a class or function that was changed; None for all others
Newer = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Change:
    """What another spec asks for: `asks` is why its model has to be loaded anew, empty where it has not.

    Else `news` are the attributes that its `__init__` would set and the model lacks, `others` those that it
    would set to something else.
    """

    asks: str = ""
    news: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, Any] = field(default_factory=dict)


def change_of(before: ServiceSpec, after: ServiceSpec, instance: Instance, newer: Newer) -> Change:
    """Return what it takes to go from one registration to another with the model that is there."""
    model = instance.model
    old = type(model)
    new = class_of(after, model, newer)
    if new is None:
        return Change("only a call of its factory tells what that makes")
    if set(needs_of(old)) != set(needs_of(new)) or before.stated_needs != after.stated_needs:
        return Change("it needs other services")
    if changed := _changed(before, after, (old, new)):
        return Change(f"its load is another one ({', '.join(changed)})")
    if not (_is_class(before) and _is_class(after)):
        if before.config != after.config:
            return Change("its factory is a function, and is given other config")
        return Change()
    if code_of(_given(before)) == code_of(_given(after)) and not _changed(before, after, (old, new), INIT):
        return Change()  # it would set what it has set
    with random_kept():
        was, now, again = _blank(before), _blank(after), _blank(before)
    if was is None or now is None or again is None:
        return Change("its __init__ cannot be tried")
    for name in {name for name in was if name in now and not _alike(was[name], again.get(name))}:
        del now[name]  # it is drawn anew each time: that the two differ says nothing
    if (named := _named_by_init(before, after)) and not _is_as_set(model, now):
        return Change(f"its __init__ names what is another one ({', '.join(named)})")
    others = {name: value for name, value in now.items() if name in was and not _alike(value, was[name])}
    news = {name: value for name, value in now.items() if name not in was}
    read = others.keys() if instance.read is None else others.keys() & instance.read
    if read:
        return Change(f"its load reads what is set otherwise ({', '.join(sorted(read))})")
    return Change("", news, others)


def _changed(
    before: ServiceSpec, after: ServiceSpec, classes: tuple[type, type], hooks: tuple[str, ...] = HOOKS
) -> tuple[str, ...]:
    """Return by what a load, or what else is run once, is another one.

    Of cells by what was noted as they were registered: the old one sees the new helpers by now.
    """
    noted = [spec.reached.loads.get(hooks) for spec in (before, after) if spec.reached is not None]
    if len(noted) == 2 and noted[0] is not None and noted[1] is not None:
        return changed_in_load(noted[0], noted[1])
    factories = [None if _is_class(spec) or hooks is not HOOKS else spec.callable for spec in (before, after)]
    old, new = (load_of(cls, factory, hooks) for cls, factory in zip(classes, factories, strict=True))
    return changed_in_load(old, new)


def _named_by_init(before: ServiceSpec, after: ServiceSpec) -> list[str]:
    """Return what an `__init__` from a cell names that is another one: what the old has set is not known."""
    if before.reached is None or after.reached is None:
        return []
    was, now = before.reached.loads.get(INIT, {}), after.reached.loads.get(INIT, {})
    return [name for name in was if name in now and name != "self.__init__" and was[name] != now[name]]


def _is_as_set(model: Any, set_now: Mapping[str, Any]) -> bool:
    """Tell whether the constants among a model's attributes are those that `__init__` sets now."""
    there = attributes_of(model)
    constants = {name: value for name, value in set_now.items() if isinstance(value, PLAIN) and name in there}
    return all(_alike(value, there[name]) for name, value in constants.items())


def _alike(one: Any, other: Any) -> bool:
    """Tell whether two values differ in nothing but that they are two, as two locks do, or two queues."""
    if same(one, other) or code_of(one) == code_of(other):
        return True
    kind = type(one)
    compares: object = kind.__eq__
    return kind is type(other) and compares is object.__eq__ and is_settled(kind.__module__)


def class_of(spec: ServiceSpec, model: Any, newer: Newer) -> Any:
    """Return the class that a model of a spec has, as far as that is known without making one."""
    return spec.made_class or newer(type(model)) or type(model)


def _is_class(spec: ServiceSpec) -> bool:
    made = spec.callable
    while isinstance(made, partial):
        made = made.func
    return isinstance(made, type)


def _given(spec: ServiceSpec) -> list[Any]:
    """Return what `__init__` is given, by the config and by partials."""
    given: list[Any] = [spec.config]
    made = spec.callable
    while isinstance(made, partial):
        given += [made.args, made.keywords]
        made = made.func
    return given


def _blank(spec: ServiceSpec) -> dict[str, Any] | None:
    """Return what `__init__` sets; None where it raises."""
    try:
        return attributes_of(spec.callable(**spec.config))
    except Exception:
        return None


def stale(
    before: ServiceSpec, after: ServiceSpec, classes: tuple[type, type], state: Mapping[str, Any]
) -> set[str]:
    """Return the attributes in which cached properties keep what other code has computed."""
    kept = [name for name in state if isinstance(getattr_static(classes[0], name, None), cached_property)]
    return {name for name in kept if _changed(before, after, classes, (name,))}
