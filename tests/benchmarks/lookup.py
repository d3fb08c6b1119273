"""Finding a service that runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .calls import Noop, noop_service
from .frame import Effort, Row, Work, benchmark, installed, missing, side_by_side


@benchmark
def lookup(effort: Effort) -> Iterator[Row]:
    """A registered and loaded service by its name, beside a dict and two containers by type."""
    work = "registry['noop'], running"
    instance = Noop.__new__(Noop)
    with noop_service() as (runtime, _):
        works: dict[str, Work] = {
            "ours": ("registry['noop']", {"registry": runtime.registry}),
            "a dict": ("plain['noop']", {"plain": {"noop": instance}}),
        }
        closing: list[Any] = []
        if installed("svcs"):
            import svcs

            registry = svcs.Registry()
            registry.register_value(Noop, instance)
            container = svcs.Container(registry)
            container.get(Noop)
            works["svcs"] = ("container.get(Noop)", {"container": container, "Noop": Noop})
            closing += [container, registry]
        if installed("dishka"):
            import dishka

            provider = dishka.Provider(scope=dishka.Scope.APP)
            provider.provide(lambda: instance, provides=Noop)
            scoped = dishka.make_container(provider)
            scoped.get(Noop)
            works["dishka"] = ("container.get(Noop)", {"container": scoped, "Noop": Noop})
            closing.append(scoped)
        figures = side_by_side(works, rounds=effort.rounds, seconds=effort.seconds)
        for opened in closing:
            opened.close()
    ours = figures["ours"]
    for peer, aim in (("a dict", ""), ("svcs", "faster than svcs"), ("dishka", "")):
        if peer in figures:
            yield Row(work, ours, peer, figures[peer], "ns", aim)
        else:
            yield missing(work, ours, peer, "ns", aim)
