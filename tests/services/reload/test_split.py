"""A service goes over to new code by and by: it answers a share of the calls, the code before it the rest."""

from __future__ import annotations

from collections import Counter

import pytest

from grym_nb import ModelService, task
from grym_nb.errors import ReloadFailed, StateError, ValidationError
from grym_nb.events import CallEnded
from grym_nb.services import ServiceHandle, ServiceRegistry
from tests.services.crowd import all_at_once
from tests.services.reload.files import Edited

TEXT = """
    from grym_nb import ModelService, task

    class Said(ModelService):
        def load(self):
            self.weights = [object()]
            self.calls = []

        @task("say")
        def say(self, x):
            self.calls.append(x)
            return "one"

        @task("twice")
        def twice(self, x):
            return self.say(x), self.said.say(x)

        @task("several")
        def several(self, x):
            yield "one"
"""


@pytest.fixture
def said(edited: Edited, registry: ServiceRegistry) -> ServiceHandle:
    return registry.register("said", edited.start(said=TEXT).Said, concurrency=4).load()


def edit(edited: Edited, word: str, *changes: tuple[str, str]) -> None:
    edited.write("said", TEXT.replace('"one"', f'"{word}"'))
    edited.edit("said", *changes)


def answers(said: ServiceHandle, n: int = 40) -> Counter[str]:
    return Counter(said.say(x) for x in range(n))


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_so_many_of_the_calls_are_answered_by_the_new(
    share: float, edited: Edited, said: ServiceHandle
) -> None:
    weights = said._record.instance.model.weights  # type: ignore[union-attr]
    edit(edited, "two")
    report = said.reload(share=share)
    assert report.line.startswith(
        f"said v1 → v2 has new code, and its weights as they were for {share * 100:.3g} % of the calls"
    )
    assert answers(said) == {"one": round(40 * (1 - share)), "two": round(40 * share)}
    assert Counter(next(iter(said.several(x))) for x in range(40))["two"] == round(40 * share)
    assert said._record.instance.model.weights is weights  # type: ignore[union-attr]
    assert len(said._record.instance.model.calls) == 40, "both have the same state"  # type: ignore[union-attr]


def test_by_and_by_until_all_are(edited: Edited, said: ServiceHandle) -> None:
    edit(edited, "two")
    said.reload(share=0.25)
    report = said.reload(share=0.5)
    assert (report.how, report.before, report.after, report.share) == ("split", "v1", "v2", 0.5)
    assert "said v1 → v2 is in force for 50 % of the calls" in repr(report)
    assert answers(said) == {"one": 20, "two": 20}
    assert said.reload().how == "unchanged" and answers(said) == {"one": 20, "two": 20}
    assert said.reload(share=1).line.startswith("said v2 is in force for 100 % of the calls")
    assert answers(said) == {"two": 40}
    assert said.reload(share=0.5).before == "v1", "also of what was in force for all of them"
    assert [one.how for one in said.reloads] == ["in place", "split", "split", "split"]
    said.rollback()
    assert answers(said) == {"one": 40}


def test_each_version_has_its_own_figures(
    edited: Edited, registry: ServiceRegistry, said: ServiceHandle
) -> None:
    answers(said)
    edit(edited, "two")
    said.reload(share=0.25)
    answers(said)
    counted = registry.ports.metrics.select("service.version.seconds", service="said", outcome="ok")
    assert {dict(one.tags)["version"]: one.value.count for one in counted} == {"v1": 30, "v2": 10}
    told = said.status().by_version
    assert [line.rpartition(", p95")[0] for line in told] == [
        "v1: 75 % of the calls, 30 calls, 0 failed",
        "v2: 25 % of the calls, 10 calls, 0 failed",
    ]
    assert all(line in repr(said.status()) for line in told)
    for n in range(8):
        edit(edited, str(n))
        said.reload()
        said.say(1)
    kept = registry.ports.settings.versions_kept
    assert len(registry.ports.metrics.select("service.version.seconds", service="said")) <= kept + 1
    assert len(said._record.by_version) <= kept + 1


def test_code_that_fails_is_taken_back_all_the_same(edited: Edited, said: ServiceHandle) -> None:
    edit(edited, "two", ("self.calls.append(x)", "self.calls.append(x)\n        if x > 5: raise OSError"))
    said.reload(share=0.25)
    assert answers(said) == {"one": 39, "two": 1} and said.version == "v1"
    with pytest.raises(StateError, match="no other version"):
        said.reload(share=0.5)


def test_what_a_call_asks_of_its_own_service_is_answered_as_it_is(
    edited: Edited, said: ServiceHandle
) -> None:
    edit(edited, "two", ("self.said.say(x)", "self.handle.say(x)"))
    said._record.instance.model.handle = said  # type: ignore[union-attr]
    said.reload(share=0.5)
    edit(edited, "three", ("self.said.say(x)", "self.handle.say(x)"))
    said.reload(share=1)
    edit(edited, "four", ("self.said.say(x)", "self.handle.say(x)"))
    said.reload(share=0.5)
    assert Counter(said.twice(x) for x in range(10)) == {("three", "three"): 5, ("four", "four"): 5}


