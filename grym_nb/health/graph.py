"""Which services there are, what they need, who calls whom, and what fails if one fails: as data."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from grym_nb.errors import ServiceNotFound, closest
from grym_nb.health.given import check_registry
from grym_nb.render import Table, count, size
from grym_nb.services.guards import breaker_in_words

if TYPE_CHECKING:
    from grym_nb.services.registry import ServiceRegistry

__all__ = ["Edge", "Impact", "Node", "Topology", "relied_on", "relying", "topology"]


@dataclass(frozen=True, slots=True)
class Node:
    """One service, as it stands."""

    name: str
    state: str
    health: str
    reason: str
    breaker: str
    memory: int
    running: int
    calls: int


@dataclass(frozen=True, slots=True)
class Edge:
    """From a service to another: it needs it (maybe optionally), or has called it so often."""

    source: str
    target: str
    kind: Literal["needs", "optional", "calls"]
    calls: int = 0


@dataclass(frozen=True, slots=True)
class Impact:
    """What a failure of one service means to others."""

    fails: tuple[str, ...]  # cannot be loaded, or answer
    suffers: tuple[str, ...]  # goes on without it, or calls it at times


@dataclass(frozen=True, slots=True, repr=False)
class Topology:
    """The services and what is between them, at one moment."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def impact(self, name: str) -> Impact:
        """Return what fails, and what suffers, if a service fails: directly or through others."""
        known = {node.name for node in self.nodes}
        if name not in known:
            raise ServiceNotFound(f"there is no service {name!r}.{closest(name, known)}", service=name)
        fails = _upwards({name}, [edge for edge in self.edges if edge.kind == "needs"])
        touched = _upwards({name, *fails}, self.edges)
        return Impact(tuple(sorted(fails)), tuple(sorted(touched - fails - {name})))

    def table(self) -> Table:
        """Return the services with what they need and call, as a table."""
        rows = []
        for node in self.nodes:
            impact = self.impact(node.name)
            fails = [*impact.fails, *(f"({one})" for one in impact.suffers)]
            rows.append(
                (
                    *(node.name, node.state, node.health, node.breaker or "-"),
                    *(
                        size(node.memory) if node.memory else "-",
                        self._beside(node.name),
                        ", ".join(fails) or "-",
                    ),
                )
            )
        columns = ("service", "state", "health", "breaker", "has", "needs and calls", "fails with it")
        return Table("topology", columns, rows, empty="nothing is registered")

    def _beside(self, name: str) -> str:
        told: dict[str, str] = {}  # each of them once, with all that is between them
        for edge in sorted(
            [edge for edge in self.edges if edge.source == name], key=lambda e: e.kind == "calls"
        ):
            if edge.kind == "calls":
                told[edge.target] = f"{told.get(edge.target, edge.target)} ({count(edge.calls, 'call')})"
            else:
                told[edge.target] = edge.target + ("?" if edge.kind == "optional" else "")
        return ", ".join(told.values()) or "-"

    def __repr__(self) -> str:
        return self.table().text()

    def _repr_html_(self) -> str:
        return self.table().html()


def _upwards(reached: set[str], edges: Iterable[Edge]) -> set[str]:
    """Return who leads to one of these by edges, without themselves."""
    found: set[str] = set()
    known = set(edges)
    grown = True
    while grown:
        more = {edge.source for edge in known if edge.target in reached | found} - found - reached
        found |= more
        grown = bool(more)
    return found


def relied_on(registry: ServiceRegistry, name: str) -> frozenset[str]:
    """Return what a service needs or has called, directly or through others; not who relies on it as well."""
    below: dict[str, set[str]] = {}
    for handle in registry.handles():
        record = handle._record
        below.setdefault(record.name, set()).update([n for n in record.spec.needs if not n.endswith("?")])
        for source in record.flows.copy():
            below.setdefault(source, set()).add(record.name)
    found = _below(name, below)
    return frozenset([one for one in found if name not in _below(one, below)])


def relying(needs: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    """Return for each service that others need or have called who these are, in their order."""
    found: dict[str, list[str]] = {}
    for name, its in needs.items():
        for need in set(its) - {name}:
            found.setdefault(need, []).append(name)
    return found


def _below(name: str, below: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    ahead = [name]
    while ahead:
        more = below.get(ahead.pop(), set()) - found
        found |= more
        ahead += more
    return found


def topology(registry: ServiceRegistry) -> Topology:
    """Return the services of a registry, what they need, and who has called whom."""
    check_registry(registry)
    nodes, edges = [], []
    for handle in registry.handles():
        record = handle._record
        nodes.append(
            Node(
                *(record.name, record.lifecycle.state, record.health, record.health_reason),
                breaker_in_words(record),
                sum(handle.status().holds.values()),
                len(record.lane.frames()),
                sum(meter.count for meter in record.meters.copy().values()),
            )
        )
        needed = [(need.rstrip("?"), need.endswith("?")) for need in record.spec.needs]
        edges += [Edge(record.name, name, "optional" if may else "needs") for name, may in needed]
        flows = sorted(record.flows.copy().items())
        edges += [Edge(source, record.name, "calls", int(flow.value)) for source, flow in flows]
    names = {node.name for node in nodes}
    return Topology(tuple(nodes), tuple([edge for edge in edges if {edge.source, edge.target} <= names]))
