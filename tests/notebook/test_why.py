"""`%grym why` and `%grym debug`: what went wrong, in full, after the cell has said it in three lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from grym_nb.errors import CommandError, Interrupted, ServiceNotFound, StateError, TaskFailed
from grym_nb.notebook.why import debug, why, why_service
from grym_nb.runtime import Runtime
from grym_nb.services import ModelService, task
from tests.kernel import Kernel


class Weak(ModelService):
    """Fails in the way it is asked to."""

    @task("weak.divide")
    def divide(self, by: int, *, token: str = "", text: str = "") -> float:
        """Return 1 / by."""
        scale = [1, 2, 3]
        return scale[0] / by


@pytest.fixture(autouse=True)
def last_value(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What an interactive session keeps of the last error: here, nothing to begin with."""
    monkeypatch.setattr(sys, "last_value", None, raising=False)
    yield


def _fail(runtime: Runtime, **kwargs: Any) -> TaskFailed:
    weak = runtime.registry.register("weak", Weak)
    with pytest.raises(TaskFailed) as caught:
        weak.divide(0, **kwargs)
    return caught.value


def test_nothing_has_failed(runtime: Runtime) -> None:
    """It says so."""
    assert why(runtime.registry).text() == "nothing has failed so far"


def test_the_last_error_of_a_cell_is_told_in_full(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its words, what is known, the inputs, the user's frames with the shapes of their locals."""
    monkeypatch.setattr(sys, "last_value", _fail(runtime))
    text = why(runtime.registry).text()
    assert text.startswith("TaskFailed: weak.divide raised ZeroDivisionError: division by zero\n  at ")
    assert "weak.divide (v1) raised ZeroDivisionError: division by zero\n  input: 0\n" in text
    assert "        scale = [1, 2, 3]\n" in text
    assert "code     task.failed" in text
    assert "the way to it in your cells:" in text and "in _fail\n" in text
    assert "another call" not in text and text.count("division by zero") == 2


def test_secrets_and_markup_are_kept_out_of_it(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs are committed with their notebooks, and shown as HTML."""
    monkeypatch.setattr(sys, "last_value", _fail(runtime, token="hush-hush", text="<b>bold</b>"))
    sheet = why(runtime.registry)
    assert "hush-hush" not in sheet.text()
    assert "<b>bold" in sheet.text() and "<b>bold" not in sheet._repr_html_()
    assert "&lt;b&gt;bold" in sheet._repr_html_()


def test_a_failure_that_ended_no_cell_is_found(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """A submitted call failed, and nobody asked for its result; a cell's own error is told apart from it."""
    weak = runtime.registry.register("weak", Weak)
    weak.divide.submit(0).exception(30)
    monkeypatch.setattr(sys, "last_value", KeyError("the user's own"))
    own, inside = why(runtime.registry).text().split("\n\n", 1)
    assert own == "the last error of a cell was no service's: KeyError: \"the user's own\""
    assert inside.startswith("the last failure inside a service:\nweak.divide (v1) raised ZeroDivisionError")


def test_both_are_shown_when_they_differ(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cell's error first, then what happened inside a service meanwhile."""
    _fail(runtime)
    monkeypatch.setattr(sys, "last_value", CommandError("there is no command 'lod'"))
    text = why(runtime.registry).text()
    assert text.index("CommandError: there is no command 'lod'") < text.index("in another call:\nweak.divide")


def test_an_error_that_was_raised_from_ours_is_followed(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's code may wrap it; a chain without end is given up."""
    failed = _fail(runtime)
    wrapped = RuntimeError("my own words")
    wrapped.__cause__ = failed
    monkeypatch.setattr(sys, "last_value", wrapped)
    assert why(runtime.registry).text().startswith("TaskFailed: ")
    circle = RuntimeError("a")
    circle.__context__ = KeyError("b")
    circle.__context__.__context__ = circle
    monkeypatch.setattr(sys, "last_value", circle)
    assert "RuntimeError: a\n\nthe last failure inside a service:" in why(runtime.registry).text()


def test_a_story_and_a_path_are_told_step_by_step(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as a container of so many things."""
    error = StateError("no", story=("a → b", "b → c"), path=("x", "y"), limit=3)
    monkeypatch.setattr(sys, "last_value", error)
    text = why(runtime.registry).text()
    assert "a → b · b → c" in text and "x · y" in text and "limit  3" in text


def test_ctrl_c_has_its_words_too(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted is outside of the tree of errors."""
    monkeypatch.setattr(sys, "last_value", Interrupted("cut short", hint="run it again"))
    assert why(runtime.registry).text() == "Interrupted: cut short\n→ run it again"


def test_the_why_of_a_service_is_its_error_and_its_story(runtime: Runtime) -> None:
    """Whatever else failed meanwhile."""
    weak = runtime.registry.register("weak", Weak)
    quiet = why_service(weak).text()
    assert "nothing has failed in it" in quiet and "registered, and nothing since" in quiet
    _fail(runtime)
    weak.unload()
    text = why_service(weak).text()
    assert text.startswith("weak v1 registered · 1 call, 1 failed\n\nweak.divide (v1) raised")
    assert "the story of weak" in text
    assert [row[1:] for row in why_service(weak).parts[1].rows] == [  # type: ignore[union-attr]
        ("registered", "loading", "for weak.divide"),
        ("loading", "ready", ""),
        ("ready", "draining", "unload"),
        ("draining", "registered", "unload"),
    ]


def test_there_is_nothing_to_debug_without_live_frames(runtime: Runtime, shell: InteractiveShell) -> None:
    """Nothing failed, or the service was unloaded since."""
    with pytest.raises(CommandError, match="no live frames"):
        debug(shell, runtime.registry)
    _fail(runtime)
    runtime.registry["weak"].unload()
    with pytest.raises(CommandError, match="no live frames"):
        debug(shell, runtime.registry)


@pytest.fixture
def innermost(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The locals of the frame in which each debugger that is opened stands."""
    seen: list[dict[str, Any]] = []

    class Debugger:
        botframe: Any = None

        def reset(self) -> None: ...

        def interaction(self, frame: object, traceback: Any) -> None:
            while traceback.tb_next is not None:
                traceback = traceback.tb_next
            seen.append(traceback.tb_frame.f_locals)

    monkeypatch.setattr(type(shell), "debugger_cls", Debugger)
    return seen


def test_the_debugger_stands_in_the_users_frame(
    runtime: Runtime, shell: InteractiveShell, innermost: list[dict[str, Any]]
) -> None:
    """In the frame that raised, with its locals."""
    _fail(runtime)
    debug(shell, runtime.registry)
    assert [frame["scale"] for frame in innermost] == [[1, 2, 3]]


def test_the_debugger_never_stands_in_our_own_frames(
    runtime: Runtime, shell: InteractiveShell, innermost: list[dict[str, Any]]
) -> None:
    """A call into the package raised: the user's line is the place to look."""

    class Asks(ModelService):
        @task
        def ask(self) -> str:
            wanted = "nobody"
            return str(runtime.registry[wanted])

    with pytest.raises(ServiceNotFound):
        runtime.registry.register("asks", Asks).ask()
    debug(shell, runtime.registry)
    assert [frame["wanted"] for frame in innermost] == ["nobody"]


def test_in_a_kernel_why_shows_the_users_frames(kernel: Kernel) -> None:
    """The cell of the service and the cell of the call; a broken load too. There is no debugger there."""
    kernel.run("%load_ext grym_nb\nimport grym_nb as grym")
    service = kernel.run(
        "class Net(grym.ModelService):\n"
        "    size = 3\n"
        "    def load(self):\n"
        "        wanted = self.size * 2\n"
        "        raise OSError(f'no checkpoint of size {wanted}')\n"
        "    @grym.task\n"
        "    def f(self, x):\n"
        "        return x\n"
        "net = grym.register('net', Net)"
    ).checked()
    call = kernel.run("def use(x):\n    return net.f(x)\nuse([1, 2])")
    assert call.error is not None
    assert call.error.traceback == (
        "LoadFailed: net could not be loaded: OSError: no checkpoint of size 6",
        f"  at In[{service.execution_count}]:5 in load: raise OSError(f'no checkpoint of size {{wanted}}')",
        "→ %grym why shows your frames; the next call tries again",
    )
    text = kernel.run("%grym why").checked().result_text or ""
    assert f"In[{service.execution_count}]:5 in load" in text and "        wanted = 6\n" in text
    assert f"In[{call.execution_count}]:2 in use\n    return net.f(x)\n        x = [1, 2]" in text
    assert "for net.f" in (kernel.run("%grym why net").checked().result_text or "")
    error = kernel.run("%grym debug").error
    assert error is not None and "does not let a cell read" in error.traceback[0]
