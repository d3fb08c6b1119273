"""Tab on a `%grym` line: names and nothing else is read, nothing is imported or loaded."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from IPython.core.completer import CompletionContext
from IPython.core.interactiveshell import InteractiveShell

import grym_nb
import grym_nb.runtime
from grym_nb.audio.zoo import models
from grym_nb.notebook.commands import COMMANDS
from grym_nb.notebook.completion import matcher_for, offers
from grym_nb.runtime import Runtime
from grym_nb.services import ModelService, ServiceRegistry, task
from tests.kernel import Kernel

#: the services that are there without anybody registering them
OURS = tuple(grym_nb.runtime._BUILT_IN)


class Echo(ModelService):
    """Two tasks."""

    @task("text.echo")
    def echo(self, text: str) -> str:
        """Return the text."""
        return text

    @task
    def shout(self, text: str) -> str:
        """Return the text, louder."""
        return text.upper()


class Mix(ModelService):
    """One task, with parameters of every kind."""

    @task("audio.mix")
    def mix(
        self, left: Any, /, right: Any, *more: Any, gain: float = 1, context: Any = None, **rest: Any
    ) -> None:
        """Do nothing."""


LINE = [known.name for known in COMMANDS if not known.cell]
VARIABLES = ["clip", "clips", "other"]


@pytest.mark.parametrize(
    ("line", "fragment", "texts"),
    [
        ("", "", LINE),
        ("st", "st", ["status"]),
        ("sta", "sta", ["status"]),
        ("status ", "", [*OURS, "echo", "mix"]),
        ("status e", "e", ["echo"]),
        ("status echo ", "", []),
        ("load ", "", [*OURS, "echo", "mix"]),
        ("load echo ", "", [*OURS, "mix"]),
        ("load echo d", "d", ["dsp"]),
        ("unload --", "--", ["--timeout"]),
        ("unload echo --t", "--t", ["--timeout"]),
        ("why ", "", [*OURS, "echo", "mix"]),
        ("run ", "", [*OURS, "echo", "mix"]),
        ("run echo ", "", ["echo", "shout"]),
        ("run echo sh", "sh", ["shout"]),
        ("run nobody ", "", []),
        ("run echo echo ", "", ["text="]),
        ("run echo text.echo ", "", ["text="]),
        ("run echo echo t", "t", ["text="]),
        ("run echo echo x", "x", []),
        ("run echo echo text=", "text=", []),
        ("run echo echo hello ", "", []),
        ("run echo echo 'two words' ", "", []),
        ("run echo echo 'two ", "", []),
        ("run echo echo 'te", "'te", []),
        ("run echo echo text=hello ", "", []),
        ("run echo echo 'text=two words' ", "", []),
        ("run echo echo -o out ", "", ["text="]),
        ("run echo -o out echo te", "te", ["text="]),
        ("run echo echo -- ", "", ["text="]),
        ("run echo echo --nothing ", "", []),
        ("run echo nothing ", "", []),
        ("run mix mix ", "", ["right=", "gain="]),
        ("run mix mix $clip ", "", ["right=", "gain="]),
        ("run mix mix $clip $clip $clip ", "", ["gain="]),
        ("run mix mix $clip gain=2 ", "", ["right="]),
        ("run mix mix c", "c", []),
        ("run mix ", "", ["mix", "right=", "gain="]),
        ("run mix $clip r", "r", ["right="]),
        ("run nobody nothing ", "", []),
        ("run echo echo $cl", "$cl", ["$clip", "$clips"]),
        ("run echo $", "$", ["$clip", "$clips", "$other"]),
        ("run echo echo {o", "{o", ["{other}"]),
        ("run echo echo text=$o", "text=$o", ["text=$other"]),
        ("run echo echo -", "-", ["-o", "--out"]),
        ("run echo echo $clip -o c", "c", ["clip", "clips"]),
        ("help ", "", [known.name for known in COMMANDS]),
        ("help l", "l", ["load"]),
        ("help load ", "", []),
        ("zoo ", "", [model.name for model in models()]),
        ("zoo dt", "dt", ["dtmf"]),
        ("zoo dtmf ", "", []),
        ("calls ", "", []),
        ("calls -", "-", []),
        ("nothing ", "", []),
        ("service ", "", []),
    ],
)
def test_what_is_offered_on_a_line(runtime: Runtime, line: str, fragment: str, texts: list[str]) -> None:
    """Commands, options, services, tasks, parameters, variables: each where it may stand."""
    runtime.registry.register("echo", Echo)
    runtime.registry.register("mix", Mix)
    assert offers(line, variables=VARIABLES) == (fragment, texts)


@pytest.mark.parametrize(
    ("line", "fragment", "texts"),
    [
        ("", "", ["service"]),
        ("ser", "ser", ["service"]),
        ("service ", "", [*OURS, "echo"]),
        ("service echo --m", "--m", ["--memory"]),
        ("service echo --needs ", "", [*OURS, "echo"]),
        ("service echo --needs d", "d", ["dsp"]),
        ("service echo --needs dsp,", "dsp,", [f"dsp,{name}" for name in (*OURS[1:], "echo")]),
        ("service echo a=$c", "a=$c", ["a=$clip", "a=$clips"]),
        ("load ", "", []),
    ],
)
def test_what_is_offered_on_the_first_line_of_a_cell(
    runtime: Runtime, line: str, fragment: str, texts: list[str]
) -> None:
    """The one command that takes a cell."""
    runtime.registry.register("echo", Echo)
    assert offers(line, cell=True, variables=VARIABLES) == (fragment, texts)


def test_tasks_of_a_service_that_is_not_imported_are_not_offered(runtime: Runtime) -> None:
    """Completing is no reason to import numpy, let alone to load a model."""
    runtime.registry.register("lazy", "no_such_package_at_all:Service")
    assert offers("run lazy ") == offers("run lazy task ") == ("", [])
    runtime.registry.register("silent", lambda: Echo())
    assert offers("run silent echo ") == ("", [])
    assert runtime.registry["silent"].state == "registered"
    assert "no_such_package_at_all" not in sys.modules


def test_cancel_offers_the_calls_under_way(runtime: Runtime) -> None:
    """By their numbers, each once."""
    assert offers("cancel ") == ("", [])
    one, two = (runtime.registry.register(name, Echo) for name in ("one", "two"))
    with one.use(), two.use():
        first, second = (str(frame.id) for frame in runtime.registry.running())
        assert offers("cancel ") == ("", [first, second])
        assert offers(f"cancel {first} ") == ("", [second])


class Untouchable:
    """A variable that may be named but not looked at."""

    def __getattribute__(self, name: str) -> object:
        raise AssertionError(f"{name} was asked for")


def _context(text: str, *, line: int = 0) -> CompletionContext:
    last = text.split("\n")[line]
    return CompletionContext(
        token="", full_text=text, cursor_position=len(last), cursor_line=line, limit=None
    )


def test_the_matcher_offers_variables_without_looking_at_them(
    shell: InteractiveShell, runtime: Runtime
) -> None:
    """The names of the user, not those of IPython."""
    shell.user_ns.update(clip=Untouchable(), _hidden=1)
    found = matcher_for(shell)(_context("%grym run dsp loudness $"))
    texts = [completion.text for completion in found["completions"]]
    assert "$clip" in texts
    assert not {"$_hidden", "$In", "$Out", "$exit", "$get_ipython"} & set(texts)
    assert (found["matched_fragment"], found["suppress"]) == ("$", True)


@pytest.mark.parametrize(
    ("text", "line", "offered"),
    [
        ("%grym sta", 0, ["status"]),
        ("   %grym sta", 0, ["status"]),
        ("x = %grym sta", 0, ["status"]),
        ("a.b = %grym sta", 0, ["status"]),
        ("y = 1\n%grym sta", 1, ["status"]),
        ("%%grym ser", 0, ["service"]),
        ("%%grym service x\n%%grym ser", 1, []),
        ("%gry", 0, []),
        ("%grym", 0, []),
        ("%grymm sta", 0, []),
        ("'%grym sta", 0, []),
        ("sta", 0, []),
    ],
)
def test_only_grym_lines_are_completed(
    shell: InteractiveShell, text: str, line: int, offered: list[str]
) -> None:
    """Everything else is left to IPython, which is not suppressed."""
    found = matcher_for(shell)(_context(text, line=line))
    assert [completion.text for completion in found["completions"]] == offered
    assert bool(found.get("suppress")) == bool(offered)


@pytest.mark.parametrize(
    ("text", "fragment", "texts"),
    [
        ('grym.get("', "", [*OURS, "echo", "my service"]),
        ("grym.get('", "", [*OURS, "echo", "my service"]),
        ('g.get("ec', "ec", ["echo"]),
        ('x = f(g.get("my s', "my s", ["my service"]),
        ('g . get( "d', "d", ["dsp"]),
        ('grym.current().registry.get("e', "e", ["echo"]),
        ('g.current( ) . registry.get("e', "e", ["echo"]),
        ('own.get("', "", ["mine"]),
        ('grym.get("dsp").run("', "", []),
        ('grym.get("dsp', "dsp", ["dsp"]),
        ('grym.get("dsp"', "", []),
        ('grym.get("x', "", []),
        ("grym.get(", "", []),
        ('grym.get("""', "", []),
        ('own.current().registry.get("', "", []),
        ('thing.grym.get("', "", []),
        ('other.get("', "", []),
        ('nobody.get("', "", []),
        ('table.get("', "", []),
        ('clip.get("', "", []),
        ('grym.getter("', "", []),
        ('agrym.get("', "", []),
        ('get("', "", []),
    ],
)
def test_services_are_offered_inside_of_get(
    shell: InteractiveShell, runtime: Runtime, text: str, fragment: str, texts: list[str]
) -> None:
    """By whatever name the package or a registry goes; nothing else is looked at, and nothing evaluated."""
    runtime.registry.register("echo", Echo)
    runtime.registry.register("my service", Echo)
    runtime.registry.register('it\'s "quoted"', Echo)
    with ServiceRegistry() as own:
        own.register("mine", Echo)
        table = {"grym": 1}
        shell.user_ns.update(grym=grym_nb, g=grym_nb, own=own, other=sys, table=table, clip=Untouchable())
        found = matcher_for(shell)(_context(text))
        again = matcher_for(shell)(_context(f"%%grym service x\n{text}", line=1))
    for one in (found, again):
        assert [completion.text for completion in one["completions"]] == texts
        assert (one.get("matched_fragment", ""), bool(one.get("suppress"))) == (
            fragment if texts else "",
            bool(texts),
        )


