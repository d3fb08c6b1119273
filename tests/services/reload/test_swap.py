"""Other code in the place of the old: the same weights, and each call by the code with which it began."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

from grym_nb.events import ServiceChanged
from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, task
from tests.services.crowd import Gates, outcome, start

LOADS: list[str] = []


def version(said: str, *, load: str = "", gain: float | None = None) -> type[ModelService]:
    """Return the class of a service as a cell that is edited and run again makes it."""

    class Speech(ModelService):
        def __init__(self) -> None:
            if gain is not None:
                self.gain = gain

        def load(self) -> None:
            LOADS.append(load)
            self.weights = [object()]

        @task("say")
        def say(self) -> tuple[str, Any]:
            return said, self.weights[0]

        @task("wait")
        def wait(self, gates: Gates) -> str:
            gates["in"].set()
            gates["go"].wait()
            return self.helper()

        @task("count")
        def count(self) -> Iterator[str]:
            for at in range(3):
                yield f"{said} {at}"

        def helper(self) -> str:
            return said

    return Speech


def put(registry: ServiceRegistry, made: type[ModelService]) -> ServiceHandle:
    return registry.register("speech", made)


def test_weights_stay_and_new_calls_get_the_new_code(registry: ServiceRegistry) -> None:
    LOADS.clear()
    speech = put(registry, version("one"))
    said, weights = speech.say()
    put(registry, version("two"))
    assert speech.say() == ("two", weights) and said == "one" and LOADS == [""]
    assert (speech.version, speech.status().loads, speech.state) == ("v2", 1, "ready")


def test_who_runs_ends_on_the_code_with_which_it_began(registry: ServiceRegistry) -> None:
    speech = registry.register("speech", version("one"), concurrency=3)
    gates = Gates()
    running = start(speech.wait, gates)
    stream = iter(speech.count())
    assert next(stream) == "one 0"
    gates.wait("in")
    registry.register("speech", version("two"), concurrency=3)
    assert speech.say()[0] == "two"
    gates["go"].set()
    assert outcome(running) == "one" and list(stream) == ["one 1", "one 2"]


def test_another_load_is_loaded(registry: ServiceRegistry) -> None:
    LOADS.clear()
    speech = put(registry, version("one"))
    _, weights = speech.say()
    put(registry, version("two", load="other"))
    assert speech.say()[1] is not weights and LOADS == ["", "other"]


def test_what_a_new_init_sets_is_there(registry: ServiceRegistry) -> None:
    speech = put(registry, version("one"))
    _, weights = speech.say()
    put(registry, version("two", gain=2.0))
    assert speech.say() == ("two", weights)
    with speech.use() as model:
        assert model.gain == 2.0


def test_unload_leaves_nothing_of_any_version(registry: ServiceRegistry) -> None:
    speech = put(registry, version("one"))
    speech.say()
    models = []
    for at in range(3):
        with speech.use() as model:
            models.append(weakref.ref(model))
        del model
        put(registry, version(f"now {at}"))
    speech.unload()
    gc.collect()
    assert not any(one() for one in models)
    assert speech.say()[0] == "now 2"


def test_a_change_is_told_once(registry: ServiceRegistry) -> None:
    told: list[ServiceChanged] = []
    registry.ports.events.subscribe(told.append, ServiceChanged)
    put(registry, version("one")).say()
    put(registry, version("two"))
    assert [(event.version, event.what) for event in told] == [("v2", ("code",))]
