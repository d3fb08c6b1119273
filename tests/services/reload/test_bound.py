"""Methods of an older model outside of its service's state are told: they go on with its code."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from grym_nb.services import ServiceHandle, ServiceRegistry
from grym_nb.services.reload.bound import _Looking
from tests.services.reload.files import Edited

HOOKS = """
    from functools import partial
    ASKED, LATER = [], {}

    class Bus:
        every = []

        def __init__(self):
            self.heard = {}

    BUS = Bus()
"""
BEATS = """
    import threading
    import hooks
    from grym_nb import ModelService, task

    class Beats(ModelService):
        def load(self):
            self.go, self.told = threading.Event(), []
            self.own = [self.say]
            {load}

        def say(self):
            return "one"

        def beat(self):
            self.go.wait()
            self.told.append("one")

        @task("ask")
        def ask(self):
            return self.say()

        @task("end")
        def end(self):
            self.go.set()
            return self.told
"""


@pytest.fixture
def beats(
    edited: Edited, registry: ServiceRegistry, request: pytest.FixtureRequest
) -> Iterator[ServiceHandle]:
    module = edited.start(hooks=HOOKS, beats=BEATS.format(load=request.param))
    beats = registry.register("beats", module.Beats)
    beats.load()
    yield beats
    beats.end()
    for thread in threading.enumerate():
        if thread.name.startswith("beat"):
            thread.join(10.0)


def edit(edited: Edited, beats: ServiceHandle) -> list[str]:
    """Have it say something else; return what the report says of what is outside."""
    edited.edit("beats", ('return "one"', 'return "two"'))
    report = beats.reload()
    assert report.how == "in place" and beats.ask() == "two"
    return [note.partition("old code: ")[2] for note in report.notes if note.startswith("outside of")]


THREADS = (
    "threading.Thread(target=self.beat, name='beat 1', daemon=True).start()",
    "threading.Thread(target=lambda: self.beat(), name='beat 1', daemon=True).start()",
    "threading.Thread(target=hooks.partial(self.beat), name='beat 1', daemon=True).start()",
)


@pytest.mark.parametrize("beats", THREADS, indirect=True)
def test_a_thread_that_load_has_started_is_told(edited: Edited, beats: ServiceHandle) -> None:
    assert edit(edited, beats) == ["the thread beat 1"]


IN_MODULES = {
    "hooks.ASKED.append(self.beat)": "hooks.ASKED[0]",
    "hooks.ASKED.append(lambda: self.beat())": "hooks.ASKED[0]",
    "hooks.LATER['end'] = (1, hooks.partial(self.beat))": "hooks.LATER['end'][1]",
    "hooks.BUS.heard['a'] = [self.beat]": "hooks.BUS.heard['a'][0]",
    "hooks.Bus.every.append(self.beat)": "hooks.Bus.every[0]",
}


@pytest.mark.parametrize("beats", IN_MODULES, indirect=True)
def test_so_is_what_a_module_has(
    edited: Edited, beats: ServiceHandle, request: pytest.FixtureRequest
) -> None:
    assert edit(edited, beats) == [IN_MODULES[request.node.callspec.params["beats"]]]


@pytest.mark.parametrize("beats", ["pass"], indirect=True)
def test_what_the_state_has_goes_with_it_and_is_not_told(edited: Edited, beats: ServiceHandle) -> None:
    assert edit(edited, beats) == []


@pytest.mark.parametrize("beats", ["pass"], indirect=True)
def test_what_is_anywhere_else_is_counted_when_the_report_is_shown(
    edited: Edited, beats: ServiceHandle
) -> None:
    with beats.use() as model:
        mine = SimpleNamespace(inside=[model.say])
        del model
    assert edit(edited, beats) == []
    report = beats.reloads[-1]
    assert report.outside() == {"Beats.say": 1} and mine.inside[0]() == "one"
    assert "1 bound method Beats.say that no service holds keeps the code of before" in repr(report)
    mine.inside.clear()
    assert report.outside() == {}


@pytest.mark.parametrize("beats", ["pass"], indirect=True)
def test_few_values_are_looked_at_however_many_there_are(edited: Edited, beats: ServiceHandle) -> None:
    edit(edited, beats)
    instance = beats._record.instance
    assert instance is not None
    looking = _Looking(instance)
    large = [[[object()] * 900 for _ in range(900)] for _ in range(10)]
    looking.at(
        "", {"callbacks": [object()] * 2_000_000, "large": large, "names": {str(n): [] for n in range(900)}}
    )
    assert looking.found == [] and len(looking._keep) <= 500