def test_tab_never_raises(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback in the middle of typing helps nobody."""

    def fail() -> list[str]:
        raise RuntimeError("no")

    monkeypatch.setattr("grym_nb.notebook.completion._services", fail)
    shell.user_ns["grym"] = grym_nb
    for text in ("%grym load ", 'grym.get("'):
        assert matcher_for(shell)(_context(text)) == {"completions": []}


def test_a_front_end_gets_them_through_the_kernel(shared_kernel: Kernel) -> None:
    """With the place they are to stand in."""
    shared_kernel.run(
        "%load_ext grym_nb\nimport grym_nb as gn\nclip, clap = 1, 2\nclass Service:\n"
        "    @gn.task\n    def f(self, size): ...\ngn.register('my-svc', Service)"
    ).checked()
    for code, matches, place in [
        ("%grym sta", ("status",), "sta"),
        ("%grym run d", ("dsp",), "d"),
        ("table = %grym status ", (*OURS, "my-svc"), ""),
        ("x = 1\n%grym run dsp loudness $cl", ("$clap", "$clip"), "$cl"),
        ("%%grym service dsp --conc", ("--concurrency",), "--conc"),
        ("x = 1\ny = gn.get('my-", ("my-svc",), "my-"),
        ('gn.current().registry.get("', (*OURS, "my-svc"), ""),
        ("%grym run my-svc f si", ("size=",), "si"),
    ]:
        found = shared_kernel.complete(code)
        assert (found.matches, code[found.start : found.end]) == (matches, place), code
    assert shared_kernel.run("import sys; 'grym_nb.audio.dsp' in sys.modules").result_text == "False"
