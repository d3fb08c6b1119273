"""A service that is let go of for a while, to the main memory or for good, and a reload about that time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from textwrap import dedent
from typing import Any

import pytest

from grym_nb.events import ServiceChanged
from grym_nb.services import ServiceRegistry, memory, tiers
from grym_nb.testing import FakeClock
from tests.services.crowd import outcome, start, until
from tests.services.reload.files import Edited
from tests.services.reload.test_races import before

CARD = "card:0"
SIZE = 60_000
NET = """
    from grym_nb import ModelService, task

    LOADED = []

    class Block:
        def __init__(self):
            self.device = "card:0"

    class Net(ModelService):
        def load(self):
            LOADED.append(1)
            self.weights = Block()

        @task("ask")
        def ask(self):
            return "one", self.weights

        @task("loads")
        def loads(self):
            return len(LOADED)
"""


def blocks(*roots: Any) -> list[Any]:
    """Return the weights of models, each once."""
    found = {id(one): one for root in roots for one in vars(root).values() if type(one).__name__ == "Block"}
    return list(found.values())


def storages(*roots: Any, pause: Any = None) -> dict[tuple[str, int], int]:
    return {(one.device, id(one)): SIZE for one in blocks(*roots)}


def move(tensors: list[Any], device: str) -> int:
    for one in tensors:
        one.device = device
    return len(tensors)


class Card:
    """A card on which one net has room, and two services of it: when one is called, the other has to go."""

    def __init__(self, edited: Edited, registry: ServiceRegistry, **options: Any) -> None:
        self.ledger = registry.ports.resources.ledger
        registry.ports.resources.declare(CARD, total=100_000)
        options |= {"device": CARD, "memory": SIZE}
        self.net = registry.register("net", edited.start(net=NET).Net, **options)
        self.other = registry.register("other", edited.start(other=NET).Net, device=CARD, memory=SIZE)

    def park(self) -> None:
        """Have the net go for the other, which goes then."""
        self.other.load()
        assert self.net.state == "registered" and self.net._record.footprint.parked is not None
        self.other.unload()
        assert self.taken == (0, SIZE)

    @property
    def taken(self) -> tuple[int, int]:
        """What is taken of the card, and of the main memory."""
        return self.ledger.taken(CARD), self.ledger.taken("cpu")

    @property
    def versions(self) -> list[int]:
        """The versions that can answer."""
        instance = self.net._record.instance
        return [] if instance is None else [one.number for one in instance.versions]


@pytest.fixture(autouse=True)
def weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights without a card: what matters is where they are said to be."""
    for module in (memory, tiers):
        monkeypatch.setattr(module, "storages_of", storages)
    monkeypatch.setattr(tiers, "tensors_in", blocks)
    monkeypatch.setattr(
        tiers, "movable", lambda found, device: [one for one in found if one.device == device]
    )
    monkeypatch.setattr(tiers, "move", move)


@pytest.fixture
def card(edited: Edited, registry: ServiceRegistry) -> Iterator[Card]:
    card = Card(edited, registry)
    yield card
    registry.remove("net"), registry.remove("other")
    assert card.taken == (0, 0)


def edit(edited: Edited) -> None:
    edited.edit("net", ('return "one"', 'return "two"'))


def test_what_is_parked_is_back_with_the_code_and_the_versions_that_it_had(
    edited: Edited, card: Card
) -> None:
    _, mine = card.net.ask()
    edit(edited)
    card.net.reload()
    card.park()
    assert card.net.ask() == ("two", mine) and (card.net.loads(), mine.device) == (1, CARD)
    assert card.versions == [1, 2] and card.taken == (SIZE, 0)
    assert card.net.at("v1").ask() == ("one", mine)
    assert card.net.rollback().how == "taken back" and card.net.ask() == ("one", mine)


def test_to_go_back_while_it_is_parked_loads_nothing(edited: Edited, card: Card) -> None:
    _, mine = card.net.ask()
    edit(edited)
    card.net.reload()
    card.park()
    assert card.net.rollback().how == "taken back"
    assert (card.net.version, card.net.state, card.taken) == ("v1", "registered", (0, SIZE))
    assert card.net.ask() == ("one", mine) and card.net.loads() == 1 and card.taken == (SIZE, 0)
    assert [(one.how, one.numbers) for one in card.net.reloads] == [
        ("in place", (1, 2)),
        ("taken back", (2, 1)),
    ]


def test_one_that_is_parked_has_the_new_code_and_is_not_woken_for_it(edited: Edited, card: Card) -> None:
    _, mine = card.net.ask()
    card.park()
    edit(edited)
    report = card.net.reload()
    assert (report.how, report.notes) == ("in place", ("not tried on its last calls: it is parked",))
    assert card.net.status().parked and card.taken == (0, SIZE) and mine.device == "cpu"
    assert card.net.ask() == ("two", mine) and card.net.loads() == 1
    assert card.versions == [1, 2] and card.taken == (SIZE, 0)
    assert card.net.rollback().how == "taken back" and card.net.ask() == ("one", mine)


def test_new_code_of_a_parked_one_that_fails_is_taken_back(edited: Edited, card: Card) -> None:
    _, mine = card.net.ask()
    card.park()
    edited.edit("net", ('return "one", self.weights', "return nobody"))
    card.net.reload()
    assert card.net.ask() == ("one", mine) and card.net.version == "v1"
    assert [one.how for one in card.net.reloads] == ["in place", "taken back"]


def test_a_cell_that_is_run_again_finds_what_is_parked(edited: Edited, card: Card) -> None:
    _, mine = card.net.ask()
    card.park()
    space = vars(sys.modules["net"])
    text = dedent(NET).replace('"one"', '"two"')
    exec(text[text.index("class Net") :], space)
    card.net._registry.register("net", space["Net"], device=CARD, memory=SIZE)
    assert card.net.ask() == ("two", mine) and card.net.loads() == 1 and card.taken == (SIZE, 0)


