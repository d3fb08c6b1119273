"""What a model's attributes hold when its code is edited: classes, hooks, slots, what `migrate` makes."""

from __future__ import annotations

import random
from typing import Any

import pytest

from grym_nb.errors import ReloadFailed
from grym_nb.services import ServiceHandle, ServiceRegistry
from tests.services.crowd import Gates, outcome, start, until
from tests.services.reload.files import Edited

NETS = """
    class Net:
        def __init__(self, width):
            self.weights = [object() for _ in range(width)]

        def answer(self):
            return "net one"
"""
SPEECH = """
    from grym_nb import ModelService, task
    from nets import Net

    class Speech(ModelService):
        def load(self):
            self.net = Net(3)
            self.layers = {"first": [self.net]}
            self.callback = self.on_item
            self.asked = 0

        def on_item(self):
            return "item one"

        @task("ask")
        def ask(self):
            self.asked += 1
            return self.net.answer(), self.layers["first"][0].answer(), self.callback(), self.asked

        @task("wait")
        def wait(self, gates):
            gates["in"].set()
            gates["go"].wait()
            self.asked += 10
            return self.net.answer()
"""


@pytest.fixture
def speech(edited: Edited, registry: ServiceRegistry) -> ServiceHandle:
    module = edited.start(nets=NETS, speech=SPEECH)
    return registry.register("speech", module.Speech)


def held(speech: ServiceHandle) -> Any:
    with speech.use() as model:
        return model


def test_objects_of_classes_that_changed_are_of_the_new_ones(edited: Edited, speech: ServiceHandle) -> None:
    speech.ask()
    weights = held(speech).net.weights
    edited.edit("nets", ("net one", "net two"))
    report = speech.reload()
    assert report.how == "in place", report.why
    assert speech.ask() == ("net two", "net two", "item one", 2)
    model = held(speech)
    assert model.net.weights is weights and model.net is model.layers["first"][0]
    import nets  # type: ignore[import-not-found]

    assert isinstance(model.net, nets.Net)
    assert speech.at("v1").ask()[:3] == ("net one", "net one", "item one")
    assert speech.rollback().after == "v1" and speech.ask()[0] == "net one"


def test_methods_that_were_kept_are_those_of_the_new_code(edited: Edited, speech: ServiceHandle) -> None:
    speech.ask()
    edited.edit("speech", ("item one", "item two"))
    speech.reload()
    assert speech.ask() == ("net one", "net one", "item two", 2)


def test_a_call_under_way_ends_before_attributes_are_copied(edited: Edited, speech: ServiceHandle) -> None:
    speech.ask()
    gates = Gates()
    running = start(speech.wait, gates)
    gates.wait("in")
    edited.edit("nets", ("net one", "net two"))
    reloading = start(lambda: speech.reload(force=True))
    until(lambda: speech.state == "draining")
    late = start(speech.ask)
    gates["go"].set()
    assert outcome(running) == "net one" and outcome(reloading).how == "in place"
    assert outcome(late) == ("net two", "net two", "item one", 12)


def test_another_init_of_a_class_that_load_makes_is_another_load(
    edited: Edited, speech: ServiceHandle
) -> None:
    speech.ask()
    edited.edit("nets", ("for _ in range(width)", "for _ in range(width + 1)"))
    report = speech.reload()
    assert report.how == "loaded" and "nets.Net.__init__" in report.why
    assert len(held(speech).net.weights) == 4


def test_migrate_makes_the_state_of_the_new_code(edited: Edited, speech: ServiceHandle) -> None:
    speech.ask()
    migrate = """def migrate(self, state, from_version):
        state["counted"] = f"{state.pop('asked')} by {from_version}"
        return state

    @task("counted")
    def counted_by(self):
        return self.counted

    def on_item"""
    edited.edit("speech", ("def on_item", migrate))
    assert speech.reload(force=True).how == "in place"
    assert speech.counted_by() == "1 by v1"
    assert speech.at("v1").ask()[3] == 2


