"""A task finds the one service that declares its type; none and several are said, with what there is."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from grym_nb.errors import RoutingError, ServiceClosed, ServiceNotFound, TaskNotFound, ValidationError
from grym_nb.flow import route
from grym_nb.runtime import Runtime
from grym_nb.services import ModelService, Task, task


class Loud(ModelService):
    """Measures."""

    @task("audio.loudness")
    def measure(self, clip: str, *, block: float = 0.4) -> tuple[str, float]:
        return f"loud {clip}", block

    @task
    def plain(self) -> str:
        return "plain"


class Louder(ModelService):
    """Measures too."""

    @task("audio.loudness")
    def measure(self, clip: str) -> str:
        return f"louder {clip}"


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    with Runtime() as made:
        for name in tuple(made.registry):  # what comes with it declares audio.loudness as well
            made.registry.remove(name)
        yield made


def test_the_only_one_that_can_is_asked(runtime: Runtime) -> None:
    handle = runtime.registry.register("loud", Loud)
    assert route(runtime.registry, "audio.loudness") is handle and handle.state == "registered"
    assert runtime.run("audio.loudness", "a", block=0.1) == ("loud a", 0.1)
    assert runtime.run("plain") == "plain"
    call = runtime.submit(Task("audio.loudness", "b", {"block": 0.2}, priority="high"))
    assert call.result(10) == ("loud b", 0.2)
    assert call.outcome is not None and call.outcome.provenance is not None
    assert (call.outcome.provenance.service, call.outcome.provenance.parameters) == ("loud", {"block": 0.2})


def test_nobody_can_and_what_is_supported_is_said(runtime: Runtime) -> None:
    runtime.registry.register("loud", Loud)
    for ask in (lambda: runtime.run("audio.loudnes"), lambda: runtime.submit(Task("audio.loudnes"))):
        with pytest.raises(RoutingError, match=r"Did you mean 'audio\.loudness'") as caught:
            ask()
        assert caught.value.hint == "supported: audio.loudness, plain"
        assert caught.value.details["supported"] == ("audio.loudness", "plain")


def test_an_empty_registry_says_so(runtime: Runtime) -> None:
    with pytest.raises(RoutingError, match="no service answers") as caught:
        runtime.run("anything")
    assert "nothing yet" in caught.value.hint


def test_several_can_and_how_to_choose_is_said(runtime: Runtime) -> None:
    runtime.registry.register("loud", Loud)
    runtime.registry.register("louder", Louder)
    with pytest.raises(RoutingError, match=r"several services answer .*: loud, louder") as caught:
        runtime.run("audio.loudness", "a")
    assert 'model="loud"' in caught.value.hint and caught.value.details["able"] == ("loud", "louder")
    asked = Task("audio.loudness", "a", model="louder")
    assert runtime.submit(asked).result(10) == "louder a"
    assert not runtime.registry["loud"].status().calls


def test_a_named_one_must_be_there_and_able(runtime: Runtime) -> None:
    runtime.registry.register("loud", Loud)
    with pytest.raises(ServiceNotFound, match="Did you mean 'loud'"):
        runtime.submit(Task("audio.loudness", "a", model="lout"))
    with pytest.raises(TaskNotFound):
        runtime.submit(Task("text.echo", "a", model="loud"))


def test_wrong_arguments_are_refused_by_the_service_that_was_found(runtime: Runtime) -> None:
    runtime.registry.register("loud", Loud)
    with pytest.raises(ValidationError, match=r"loud\.measure does not take"):
        runtime.run("audio.loudness", 3)


def test_a_service_that_goes_is_not_found_any_more(runtime: Runtime) -> None:
    runtime.registry.register("loud", Loud)
    runtime.registry.register("louder", Louder)
    runtime.registry.remove("loud")
    assert runtime.run("audio.loudness", "a") == "louder a"
    runtime.registry.remove("louder")
    with pytest.raises(RoutingError):
        runtime.run("audio.loudness", "a")
    runtime.registry.register("loud", Loud)
    runtime.close()
    with pytest.raises((ServiceClosed, RoutingError)):
        runtime.run("audio.loudness", "a")


def test_a_plug_in_is_found_by_type_and_a_broken_one_is_in_nobodys_way(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "grymroute_good.py").write_text(
        "from grym_nb import ModelService, task\n"
        "class Shout(ModelService):\n"
        "    @task('plug.shout')\n"
        "    def shout(self, text: str) -> str:\n"
        "        return text.upper()\n"
    )
    (tmp_path / "grymroute_bad.py").write_text("raise RuntimeError('no licence')\n")
    info = tmp_path / "grymroute-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: grymroute\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[grym_nb.services]\naaa_bad = grymroute_bad:Nothing\nzzz_good = grymroute_good:Shout\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    runtime.registry.register("loud", Loud)
    try:
        assert runtime.run("plug.shout", "a") == "A"
        assert runtime.run("audio.loudness", "a", block=1.0) == ("loud a", 1.0)
        assert runtime.registry["aaa_bad"].state == "registered"
        with pytest.raises(RoutingError, match="no service answers"):
            runtime.run("plug.whisper")
    finally:
        for name in ("grymroute_good", "grymroute_bad"):
            sys.modules.pop(name, None)