def test_a_parked_one_whose_load_is_another_is_loaded_with_its_next_call(edited: Edited, card: Card) -> None:
    _, mine = card.net.ask()
    card.park()
    edited.edit("net", ("self.weights = Block()", "self.weights, self.more = Block(), 1"))
    edit(edited)
    assert card.net.reload().how == "at load"
    assert not card.net.status().parked and "other code" in repr(card.net._registry.ports.resources.memory())
    answer, weights = card.net.ask()
    assert answer == "two" and weights is not mine and card.net.loads() == 2
    assert card.versions == [2] and card.taken == (SIZE, 0) and card.net._record.footprint.parked is None


def test_to_go_back_to_what_is_parked_wakes_it(edited: Edited, card: Card) -> None:
    _, mine = card.net.ask()
    card.park()
    edited.edit("net", ("self.weights = Block()", "self.weights, self.more = Block(), 1"))
    card.net.reload()
    report = card.net.rollback()
    assert (report.how, report.before, report.after, report.why) == ("at load", "v2", "v1", "taken back")
    assert card.net.status().parked
    assert card.net.ask() == ("one", mine) and card.net.loads() == 1 and card.taken == (SIZE, 0)


@pytest.mark.parametrize("parked", [False, True])
def test_a_state_is_migrated_only_where_it_is_loaded(parked: bool, edited: Edited, card: Card) -> None:
    card.net.ask()
    if parked:
        card.park()
    edited.edit("net", ('    @task("ask")\n', MIGRATE))
    assert card.net.reload().how == ("at load" if parked else "in place")
    assert card.net.ask()[0] == "one" and card.versions == ([2] if parked else [1, 2])


@pytest.mark.parametrize("when", ["tried", "needs_quiet", "put"])
def test_one_that_is_parked_as_it_is_reloaded(
    when: str, edited: Edited, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, mine = card.net.ask()
    edit(edited)
    with before(when, lambda: outcome(start(card.park)), monkeypatch):
        assert card.net.reload().how == "in place"
    assert card.net.ask() == ("two", mine) and card.versions == [1, 2] and card.taken == (SIZE, 0)


@pytest.mark.parametrize("when", ["needs_quiet", "put"])
def test_one_that_is_woken_as_it_is_reloaded(
    when: str, edited: Edited, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, mine = card.net.ask()
    card.park()
    edit(edited)
    with before(when, lambda: outcome(start(card.net.load)), monkeypatch):
        assert card.net.reload().how == "in place"
    assert card.net.ask() == ("two", mine) and card.versions == [1, 2] and card.taken == (SIZE, 0)


def test_one_that_is_parked_before_it_is_loaded_anew(
    edited: Edited, card: Card, registry: ServiceRegistry
) -> None:
    """Its code is the new one by then, and its model that of the old: this one is not to be woken."""
    card.net.ask()
    registry.ports.events.subscribe(lambda event: outcome(start(card.park)), ServiceChanged)
    edited.edit("net", ("self.weights = Block()", "self.weights, self.more = Block(), 1"))
    edit(edited)
    assert card.net.reload().how == "loaded"
    assert card.net.ask()[0] == "two" and card.versions == [2] and card.taken == (SIZE, 0)


def test_weights_that_only_an_older_version_has_are_parked_with_it(edited: Edited, card: Card) -> None:
    _, old = card.net.ask()
    edited.edit("net", ('    @task("ask")\n', MIGRATE))
    card.net.reload()
    _, new = card.net.ask()
    assert new is not old
    card.other.load()
    assert (old.device, new.device) == ("cpu", "cpu") and card.taken == (SIZE, 2 * SIZE)
    card.other.unload()
    assert card.net.ask()[1] is new and old.device == CARD and card.taken == (2 * SIZE, 0)
    card.net.rollback()
    assert card.net.ask()[1] is old


MIGRATE = """    def migrate(self, state, before):
        return {**state, "weights": Block()}

    @task("ask")
"""


def test_one_whose_idle_time_is_over_goes_on_with_the_new_code(
    edited: Edited, driven: ServiceRegistry, clock: FakeClock
) -> None:
    card = Card(edited, driven, ttl=60.0)
    _, mine = card.net.ask()
    edit(edited)
    card.net.reload()
    clock.advance(61.0)
    until(lambda: card.net._record.footprint.parked is not None)
    assert card.net.ask() == ("two", mine) and card.versions == [1, 2]
    clock.advance(61.0)
    until(lambda: card.net._record.footprint.parked is not None)
    clock.advance(61.0)
    until(lambda: card.net._record.footprint.parked is None)
    assert card.taken == (0, 0) and card.net.rollback().how == "at load"
    assert card.net.ask()[0] == "one" and card.net.loads() == 2 and card.versions == [1]


def test_what_went_for_another_is_loaded_with_what_is_in_force(
    edited: Edited, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not parked: there is no room for it beside the card."""
    monkeypatch.setattr(tiers, "movable", lambda found, device: [])
    card.net.ask()
    edit(edited)
    card.net.reload()
    card.other.load()
    assert card.taken == (SIZE, 0) and card.net.state == "registered"
    assert card.net.ask()[0] == "two" and card.versions == [2] and card.taken == (SIZE, 0)
    assert card.net.rollback().how == "loaded" and card.net.ask()[0] == "one" and card.versions == [1]
    card.other.load()
    edited.edit("net", ('return "two"', 'return "three"'))
    assert card.net.reload().how == "at load" and card.net.rollback().how == "at load"
    assert card.net.ask()[0] == "one" and card.taken == (SIZE, 0)
