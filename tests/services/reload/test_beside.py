"""Another `load`: what it loads is there, and tried, before the old weights go; or the old ones stay."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from grym_nb.errors import Interrupted, ReloadFailed
from grym_nb.services import ServiceHandle, ServiceRegistry
from grym_nb.services.instance import Instance
from grym_nb.services.reload import swap
from tests.services.crowd import Gates, outcome, start, until
from tests.services.reload.files import Edited

HELPER = """
    FACTOR = 1
"""
MODEL = """
    import helper
    import numpy as np
    from grym_nb import ModelService, task

    LET_GO = []

    class Weights:
        def __init__(self, seed):
            self.values = np.full(1000, seed)

    class Model(ModelService):
        def __init__(self, *, gates=None):
            self.gates = gates

        def load(self):
            self.weights = Weights(1)

        def unload(self):
            LET_GO.append(int(self.weights.values[0]))

        @task("say")
        def say(self, x):
            return x * int(self.weights.values[0])

        @task("hold")
        def hold(self, x):
            self.gates.hold()
            return x * int(self.weights.values[0])

        @task("let_go", replay=False)
        def let_go(self):
            return [*LET_GO]
"""
OTHER = ("Weights(1)", "Weights(2)")
WAITS = (
    "self.weights = Weights(1)",
    'self.gates.tell("loads"); self.gates.wait("load"); self.weights = Weights(2)',
)
FAILS = ("self.weights = Weights(1)", 'self.weights = Weights(2); raise OSError("no file")')


@pytest.fixture
def gates() -> Gates:
    return Gates()


@pytest.fixture
def model(edited: Edited, registry: ServiceRegistry, gates: Gates) -> ServiceHandle:
    made = edited.start(helper=HELPER, model=MODEL).Model
    return registry.register("model", made, config={"gates": gates}, memory="1MB")


def weights_of(handle: ServiceHandle) -> Any:
    instance = handle._record.instance
    assert instance is not None
    return instance.model.weights


def reserved(registry: ServiceRegistry) -> list[str]:
    return [one.owner for one in registry.ports.resources.ledger.held]


def test_the_old_answers_until_the_new_is_there(
    edited: Edited, registry: ServiceRegistry, model: ServiceHandle, gates: Gates
) -> None:
    assert model.say(3) == 3
    old = weakref.ref(weights_of(model))
    edited.edit("model", WAITS)
    reloading = start(model.reload)
    gates.wait("loads")
    assert (model.say(3), model.state, model.version) == (3, "ready", "v1")
    assert reserved(registry) == ["model", "model"]
    gates["load"].set()
    report = outcome(reloading)
    assert (report.how, report.before, report.after, report.notes) == ("loaded", "v1", "v2", ())
    assert report.tried, "a call that went well before was made on it"
    assert (model.say(3), model.version, model.status().loads) == (6, "v2", 2)
    gc.collect()
    assert old() is None and model.let_go() == [1] and reserved(registry) == ["model"]
    assert model.reload().how == "unchanged"


def test_calls_under_way_end_on_the_old_and_those_that_wait_begin_on_the_new(
    edited: Edited, registry: ServiceRegistry, model: ServiceHandle, gates: Gates
) -> None:
    model.say(1)
    old = weakref.ref(weights_of(model))
    running = start(model.hold, 5)
    gates.wait("in")
    waiting = model.say.submit(5)
    edited.edit("model", OTHER)
    report = model.reload()
    assert (report.how, report.under_way) == ("loaded", 1)
    assert waiting.result(30) == 10 and model.say(5) == 10
    assert old() is not None and reserved(registry) == ["model", "model"]
    gates["go"].set()
    assert outcome(running) == 5
    until(lambda: reserved(registry) == ["model"])
    gc.collect()
    assert old() is None and model.let_go() == [1]
    assert not registry.running() and model._record.lane.free == 1


@pytest.mark.parametrize("wrong", ["load", "ping", "call"])
def test_one_that_fails_leaves_the_old_with_its_weights(
    wrong: str, edited: Edited, registry: ServiceRegistry, model: ServiceHandle
) -> None:
    model.say(3)
    before = weights_of(model)
    edits = {
        "load": [FAILS],
        "ping": [
            OTHER,
            (
                '    @task("say")',
                "    def ping(self):\n        raise OSError('no file')\n\n    @task(\"say\")",
            ),
        ],
        "call": [
            OTHER,
            (
                'return x * int(self.weights.values[0])\n\n    @task("hold")',
                "raise OSError('no file')\n\n    @task(\"hold\")",
            ),
        ],
    }
    edited.edit("model", *edits[wrong])
    with pytest.raises(ReloadFailed, match="no file") as refused:
        model.reload()
    assert "goes on with the code it had (v1)" in str(refused.value)
    assert weights_of(model) is before and (model.say(3), model.version) == (3, "v1")
    gc.collect()
    assert reserved(registry) == ["model"] and model.status().loads == 1
    assert [one.how for one in model.reloads] == ["refused"]
    if wrong != "load":
        assert model.let_go() == [2]


def test_where_two_cannot_be_there_the_way_out_is_told(edited: Edited, model: ServiceHandle) -> None:
    model.say(3)
    edited.edit("model", FAILS)
    with pytest.raises(ReloadFailed, match=r"OSError: no file \(.*model.py:17") as refused:
        model.reload()
    assert "the next call tries again" not in str(refused.value)
    assert "where two of it cannot be there at once: unload(), then reload()" in str(refused.value)
    edited.edit("model", ('; raise OSError("no file")', ""))
    model.unload()
    assert model.reload().how == "at load" and model.say(3) == 6


def test_without_room_for_both_the_old_goes_first(
    edited: Edited, registry: ServiceRegistry, model: ServiceHandle
) -> None:
    registry.ports.resources.budget({"cpu": 1_000_000})
    model.say(3)
    edited.edit("model", OTHER)
    report = model.reload()
    assert (report.how, model.say(3)) == ("loaded", 6)
    assert report.notes == ("the old model went first: 1.0 MB more are not free",)
    edited.edit("model", ("self.weights = Weights(2)", FAILS[1]))
    with pytest.raises(ReloadFailed, match="no file") as refused:
        model.reload()
    assert "the weights, let go of, come with the next call" in str(refused.value)
    assert model.say(3) == 6 and model.version == "v2"


def test_a_budget_of_its_own_holds_for_both(
    edited: Edited, registry: ServiceRegistry, model: ServiceHandle
) -> None:
    registry.register("model", model._record.spec.callable, config=model.config, memory="1MB", budget="1MB")
    model.say(3)
    edited.edit("model", OTHER)
    assert model.reload().notes == ("the old model went first: both are more than its budget",)
    assert model.say(3) == 6


def test_what_goes_by_a_name_is_built_anew(edited: Edited, model: ServiceHandle) -> None:
    edited.edit("model", ("Weights(1)", 'self.shared("weights", lambda: Weights(1))'))
    model.reload()
    assert model.say(3) == 3
    edited.edit("model", OTHER)
    report = model.reload()
    assert report.notes == (
        "the old model went first: it shares weights, and what goes by a name is there once",
    )
    assert model.say(3) == 6


def test_all_that_share_a_helper_or_none(
    edited: Edited, registry: ServiceRegistry, model: ServiceHandle
) -> None:
    text = MODEL.replace("Model(", "Second(").replace("Weights(1)", "Weights(1 / helper.FACTOR)")
    edited.edit("model", ("Weights(1)", "Weights(helper.FACTOR)"))
    model.reload()
    second = registry.register("second", edited.start(second=text).Second)
    assert (model.say(3), second.say(3)) == (3, 3)
    there = weights_of(model), weights_of(second)
    edited.edit("helper", ("FACTOR = 1", "FACTOR = 0"))
    with pytest.raises(ReloadFailed, match="division by zero"):
        model.reload()
    assert (weights_of(model), weights_of(second)) == there and reserved(registry) == ["model", "second"]
    edited.edit("helper", ("FACTOR = 0", "FACTOR = 0.5"))
    assert model.reload().how == "loaded" and second.reload().how == "unchanged"
    assert (second.say(3), second.version, second.status().loads) == (6, "v2", 2)


@pytest.mark.parametrize("came", ["unload", "configure", "remove"])
def test_whoever_comes_as_it_loads(
    came: str, edited: Edited, registry: ServiceRegistry, model: ServiceHandle, gates: Gates
) -> None:
    model.say(3)
    edited.edit("model", WAITS)
    reloading = start(model.reload)
    gates.wait("loads")
    if came == "unload":
        model.unload()
    elif came == "configure":
        registry.register("model", model._record.spec.callable, config={"gates": gates}, memory="1MB", ttl=60)
    else:
        registry.remove("model")
    gates["load"].set()
    outcome(reloading)
    gc.collect()
    if came == "remove":
        assert reserved(registry) == [] and model.state == "closed"
        return
    assert (model.say(3), model.version) == (6, "v2") and reserved(registry) == ["model"]


def test_interrupted_as_it_loads(edited: Edited, registry: ServiceRegistry, model: ServiceHandle) -> None:
    model.say(3)
    before = weights_of(model)
    edited.edit("model", ("self.weights = Weights(1)", "self.weights = Weights(2); raise KeyboardInterrupt"))
    with pytest.raises(Interrupted, match="the reload was interrupted: model has the old code"):
        model.reload()
    assert weights_of(model) is before and model.say(3) == 3 and reserved(registry) == ["model"]
    edited.edit("model", ("; raise KeyboardInterrupt", ""))
    assert model.reload().how == "loaded" and model.say(3) == 6


def test_taken_back_it_is_loaded_by_the_old_code(edited: Edited, model: ServiceHandle) -> None:
    model.say(3)
    edited.edit("model", OTHER)
    model.reload()
    assert model.rollback().how == "loaded" and (model.say(3), model.version) == (3, "v1")


CALL_FAILS = (
    'return x * int(self.weights.values[0])\n\n    @task("hold")',
    "raise OSError('no file')\n\n    @task(\"hold\")",
)


def test_the_next_one_is_tried_by_the_calls_that_went_well_before(
    edited: Edited, model: ServiceHandle
) -> None:
    model.say(3)
    edited.edit("model", OTHER, CALL_FAILS)
    for _ in range(2):
        with pytest.raises(ReloadFailed, match="no file"):
            model.reload()
    edited.edit("model", CALL_FAILS[::-1])  # type: ignore[arg-type]
    assert (model.reload().tried, model.say(3)) == (1, 6)


def test_an_unload_hook_that_raises_hides_nothing_and_keeps_nothing(
    edited: Edited, registry: ServiceRegistry, model: ServiceHandle
) -> None:
    edited.edit("model", ("Weights(1)", "Weights(helper.FACTOR)"))
    text = MODEL.replace("Model(", "Second(").replace("Weights(1)", "Weights(helper.FACTOR)")
    second = registry.register("second", edited.start(second=text).Second)
    assert (model.say(3), second.say(3)) == (3, 3)
    edited.edit("helper", ("FACTOR = 1", "FACTOR = 2"))
    edited.edit("model", ("LET_GO.append(", "raise OSError('hook'); LET_GO.append("), CALL_FAILS)
    with pytest.raises(ReloadFailed, match="no file"):
        model.reload()
    assert reserved(registry) == ["model", "second"]
    assert (model.say(3), second.say(3)) == (3, 3)


@pytest.mark.parametrize("last", ["take_over", "trim"])
def test_interrupted_as_it_takes_over(
    last: str,
    edited: Edited,
    registry: ServiceRegistry,
    model: ServiceHandle,
    gates: Gates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model.say(1)
    running = start(model.hold, 5)
    gates.wait("in")
    waiting = model.say.submit(5)
    edited.edit("model", OTHER)
    of = swap if last == "take_over" else Instance
    does, left = getattr(of, last), [KeyboardInterrupt()]

    def cut_short(*given: Any) -> Any:
        done = does(*given)
        if left:
            raise left.pop()
        return done

    monkeypatch.setattr(of, last, cut_short)
    with pytest.raises(Interrupted, match="model has the new code"):
        model.reload()
    gates["go"].set()
    assert waiting.result(30) == 10, "it was in line, and the new model's slot is free"
    assert outcome(running) == 5 and (model.say(5), model.version) == (10, "v2")
    until(lambda: reserved(registry) == ["model"])
    assert model.let_go() == [1] and model._record.lane.free == 1


@pytest.mark.parametrize("wrong", ["OSError('no file')", "KeyboardInterrupt"])
def test_one_that_fails_after_the_old_went_keeps_no_other_from_the_new(
    wrong: str, edited: Edited, registry: ServiceRegistry, model: ServiceHandle
) -> None:
    edited.edit("model", ("Weights(1)", "Weights(helper.FACTOR)"))
    text = MODEL.replace("Model(", "Second(").replace("Weights(1)", "Weights(helper.FACTOR)")
    second = registry.register("second", edited.start(second=text).Second, memory="1MB")
    assert (model.say(3), second.say(3)) == (3, 3)
    registry.ports.resources.budget(
        {"cpu": 1_010_000}
    )  # for what both hold, or one and what is stated of one
    edited.edit("helper", ("FACTOR = 1", "FACTOR = 2"))
    edited.edit("model", ("Weights(helper.FACTOR)", f"Weights(helper.FACTOR); raise {wrong}"))
    with pytest.raises((ReloadFailed, Interrupted)):
        model.reload()
    assert model.version == "v1"
    assert (second.version, second.say(3), second.status().loads) == ("v2", 6, 2)


def test_where_memory_runs_out_for_both_the_old_goes_and_nobody_else(
    edited: Edited, registry: ServiceRegistry, model: ServiceHandle
) -> None:
    other = registry.register("other", edited.start(other=MODEL).Model).load()
    model.say(3)
    short = 'if not LET_GO: raise MemoryError("no more")\n        self.weights = Weights(2)'
    edited.edit("model", ("self.weights = Weights(1)", short))
    report = model.reload()
    assert (report.how, model.say(3)) == ("loaded", 6)
    assert report.notes == ("the old model went first: memory ran out as both were there",)
    assert other.state == "ready" and other.status().loads == 1
