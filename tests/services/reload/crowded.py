"""A service in two files, called without pause as they are edited, and what is known of its answers."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from textwrap import dedent
from typing import Any

from grym_nb.services import ServiceHandle, ServiceRegistry
from tests.services.reload.files import Edited

__all__ = ["FIRST", "Caller", "Ledger", "Said", "asks", "texts"]

HELPER = """
    HELPER = {n}

    def signature(own, x):
        return own, HELPER, x

    class Kept:
        def __init__(self):
            self.items = []

        def at(self):
            return {kept}
"""
SERVED = """
    import asyncio
    from grym_nb import ModelService, task
    from crowd_helper import Kept, signature
    {top}
    OWN = {n}

    class Served(ModelService):
        def __init__(self, *, gain=1):
            self.gain = gain
            self.hooks = []

        def load(self):
            self.weights = list(range(50_000))
            self.kept = Kept()

        def hook(self):
            return signature(OWN, "hook")

        @task("leave")
        def leave(self, x):
            self.hooks[:] = [*self.hooks, self.hook][-3:]
            return self.answer(x)

        @task("hooked")
        def hooked(self, x):
            return [*[hook() for hook in self.hooks], signature(OWN, x)]

        @task("answer")
        def answer(self, x):
            before = signature(OWN, x)
            {body}
            self.kept.at()
            assert len(self.weights) == 50_000
            assert before == signature(OWN, x)
            return before

        @task("later")
        async def later(self, x):
            before = signature(OWN, x)
            await asyncio.sleep(0)
            assert before == signature(OWN, x)
            return before

        @task("several")
        def several(self, x):
            for _ in range(3):
                yield signature(OWN, x)
"""
ASKS = """
    from grym_nb import ModelService, task

    class Asks(ModelService):
        needs = ("served",)

        @task("ask")
        def ask(self, x):
            return self.needs.served.answer(x)
"""
#: what an edit may come to: into the top of the module, and into the body of its task
WRONG = {
    "syntax": ("OWN = (", ""),
    "import": ("import nowhere_at_all", ""),
    "raises": ("", "raise NameError(x)"),
    "rarely": ("", "if x % 7 == 0: raise KeyError(x)"),
}
FINE = {
    "good": ("", "pass"),
    "slow": ("sum(range(200_000))", "sum(range(2_000))"),
    "kept": ("", "pass"),
}


def texts(n: int, kind: str = "good") -> dict[str, str]:
    """Return both files as the edit number `n` leaves them."""
    top, body = {**WRONG, **FINE}[kind]
    kept = n if kind == "kept" else 0
    return {
        "crowd_helper": dedent(HELPER).format(n=n, kept=kept),
        "crowd_served": dedent(SERVED).format(n=n, top=top, body=body or "pass"),
    }


FIRST = texts(0)


def asks(edited: Edited, registry: ServiceRegistry, **options: Any) -> tuple[ServiceHandle, ServiceHandle]:
    """Register the service, and another one that asks it."""
    served = edited.start(**FIRST)
    asking = edited.start(crowd_asks=ASKS)
    return (
        registry.register("served", served.Served, concurrency=4, **options),
        registry.register("asks", asking.Asks, concurrency=4),
    )


class Ledger:
    """Which versions may have been in force, and when."""

    def __init__(self) -> None:
        self.now = frozenset({0})
        self._past: list[tuple[float, float, frozenset[int]]] = []
        self._since = time.monotonic()

    def may(self, *numbers: int) -> None:
        """Say which may be in force from now on."""
        at = time.monotonic()
        self._past.append((self._since, at, self.now))
        self.now, self._since = frozenset(numbers), at

    def was(self, number: int, begun: float, ended: float) -> bool:
        """Tell whether one may have been in force at some time in between."""
        spans = [*self._past, (self._since, ended, self.now)]
        return any(number in may and since <= ended and until >= begun for since, until, may in spans)


@dataclass(slots=True)
class Said:
    """An answer: the versions of the code that made it, and when it was asked for."""

    way: str
    own: int
    helper: int
    begun: float
    ended: float


@dataclass(slots=True)
class Caller:
    """A thread that calls without pause, until it is told to stop; each way that there is, at random."""

    served: ServiceHandle
    asking: ServiceHandle
    seed: int
    said: list[Said] = field(default_factory=list)
    wrong: list[tuple[str, BaseException | object]] = field(default_factory=list)

    def run(self, stop: threading.Event) -> Caller:
        rng, x = random.Random(self.seed), self.seed
        ways = self._ways()
        while not stop.is_set() and not self.wrong:
            x += 1
            way = rng.choice(sorted(ways))
            begun = time.monotonic()
            try:
                answers = list(ways[way](x))
            except BaseException as error:
                self.wrong.append((way, error))
                break
            ended = time.monotonic()
            for own, helper, told in answers:
                if told == "hook":
                    if own != helper:
                        self.wrong.append((way, (own, helper)))
                    continue
                if told != x:
                    self.wrong.append((way, (told, x)))
                self.said.append(Said(way, own, helper, begun, ended))
        return self

    def _ways(self) -> dict[str, Callable[[int], Iterator[Any]]]:
        served, asking = self.served, self.asking

        def one(call: Callable[[int], Any]) -> Callable[[int], Iterator[Any]]:
            return lambda x: iter([call(x)])

        return {
            "blocking": one(served.answer),
            "submitted": one(lambda x: served.answer.submit(x).result(30)),
            "with a deadline": one(lambda x: served.answer.with_(timeout=30)(x)),
            "first": one(lambda x: served.answer.with_(priority="high")(x)),
            "async": one(served.later),
            "nested": one(asking.ask),
            "nested, submitted": one(lambda x: asking.ask.submit(x).result(30)),
            "read": lambda x: iter(served.several(x)),
            "half read": self._half,
            "leaves a hook": one(served.leave),
            "hooked": served.hooked,
        }

    def _half(self, x: int) -> Iterator[Any]:
        with self.served.several(x) as items:
            yield next(items)
