"""Random generators, as if what a reload tries had not drawn from them."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["random_kept"]

_Put = Callable[[], object]


@contextmanager
def random_kept(values: Iterable[Any] = ()) -> Iterator[None]:
    """Put the generators that all code draws from, and those among some values, back to where they are."""
    kept = [*_of_all(), *(put for value in values if (put := _of(value)) is not None)]
    try:
        yield
    finally:
        for put in kept:
            put()


def _of_all() -> Iterator[_Put]:
    state = random.getstate()
    yield lambda: random.setstate(state)
    if (numpy := sys.modules.get("numpy")) is not None:
        drawn = numpy.random.get_state()
        yield lambda: numpy.random.set_state(drawn)
    if (torch := sys.modules.get("torch")) is not None and hasattr(torch, "get_rng_state"):
        cpu = torch.get_rng_state()
        yield lambda: torch.set_rng_state(cpu)
        if torch.cuda.is_initialized():
            cards = torch.cuda.get_rng_state_all()
            yield lambda: torch.cuda.set_rng_state_all(cards)


def _of(value: Any) -> _Put | None:
    """Return what puts a generator back; None for what is none."""
    kind = type(value)
    module = kind.__module__.partition(".")[0]
    if kind is random.Random:
        state = value.getstate()
        return lambda: value.setstate(state)
    if module == "numpy" and kind.__name__ == "Generator":
        drawn = value.bit_generator.state
        return lambda: setattr(value.bit_generator, "state", drawn)
    if (module, kind.__name__) in (("numpy", "RandomState"), ("torch", "Generator")):
        at = value.get_state()
        return lambda: value.set_state(at)
    return None
