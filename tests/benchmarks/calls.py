"""A call that does nothing, with everything on: blocking, submitted, and a thousand at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import grym_nb as grym

from .frame import Effort, Row, benchmark, installed, missing, side_by_side

RAY = "Ray actor"


class Noop(grym.ModelService):
    """Does nothing: what is left is the call."""

    @grym.task("test.noop")
    def noop(self) -> None:
        """Return None."""
        return None


@contextmanager
def noop_service(**options: Any) -> Iterator[tuple[grym.Runtime, Any]]:
    """A runtime of its own, and the handle of a no-op service in it that is loaded."""
    with grym.Runtime() as runtime:
        runtime.resources.declare("card:0")
        handle = runtime.registry.register("noop", Noop, **options)
        handle.noop()
        yield runtime, handle


class Bare:
    """The same method without anything around it."""

    def noop(self) -> None:
        """Return None."""
        return None


def _ray_seconds(effort: Effort) -> float | None:
    """What one no-op call of a Ray actor takes, or None where Ray is not installed."""
    if not installed("ray"):
        return None
    import ray

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        actor = ray.remote(Bare).remote()
        call: Callable[[], object] = lambda: ray.get(actor.noop.remote())  # noqa: E731
        call()
        return side_by_side({"ray": call}, rounds=effort.rounds, seconds=effort.seconds)["ray"]
    finally:
        ray.shutdown()


def _beside_ray(work: str, ours: float, effort: Effort) -> Row:
    theirs = _ray_seconds(effort)
    return missing(work, ours, RAY, "us") if theirs is None else Row(work, ours, RAY, theirs, "us")


@benchmark
def call(effort: Effort) -> Iterator[Row]:
    """A blocking call, in the caller's thread."""
    work = "a no-op call, blocking"
    with noop_service() as (_, handle):
        figures = side_by_side(
            {"ours": ("h.noop()", {"h": handle}), "bare": ("b.noop()", {"b": Bare()})},
            rounds=effort.rounds,
            seconds=effort.seconds,
        )
    yield Row(work, figures["ours"], "a bare method", figures["bare"], "us", "<= 3 us")
    yield _beside_ray(work, figures["ours"], effort)


#: how a call may be guarded in its caller's thread; what has a deadline as well runs on a worker
_GUARDED: dict[str, dict[str, Any]] = {
    "a breaker": {"breaker": True},
    "retries": {"retry": 3},
    "a fallback": {"fallback": lambda error: None},
    "a short line": {"max_waiting": 10},
    "a device": {"device": "card:0"},
}


@benchmark
def guarded(effort: Effort) -> Iterator[Row]:
    """A blocking call with each policy there is, and with all of them, beside one with none."""
    everything = {name: value for options in _GUARDED.values() for name, value in options.items()}
    kinds = {
        **_GUARDED,
        "all of these": everything,
        "and a deadline, on a worker": {**everything, "timeout": 60.0},
    }
    with ExitStack() as stack:
        handles = {"none": stack.enter_context(noop_service())[1]}
        for kind, options in kinds.items():
            handles[kind] = stack.enter_context(noop_service(**options))[1]
        figures = side_by_side(
            {kind: ("h.noop()", {"h": handle}) for kind, handle in handles.items()},
            rounds=effort.rounds,
            seconds=effort.seconds,
        )
    for kind in kinds:
        aim = {"all of these": "<= 3 us", "and a deadline, on a worker": "<= 40 us"}.get(kind, "")
        yield Row(f"a no-op call, {kind}", figures[kind], "no policy", figures["none"], "us", aim)


@benchmark
def submitted(effort: Effort) -> Iterator[Row]:
    """A submitted call, waited for: there and back between two threads."""
    work = "a no-op call, submitted"
    with noop_service() as (_, handle), ThreadPoolExecutor(1) as pool:
        figures = side_by_side(
            {
                "ours": ("h.noop.submit().result()", {"h": handle}),
                "pool": ("p.submit(f).result()", {"p": pool, "f": Bare().noop}),
            },
            rounds=effort.rounds,
            seconds=effort.seconds,
        )
    yield Row(work, figures["ours"], "ThreadPoolExecutor", figures["pool"], "us", "<= 40 us")
    yield _beside_ray(work, figures["ours"], effort)


@benchmark
def concurrent(effort: Effort) -> Iterator[Row]:
    """A thousand calls in flight at once, until the last has answered."""
    work = "1000 concurrent no-ops"

    async def nothing() -> None:
        return None

    async def gathered() -> None:
        await asyncio.gather(*(nothing() for _ in range(1000)))

    with noop_service() as (_, handle), ThreadPoolExecutor(1) as pool, asyncio.Runner() as runner:

        def ours() -> None:
            for one in [handle.noop.submit() for _ in range(1000)]:
                one.result()

        def pooled() -> None:
            for one in [pool.submit(Bare().noop) for _ in range(1000)]:
                one.result()

        figures = side_by_side(
            {"ours": ours, "gather": lambda: runner.run(gathered()), "pool": pooled},
            rounds=effort.rounds,
        )
    rate = f"{1000 / figures['ours']:,.0f} a second"
    yield Row(work, figures["ours"], "asyncio.gather", figures["gather"], "ms", ">= 20,000 a second", rate)
    yield Row(work, figures["ours"], "ThreadPoolExecutor", figures["pool"], "ms")
