"""A file is saved, and the service has its new code."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from grym_nb.events import ServiceReloaded
from grym_nb.services import ServiceRegistry
from grym_nb.services.reload import plan
from tests.services.crowd import Gates, until
from tests.services.reload.files import Edited
from tests.services.reload.test_reloading import HELPER, SPEECH


@pytest.fixture
def told(registry: ServiceRegistry) -> Iterator[list[ServiceReloaded]]:
    events: list[ServiceReloaded] = []
    yield events
    registry.watching.off()


def test_what_is_saved_is_in_force(
    edited: Edited, registry: ServiceRegistry, told: list[ServiceReloaded]
) -> None:
    module = edited.start(helper=HELPER, speech=SPEECH)
    speech = registry.register("speech", module.Speech)
    other = registry.register("other", edited.start(other=SPEECH.replace("Speech", "Other")).Other)
    gates = Gates()

    def hear(event: ServiceReloaded) -> None:
        told.append(event)
        gates[f"{event.service} {event.how} {event.version}"].set()

    registry.ports.events.subscribe(hear, ServiceReloaded)
    speech.say(1), other.say(1)
    assert registry.watching.on().files == 3
    edited.edit("helper", ("SCALE = 2", "SCALE = 3"))
    gates.wait("speech in place v2"), gates.wait("other in place v2")
    assert (speech.say(1)[0], other.say(1)[0]) == (3, 3)
    edited.edit("speech", ("return x\n", "return x +\n"))
    gates.wait("speech refused v2")
    assert speech.fussy(1) == 1
    new = edited.path("speech").with_suffix(".new")
    new.write_text(edited.path("speech").read_text().replace("return x +\n", "return x + 1\n"))
    os.replace(new, edited.path("speech"))
    gates.wait("speech in place v3")
    assert speech.fussy(1) == 2 and other.version == "v2"
    assert registry.watching.off().how == "off"


@pytest.fixture
def heard(registry: ServiceRegistry) -> Iterator[Gates]:
    """Gates that open as reloads end; files are watched from the beginning."""
    gates = Gates()

    def hear(event: ServiceReloaded) -> None:
        gates[f"{event.service} {event.how} {event.version}"].set()

    registry.ports.events.subscribe(hear, ServiceReloaded)
    registry.watching.on()
    yield gates
    registry.watching.off()


def test_a_service_that_comes_later_is_watched_too(
    edited: Edited, registry: ServiceRegistry, heard: Gates
) -> None:
    assert registry.watching.status().files == 0
    speech = registry.register("speech", edited.start(helper=HELPER, speech=SPEECH).Speech)
    until(lambda: registry.watching.status().files == 2)
    edited.edit("speech", ("return x\n", "return x + 1\n"))
    heard.wait("speech at load v2")
    assert speech.fussy(1) == 2


def test_what_was_saved_before_it_was_followed_is_in_force(
    edited: Edited, registry: ServiceRegistry, heard: Gates
) -> None:
    """As by an edit that comes between the registration and the look at what there is to follow."""
    speech = registry.register("speech", edited.start(helper=HELPER, speech=SPEECH).Speech)
    until(lambda: registry.watching.status().files == 2)
    edited.write("late", "WORD = 1\n")
    edited.edit(
        "speech",
        ("from helper import scale", "from helper import scale\nimport late"),
        ("return x\n", "return late.WORD\n"),
    )
    heard.wait("speech at load v2")
    until(lambda: registry.watching.status().files == 3)
    edited.edit("late", ("WORD = 1", "WORD = 2"))
    heard.wait("speech at load v3")
    assert speech.fussy(1) == 2


def test_a_saved_text_is_read_once(
    edited: Edited, registry: ServiceRegistry, heard: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    speech = registry.register("speech", edited.start(helper=HELPER, speech=SPEECH).Speech)
    until(lambda: registry.watching.status().files == 2)
    edited.edit("speech", ("return x\n", "return x + 1\n"))
    heard.wait("speech at load v2")
    read: list[str] = []
    statements_of = plan.statements_of

    def noted(text: str, name: str, **more: Any) -> object:
        read.append(name)
        return statements_of(text, name, **more)

    monkeypatch.setattr(plan, "statements_of", noted)
    edited.path("speech").write_text(edited.path("speech").read_text().replace("x + 1\n", "x + 2\n"))
    heard.wait("speech at load v3")
    assert speech.fussy(1) == 3 and read == ["speech"]


def test_a_text_that_is_no_python_is_not_taken_for_read(edited: Edited, registry: ServiceRegistry) -> None:
    speech = registry.register("speech", edited.start(helper=HELPER, speech=SPEECH).Speech)
    codebase, path = registry.codebase, str(edited.path("speech"))
    whole = edited.path("speech").read_bytes()
    assert codebase.reads(path, whole.replace(b"return x\n", b"return x + 1\n"))
    assert not codebase.reads(path, whole + b"def half(")
    assert not codebase.reads(path, whole + b"# \xff")
    edited.edit("speech", ("return x\n", "return x + 2\n"))
    speech.reload()
    assert speech.fussy(1) == 3
