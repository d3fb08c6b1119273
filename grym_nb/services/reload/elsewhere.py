"""Objects of changed classes, and methods of older models, that no service holds: they are counted.

They go on with the code that they had.

Only when somebody looks: all objects that there are have to be gone through for it, some 20 ms for a million.
So nothing of it is a part of a reload, and what is remembered for it keeps no class.
"""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from types import MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from grym_nb.hardening.storages import module_named
from grym_nb.services.reload.contents import Kinds, called, class_dict
from grym_nb.services.reload.walk import Walk
from grym_nb.services.tiers import there

if TYPE_CHECKING:
    from grym_nb.services.registry import ServiceRegistry

__all__ = ["changed_classes", "models_of", "outside"]


def changed_classes(
    modules: Iterable[ModuleType], newer: Callable[[Any], Any]
) -> tuple[weakref.ref[type], ...]:
    """Return the classes that modules define and that have a newer one; they may go."""
    every = {id(cls): cls for module in modules for cls in _classes(vars(module), module.__name__)}
    asked = Kinds(newer).newer  # which heeds no stranger's metaclass
    return tuple(weakref.ref(cls) for cls in every.values() if asked(cls) is not None)


def _classes(space: dict[str, Any], module: str) -> Iterator[type]:
    for one in tuple(space.values()):
        if issubclass(type(one), type) and module_named(one) == module:
            yield one
            yield from _classes(class_dict(one), module)


def outside(classes: Iterable[weakref.ref[type]], models: Callable[[], Iterable[object]]) -> dict[str, int]:
    """Return how many instances of classes are alive, by name, but for those that models lead to.

    Of the models of such a class it is their methods that count, as ``Class.method``, where they are bound.
    Those of a class with empty `__slots__` cannot be found; what a model has beyond 200,000 objects counts.
    """
    kinds = {id(cls): cls for one in classes if (cls := one()) is not None}
    found = [one for one in gc.get_referrers(*kinds.values()) if id(type(one)) in kinds] if kinds else []
    if not found:
        return {}
    every = [*models()]
    walk = Walk({"models": every}, _as_it_is, (None, None))
    walk.look()
    counted = Counter([called(type(one)) for one in found if id(one) not in walk.number])
    older = {id(one): one for one in every if id(type(one)) in kinds}
    for one in gc.get_referrers(*older.values()) if older else ():
        if type(one) is MethodType and id(one.__self__) in older and id(one) not in walk.number:
            counted[f"{called(type(one.__self__))}.{one.__name__}"] += 1
    return dict(counted)


def _as_it_is(made: Any) -> None:
    """Nothing is newer: what is there is only looked at."""


def models_of(registry: weakref.ref[ServiceRegistry]) -> Iterator[object]:
    """Yield the models of all services, of each version that is there, also those that are parked."""
    if (known := registry()) is not None:
        for handle in known.handles():
            if (instance := there(handle._record)) is not None:
                yield from instance.models
