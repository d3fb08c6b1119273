"""What an edit changed, told apart by version: of files as they were reloaded, of cells as they were run."""

from __future__ import annotations

import linecache
from textwrap import dedent
from typing import Any

import pytest

from grym_nb.errors import ReloadFailed, StateError
from grym_nb.services import ServiceHandle, ServiceRegistry
from grym_nb.services.reload.diff import Diff, diff, known_versions, source_of
from grym_nb.services.reload.report import Reload
from tests.services.reload.files import Edited
from tests.services.reload.test_reloading import HELPER, SPEECH


@pytest.fixture
def speech(edited: Edited, registry: ServiceRegistry) -> ServiceHandle:
    module = edited.start(helper=HELPER, speech=SPEECH)
    return registry.register("speech", module.Speech)


def changed(found: Diff) -> list[str]:
    return [line for line in found.lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]


def report(how: Any, numbers: tuple[int, int], **sources: tuple[str, str]) -> Reload:
    return Reload("speech", 0.0, "", "", how, numbers=numbers, sources=sources)


def test_steps_are_composed(edited: Edited, speech: ServiceHandle) -> None:
    """The last two by default; of two that are not neighbours, all that lies between them."""
    speech.say(1)
    edited.edit("helper", ("SCALE = 2", "SCALE = 3"))
    speech.reload()
    assert changed(diff(speech)) == ["-SCALE = 2", "+SCALE = 3"]
    edited.edit("speech", ("return x\n", "return x + 1\n"))
    speech.reload()
    assert changed(diff(speech)) == ["-        return x", "+        return x + 1"]
    edited.edit("helper", ("SCALE = 3", "SCALE = 4"))
    speech.reload()
    both = ["-SCALE = 2", "+SCALE = 4", "-        return x", "+        return x + 1"]
    assert changed(diff(speech, "v1", "v4")) == changed(diff(speech, 1)) == both
    assert changed(diff(speech, "v4", "v3")) == ["-SCALE = 4", "+SCALE = 3"]
    assert known_versions(speech) == {1: "v1", 2: "v2", 3: "v3", 4: "v4"}
    assert diff(speech, 2, 2).title == "speech v2 → v2: the same source"


def test_what_was_refused_or_taken_back_is_not_in_between(edited: Edited, speech: ServiceHandle) -> None:
    """A version is what served under its name; after a way back, the next one begins from what was there."""
    speech.say(1)
    edited.edit("helper", ("SCALE = 2", "SCALE = 3"))
    speech.reload()
    speech.rollback()
    edited.edit("helper", ("SCALE = 3", "SCALE = 3 +"))
    with pytest.raises(ReloadFailed):
        speech.reload()
    edited.edit("helper", ("SCALE = 3 +", "SCALE = 5"))
    speech.reload()
    assert changed(diff(speech, "v1", "v3")) == ["-SCALE = 2", "+SCALE = 5"]
    assert changed(diff(speech)) == ["-SCALE = 3", "+SCALE = 5"]


def test_a_service_that_is_reloaded_with_another_has_what_it_uses(
    edited: Edited, registry: ServiceRegistry, speech: ServiceHandle
) -> None:
    """An edit of a file that only the other one is made of is none of it."""
    other = registry.register("other", edited.start(other=SPEECH.replace("Speech", "Other")).Other)
    speech.say(1), other.say(1)
    edited.edit("helper", ("SCALE = 2", "SCALE = 3"))
    edited.edit("speech", ("return x\n", "return x + 1\n"))
    speech.reload()
    assert changed(diff(other)) == ["-SCALE = 2", "+SCALE = 3"]
    assert len(changed(diff(speech))) == 4


def test_a_version_that_is_not_known_is_told(edited: Edited, speech: ServiceHandle) -> None:
    """With those that are."""
    with pytest.raises(StateError, match="speech has no two versions to tell apart"):
        diff(speech)
    edited.edit("helper", ("SCALE = 2", "SCALE = 3"))
    speech.reload()
    with pytest.raises(StateError, match=r"the source of speech v9 is not known[^√]*it is of v1, v2"):
        diff(speech, "v9")


def run_cell(file: str, text: str) -> dict[str, Any]:
    """Run a text as a cell is: its source is where tracebacks look for it."""
    text = dedent(text)
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    variables: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, file, "exec"), variables)
    return variables


CELL = """
    from grym_nb import ModelService, task

    STEP = 1
    UNUSED = 2

    def up(x):
        return x + STEP

    class Up(ModelService):
        @task
        def up(self, x: int) -> int:
            return up(x)

    print
"""


def test_a_cell_is_told_apart_by_its_class_and_what_that_uses(registry: ServiceRegistry) -> None:
    """Also where its service was not loaded, and what stands beside it in the cell is left out."""
    up = registry.register("up", run_cell("<cell 1>", CELL)["Up"])
    second = CELL.replace("STEP = 1", "STEP = 5").replace("up(x)\n\n    print", "up(x) + 0\n\n    print")
    registry.register("up", run_cell("<cell 2>", second)["Up"])
    here = ["-STEP = 1", "+STEP = 5", "-        return up(x)", "+        return up(x) + 0"]
    assert changed(diff(up)) == here
    up.up(1)
    last = CELL.replace("return up(x)", "return up(x) * 2").replace("UNUSED = 2", "UNUSED = 3")
    registry.register("up", run_cell("<cell 3>", last)["Up"])
    assert changed(diff(up))[2:] == ["-        return up(x) + 0", "+        return up(x) * 2"]
    assert changed(diff(up, "v1")) == ["-        return up(x)", "+        return up(x) * 2"]
    source = source_of(run_cell("<cell 4>", CELL)["Up"])["Up"]
    assert source.startswith("STEP = 1\n\n\ndef up(x)") and "UNUSED" not in source and "print" not in source


def test_it_is_shown_with_colours_that_say_both_ink_and_paper() -> None:
    """Everything in it is escaped, and it is cut where it is too long to be kept in a notebook."""
    shown = Diff("speech", "v1", "v2", ("--- a.py", "+++ a.py", "@@ -1 +1 @@", "-x < 1", "+x < 2", " y"))
    html = shown._repr_html_()
    assert "speech v1 → v2: 1 line more, 1 line less" in html
    assert '<span style="background: #dafbe1; color: #0a3d1a">+x &lt; 2</span>' in html
    assert '<span style="font-weight: bold">+++ a.py</span>' in html
    long = Diff("speech", "v1", "v2", tuple(f"+{n} {'x' * 100}" for n in range(5000)))
    assert len(long._repr_html_().encode()) < 20_000 and len(repr(long).encode()) < 20_000
    assert "cut here" in repr(long) and len(long.text()) > 500_000


def test_what_is_known_of_each_version_is_made_of_the_reports() -> None:
    """A file that was edited later is in the earlier versions as it was before that."""
    from grym_nb.services.reload.diff import texts_by_version

    told = [
        report("in place", (1, 2), a=("a1", "a2")),
        report("refused", (2, 2), b=("b1", "b!")),
        report("taken back", (2, 1)),
        report("loaded", (1, 3), b=("b1", "b3")),
    ]
    assert texts_by_version(told) == {
        1: {"a": "a1", "b": "b1"},
        2: {"a": "a2", "b": "b1"},
        3: {"a": "a2", "b": "b3"},
    }