def test_an_edit_on_the_way_goes_beside_what_answers_the_most(edited: Edited, said: ServiceHandle) -> None:
    edit(edited, "two")
    said.reload(share=0.25)
    edit(edited, "three")
    said.reload(share=0.5)
    assert answers(said) == {"one": 20, "three": 20}


def test_many_threads(edited: Edited, said: ServiceHandle) -> None:
    edit(edited, "two")
    said.reload(share=0.25)
    counted = sum(all_at_once(8, lambda n: answers(said, 100)), Counter[str]())
    assert counted == {"one": 600, "two": 200}


def test_calls_with_options_and_older_versions(edited: Edited, said: ServiceHandle) -> None:
    edit(edited, "two")
    said.reload(share=0.5)
    assert Counter(said.say.submit(x).result(30) for x in range(10)) == {"one": 5, "two": 5}
    assert {said.at("v1").say(1), said.at("v1").say(1)} == {"one"}
    assert {said.at("v2").say(1), said.at("v2").say(1)} == {"two"}


def test_an_unload_ends_it(edited: Edited, said: ServiceHandle) -> None:
    edit(edited, "two")
    said.reload(share=0.25)
    said.unload()
    assert answers(said) == {"two": 40}


@pytest.mark.parametrize("share", [0, -1, 1.5, True, "10%", None])
def test_no_share(share: object, edited: Edited, said: ServiceHandle) -> None:
    if share is None:
        assert said.reload(share=None).how == "unchanged"
        return
    with pytest.raises(ValidationError, match="number above 0, up to 1"):
        said.reload(share=share)  # type: ignore[arg-type]


def test_what_cannot_be_split(edited: Edited, said: ServiceHandle) -> None:
    with pytest.raises(StateError, match="no other version"):
        said.reload(share=0.5)
    edit(edited, "two", ("self.weights = [object()]", "self.weights = [object(), 2]"))
    with pytest.raises(ReloadFailed, match=r"cannot be split: its load is another one \(self.load\)"):
        said.reload(share=0.5)
    assert said.version == "v1" and answers(said) == {"one": 40}
    assert said.reload().how == "loaded" and answers(said) == {"two": 40}
    said.unload()
    edit(edited, "three", ("self.weights = [object()]", "self.weights = [object(), 2]"))
    with pytest.raises(ReloadFailed, match="cannot be split: it is not loaded"):
        said.reload(share=0.5)


@pytest.mark.parametrize("loaded", [True, False])
def test_the_figures_of_versions_that_are_gone_go_also_where_each_was_loaded_anew(
    loaded: bool, edited: Edited, registry: ServiceRegistry, said: ServiceHandle
) -> None:
    kept = registry.ports.settings.versions_kept
    for n in range(kept + 4):
        edit(edited, str(n), ("[object()]", f"[object(), {n}]"))
        said.load() if loaded else said.unload()
        assert said.reload().how == ("loaded" if loaded else "at load") and said.say(1) == str(n)
    versions = {version for version, _, _ in said._record.by_version}
    assert versions == {f"v{n}" for n in range(6, kept + 6)}
    assert len(registry.ports.metrics.select("service.version.seconds", service="said")) == kept


def test_taken_back_it_is_as_it_was_and_that_is_said(edited: Edited, said: ServiceHandle) -> None:
    edit(edited, "two")
    said.reload(share=0.25)
    edit(edited, "three")
    said.reload()
    assert "has the code of before again for 25 % of the calls" in said.rollback().line
    assert answers(said) == {"one": 30, "two": 10}


def test_a_service_from_a_cell(registry: ServiceRegistry) -> None:
    def made(word: str) -> type:
        class Said(ModelService):
            @task("say")
            def say(self, x: int) -> str:
                return word

        return Said

    said = registry.register("said", made("one")).load()
    registry.register("said", made("two"))
    assert answers(said) == {"two": 40}
    said.reload(share=0.1)
    assert answers(said) == {"one": 36, "two": 4}


def test_versions_of_config_are_told_apart_too(registry: ServiceRegistry) -> None:
    class Gain(ModelService):
        def __init__(self, *, gain: int = 1) -> None:
            self.gain = gain

        @task("say")
        def say(self, x: int) -> int:
            return self.gain * x

    heard: list[CallEnded] = []
    registry.ports.events.subscribe(heard.append, CallEnded)
    said = registry.register("said", Gain).load()
    for gain in range(1, 12):
        said.configure(gain=gain)
        assert said.say(2) == 2 * gain
    assert [event.config_version for event in heard] == list(range(2, 13))
    counted = registry.ports.metrics.select("service.version.seconds", service="said")
    assert sorted(int(dict(one.tags)["config"]) for one in counted) == [8, 9, 10, 11, 12]
    assert said.status().by_version[-1].startswith("v1 with config 12: 1 call, 0 failed, p95 ")
