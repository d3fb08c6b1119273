"""Who needs whom, who calls whom, and what fails if one fails."""

from __future__ import annotations

import pytest

from grym_nb.errors import ServiceNotFound
from grym_nb.health.graph import Edge, Impact, Topology, relied_on, topology
from grym_nb.services import ModelService, ServiceRegistry, task


class Base(ModelService):
    @task
    def ask(self) -> int:
        return 1


class Middle(ModelService):
    needs = ("base", "extra?")

    @task
    def ask(self) -> int:
        return int(self.needs.base.ask()) + 1


class Top(ModelService):
    needs = ("middle",)

    @task
    def ask(self) -> int:
        return int(self.needs.middle.ask()) + 1


@pytest.fixture
def house(registry: ServiceRegistry) -> ServiceRegistry:
    for name, made in (("base", Base), ("extra", Base), ("middle", Middle), ("top", Top), ("alone", Base)):
        registry.register(name, made)
    return registry


def test_needs_and_calls_are_edges(house: ServiceRegistry) -> None:
    assert house["top"].ask() == 3 and house["middle"].ask() == 2
    seen = topology(house)
    assert set(seen.edges) == {
        Edge("middle", "base", "needs"),
        Edge("middle", "extra", "optional"),
        Edge("top", "middle", "needs"),
        Edge("middle", "base", "calls", 2),
        Edge("top", "middle", "calls", 1),
    }
    nodes = {node.name: node for node in seen.nodes}
    assert (nodes["base"].state, nodes["base"].calls, nodes["alone"].calls) == ("ready", 2, 0)


def test_what_fails_with_one_is_told_through_others(house: ServiceRegistry) -> None:
    seen = topology(house)
    assert seen.impact("base") == Impact(fails=("middle", "top"), suffers=())
    assert seen.impact("extra") == Impact(fails=(), suffers=("middle", "top"))
    assert seen.impact("alone") == Impact((), ())
    with pytest.raises(ServiceNotFound, match="'bass'") as caught:
        seen.impact("bass")
    assert "base" in str(caught.value)


def test_it_is_a_table(house: ServiceRegistry) -> None:
    text = repr(topology(house))
    assert "middle, top" in text and "base, extra?" in text and "(middle), (top)" in text
    assert "<table" in topology(house)._repr_html_()
    house["middle"].ask()
    assert "base (1 call), extra?" in repr(topology(house)), "each of them once"
    assert "nothing is registered" in repr(Topology((), ()))


def test_a_circle_of_calls_comes_to_an_end() -> None:
    from grym_nb.health.graph import Node

    nodes = tuple(Node(name, "ready", "healthy", "", "", 0, 0, 1) for name in "abc")
    edges = (Edge("a", "b", "calls", 1), Edge("b", "a", "calls", 1), Edge("c", "a", "needs"))
    assert Topology(nodes, edges).impact("b") == Impact(fails=(), suffers=("a", "c"))
    assert Topology(nodes, edges).impact("a") == Impact(fails=("c",), suffers=("b",))


def test_what_a_service_relies_on_is_what_it_needs_or_has_called(house: ServiceRegistry) -> None:
    house["top"].ask()
    assert relied_on(house, "top") == {"middle", "base"} and relied_on(house, "base") == frozenset()
    house["base"]._record.flows["top"] = house["base"]._record.flows["middle"]
    house["middle"]._record.flows["base"] = house["base"]._record.flows["middle"]
    assert relied_on(house, "middle") == frozenset(), "in a circle nobody is the cause"
