"""The random generators that all code draws from, as if what a reload tries had not drawn."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["random_kept"]


@contextmanager
def random_kept() -> Iterator[None]:
    """Put the random generators back to where they are now."""
    kept: list[Callable[[], object]] = []
    state = random.getstate()
    kept.append(lambda: random.setstate(state))
    if (numpy := sys.modules.get("numpy")) is not None:
        drawn = numpy.random.get_state()
        kept.append(lambda: numpy.random.set_state(drawn))
    if (torch := sys.modules.get("torch")) is not None and hasattr(torch, "get_rng_state"):
        cpu = torch.get_rng_state()
        kept.append(lambda: torch.set_rng_state(cpu))
        if torch.cuda.is_initialized():
            cards = torch.cuda.get_rng_state_all()
            kept.append(lambda: torch.cuda.set_rng_state_all(cards))
    try:
        yield
    finally:
        for put in kept:
            put()