def test_a_migrate_that_raises_is_refused(edited: Edited, speech: ServiceHandle) -> None:
    speech.ask()
    edited.edit("speech", ("def on_item", "def migrate(self, state, old):\n        1 / 0\n\n    def on_item"))
    with pytest.raises(ReloadFailed, match="ZeroDivisionError"):
        speech.reload()
    with pytest.raises(ReloadFailed, match="ZeroDivisionError"):
        speech.reload(force=True)
    assert speech.ask()[3] == 2 and speech.version == "v1" and speech.state == "ready"


def test_attributes_in_slots_go_along(edited: Edited, registry: ServiceRegistry) -> None:
    slotted = """
        from grym_nb import task

        class Slotted:
            __slots__ = ("weights",)

            def load(self):
                self.weights = [object()]

            @task("ask")
            def ask(self):
                return "one", self.weights
    """
    service = registry.register("slotted", edited.start(slotted=slotted).Slotted)
    _, weights = service.ask()
    edited.edit("slotted", ('"one"', '"two"'), ('("weights",)', '("weights", "more")'))
    report = service.reload()
    assert report.how == "in place", report.why
    said, now = service.ask()
    assert said == "two" and now is weights


def test_a_network_that_is_edited_keeps_its_tensors(edited: Edited, registry: ServiceRegistry) -> None:
    torch = pytest.importorskip("torch")
    net = """
        import torch
        from grym_nb import ModelService, task

        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(2, 2)

            def forward(self, x):
                return self.layer(x)

        class Speech(ModelService):
            def load(self):
                self.net = torch.nn.Sequential(Net(), torch.nn.ReLU())
                self.net[0].register_forward_hook(self.seen)
                self.hooked = []

            def seen(self, module, given, out):
                self.hooked.append("one")

            @task("ask")
            def ask(self, x):
                return self.net(x), self.hooked[-1]
    """
    speech = registry.register("speech", edited.start(net=net).Speech)
    x = torch.ones(1, 2)
    before, _ = speech.ask(x)
    weight = held(speech).net[0].layer.weight
    edited.edit("net", ("return self.layer(x)", "return self.layer(x) * 0 + 7"), ('"one"', '"two"'))
    report = speech.reload()
    assert report.how == "in place", report.why
    after, hooked = speech.ask(x)
    assert after.tolist() == [[7.0, 7.0]] and hooked == "two"
    assert held(speech).net[0].layer.weight is weight
    assert torch.equal(speech.at("v1").ask(x)[0], before)


def test_what_a_cached_property_keeps_is_computed_anew_by_other_code_alone(
    edited: Edited, registry: ServiceRegistry
) -> None:
    text = """
        from functools import cached_property
        from grym_nb import ModelService, task

        def gain():
            return [2]

        class Cached(ModelService):
            @cached_property
            def gain(self):
                return gain()

            @cached_property
            def other(self):
                return [1]

            @task("ask")
            def ask(self):
                return self.gain, self.other
    """
    cached = registry.register("cached", edited.start(cached=text).Cached)
    first = cached.ask()
    edited.edit("cached", ("[2]", "[3]"))
    cached.reload()
    second = cached.ask()
    assert (first[0], second[0]) == ([2], [3]) and second[1] is first[1]
    cached.rollback()
    assert cached.ask()[0] is first[0]


def test_what_an_init_draws_anew_each_time_is_no_edit(edited: Edited, registry: ServiceRegistry) -> None:
    text = """
        import random
        import uuid
        from grym_nb import ModelService, task

        class Drawn(ModelService):
            def __init__(self, *, seed=1):
                self.id = uuid.uuid4().hex
                self.draw = random.random()
                self.seed = seed

            def load(self):
                self.weights = [object(), self.id]

            @task("say")
            def say(self, x):
                return self.id, self.draw, self.weights[0], 0
    """
    drawn = registry.register("drawn", edited.start(drawn=text).Drawn)
    first = drawn.say(1)
    random.seed(3)
    expected = random.random()
    for was, now in (
        ("self.weights[0], 0", "self.weights[0], self.seed"),
        ("self.seed = seed", "self.seed = 7"),
    ):
        edited.edit("drawn", (was, now))
        random.seed(3)
        assert drawn.reload().how == "in place" and random.random() == expected
        assert drawn.say(1)[:3] == first[:3]
    assert drawn.say(1)[3] == 7 and drawn.status().loads == 1
