"""New code in the place of the old, with the weights as they are; calls keep the code with which they began.

What serves is a model with the version of its code. The new one is an instance of the new class that shares
the attributes of the old: nothing is copied, nothing is lost, and calls that begin from now on get that one.
Those under way keep theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any

from grym_nb.services.instance import Serving
from grym_nb.services.reads import same
from grym_nb.services.reload.loads import changed_in_load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from grym_nb.services.record import ServiceRecord
    from grym_nb.services.spec import ServiceSpec

__all__ = ["Change", "change_of", "renew", "swap"]


@dataclass(frozen=True, slots=True)
class Change:
    """What another spec asks for: `asks` is why its model has to be loaded anew, empty where it has not.

    Else `news` are the attributes that its `__init__` would set and the model lacks, `others` those that it
    would set to something else.
    """

    asks: str = ""
    news: dict[str, Any] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)


def renew(record: ServiceRecord, spec: ServiceSpec) -> bool:
    """Put other code in force for the model that is there; False where there is none, or it is to be loaded."""
    while True:
        base, instance = record.spec, record.instance
        if instance is None or record.lifecycle.state != "ready":
            return False
        change = change_of(record, spec)
        if change.asks or change.others:
            return False
        if swap(record, spec, base, change):
            return True


def change_of(record: ServiceRecord, spec: ServiceSpec) -> Change:
    """Return what it takes to put a spec with other code in force, for the model that is there."""
    before, instance = record.spec, record.instance
    assert instance is not None
    old, new = type(instance.model), spec.made_class
    if new is None or before.made_class is not old:
        return Change("only a call of its factory tells what that makes")
    if not isinstance(before.callable, (type, partial)) or not isinstance(spec.callable, (type, partial)):
        return Change("its factory is a function, which may load")
    if _slotted(old) or _slotted(new):
        return Change("it keeps attributes in slots")
    if changed := changed_in_load(old, new):
        return Change(f"its load is another one ({', '.join(changed)})")
    was, now = _blank(before), _blank(spec)
    if was is None or now is None:
        return Change("its __init__ cannot be tried")
    others = {name: value for name, value in now.items() if name in was and not same(value, was[name])}
    news = {name: value for name, value in now.items() if name not in was}
    if read := others.keys() & (instance.read if instance.read is not None else others.keys()):
        return Change(f"its load reads what is set otherwise ({', '.join(sorted(read))})")
    there = vars(instance.model)
    return Change("", {name: value for name, value in news.items() if name not in there}, others)


def swap(record: ServiceRecord, spec: ServiceSpec, base: ServiceSpec, change: Change) -> bool:
    """Have calls that begin from now on answered by other code; False where something else came between.

    Held for as long as it takes to put one pointer in the place of another.
    """
    with record.lock:
        instance = record.instance
        if instance is None or record.spec is not base or record.lifecycle.state != "ready":
            return False
        model = _sharing(spec.made_class, instance.model)
        record.adopt(spec)
        vars(model).update({name: value for name, value in change.news.items() if name not in vars(model)})
        vars(model).update(change.others)
        instance.before.append(instance.serving)
        instance.serving = Serving(model, record.version)
        return True


def _sharing(made: Any, model: Any) -> Any:
    """Return an instance of a class that has the attributes of another object, not a copy of them."""
    new = object.__new__(made)
    object.__setattr__(new, "__dict__", vars(model))
    return new


def _blank(spec: ServiceSpec) -> dict[str, Any] | None:
    """Return what `__init__` sets; None where it raises."""
    try:
        return vars(spec.callable(**spec.config))
    except Exception:
        return None


def _slotted(made: type) -> bool:
    return any(vars(base).get("__slots__") for base in made.__mro__)


def bound_in(state: dict[str, Any], model: Any) -> Iterator[tuple[str, MethodType]]:
    """Yield the methods of a model that its own attributes have, by where: they would go on as before."""
    for name, value in state.items():
        if isinstance(value, MethodType) and value.__self__ is model:
            yield name, value
