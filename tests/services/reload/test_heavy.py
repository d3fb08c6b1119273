"""What is slow or large at the top of a module is made anew: who holds the one before is loaded anew."""

from __future__ import annotations

import pytest

from grym_nb.services import ServiceHandle, ServiceRegistry
from grym_nb.services.reload import heavy
from tests.services.reload.files import Edited

SPEECH = """
    from grym_nb import ModelService, task

    class Net:
        def __init__(self, said):
            self.said = said

    NET = Net("one")
    OTHER = Net("other")
    SAME = NET
    COUNT = 1

    class Speech(ModelService):
        def __init__(self):
            self.given = NET

        def load(self):
            self.weights = [object()]

        @task("ask", replay=False)
        def ask(self):
            return NET.said, self.weights[0]

        @task("take", replay=False)
        def take(self, name):
            value = {"NET": NET, "SAME": SAME, "COUNT": COUNT, "OTHER": OTHER}[name]
            self.parts = getattr(self, "parts", {})
            self.parts.setdefault("kept", [value])
            return getattr(self.parts["kept"][0], "said", None)
"""


@pytest.fixture
def speech(edited: Edited, registry: ServiceRegistry, monkeypatch: pytest.MonkeyPatch) -> ServiceHandle:
    monkeypatch.setattr(heavy, "_SLOW", 0.0)
    return registry.register("speech", edited.start(speech=SPEECH).Speech)


def test_a_state_that_got_hold_of_it_is_loaded_anew(edited: Edited, speech: ServiceHandle) -> None:
    assert speech.take("NET") == "one"
    _, weights = speech.ask()
    edited.edit("speech", ('Net("one")', 'Net("two")'))
    report = speech.reload()
    assert report.how == "loaded" and report.why.startswith("it holds what was made anew (speech.NET")
    assert not any("what `load` makes stays" in note for note in report.notes)
    assert speech.take("NET") == "two" and speech.ask()[1] is not weights
    speech.rollback()
    assert speech.take("NET") == "one"


def test_a_state_that_has_nothing_of_it_stays(edited: Edited, speech: ServiceHandle) -> None:
    speech.take("OTHER")
    _, weights = speech.ask()
    edited.edit("speech", ('Net("one")', 'Net("two")'))
    report = speech.reload()
    assert report.how == "in place" and speech.ask() == ("two", weights)
    assert any("ran again and took" in note and "what `load` makes stays" in note for note in report.notes)


def test_what_init_sets_is_set_and_nothing_is_loaded(edited: Edited, speech: ServiceHandle) -> None:
    _, weights = speech.ask()
    edited.edit("speech", ('Net("one")', 'Net("two")'))
    assert speech.reload().how == "in place" and speech.ask()[1] is weights
    with speech.use() as model:
        assert model.given.said == "two"


def test_what_is_there_by_another_name_or_is_only_a_number_is_not_held(
    edited: Edited, speech: ServiceHandle
) -> None:
    speech.take("SAME")
    _, weights = speech.ask()
    edited.edit("speech", ("SAME = NET", "SAME = OTHER"))
    assert speech.reload().how == "in place"
    edited.edit("speech", ("COUNT = 1", "COUNT = 2"))
    assert speech.reload().how == "in place" and speech.ask()[1] is weights


def test_what_is_light_is_kept_as_calls_have_set_it(
    edited: Edited, speech: ServiceHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heavy, "_SLOW", 1e9)
    speech.take("NET")
    edited.edit("speech", ('Net("one")', 'Net("two")'))
    report = speech.reload()
    assert report.how == "in place" and report.notes == ("set otherwise: given, as `__init__` does now",)
    assert speech.take("NET") == "one" and speech.ask()[0] == "two"
