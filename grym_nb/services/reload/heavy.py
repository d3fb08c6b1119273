"""What is slow or large at the top of a module: an edit that makes it anew is no small thing.

What `load` takes of it is loaded anew, as by another `load`. So is what a state has got hold of in any other
way: it would go on with the one before, beside the new, and the edit would be in force for nobody. A state
that has nothing of it stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from grym_nb.hardening.storages import reached, storages_of
from grym_nb.render import seconds as in_words
from grym_nb.render import size
from grym_nb.services.content import PLAIN

if TYPE_CHECKING:
    from grym_nb.services.reload.build import Built, Ran
    from grym_nb.services.reload.versions import Version

__all__ = ["Heavy", "heavy"]

_SLOW = 1.0  # seconds of a statement
_LARGE = 50_000_000  # bytes that it holds
_CODE = (type, FunctionType, ModuleType)


@dataclass(frozen=True, slots=True)
class Heavy:
    """What a statement at the top of a module has made anew: in a line, and what it had made before."""

    line: str
    before: Mapping[str, Any]  # by name, with the module's; but for what is still there

    def held_by(self, state: Mapping[str, Any]) -> Iterator[str]:
        """Yield what of it, as it was before, a state leads to."""
        there = reached(state.values(), self.before.values())
        yield from (name for name, value in self.before.items() if id(value) in there)


def heavy(before: Version, built: Built) -> list[Heavy]:
    """Return what a version has made anew that was slow, or holds much."""
    return [found for ran in built.ran if (found := _heavy(before, built, ran)) is not None]


def _heavy(before: Version, built: Built, ran: Ran) -> Heavy | None:
    space = vars(built.version.modules[ran.module])
    made = [space[name] for name in ran.binds if name in space]
    held = sum(storages_of([one for one in made if not isinstance(one, _CODE)]).values())
    if ran.seconds < _SLOW and held < _LARGE:
        return None
    what = f"took {in_words(ran.seconds)}" + (f" and holds {size(held)}" if held >= _LARGE else "")
    was = vars(before.modules[ran.module]) if ran.module in before.modules else {}
    still = {id(one) for module in built.version.modules.values() for one in vars(module).copy().values()}
    gone = {
        f"{ran.module}.{name}": was[name]
        for name in ran.binds
        if name in was and id(was[name]) not in still and not isinstance(was[name], (*_CODE, *PLAIN))
    }
    return Heavy(f"{ran.module}:{ran.line} ran again and {what}", gone)
