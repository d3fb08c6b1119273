"""`%load_ext grym_nb` and `%unload_ext grym_nb`: silent, quick, repeatable, and leaving nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from IPython.core.interactiveshell import InteractiveShell

from grym_nb.errors import TaskFailed
from grym_nb.notebook.extension import install, uninstall
from grym_nb.services import progress
from tests.kernel import Kernel

#: everything an extension could leave behind in a kernel
PROBE = """
def surroundings():
    import gc, inspect, json, sys, threading
    from grym_nb.services import progress
    ip = get_ipython()
    return {
        "threads": sorted(t.name for t in threading.enumerate()),
        "line": sorted(ip.magics_manager.magics["line"]),
        "cell": sorted(ip.magics_manager.magics["cell"]),
        "user magics": sorted(vars(ip.magics_manager.user_magics)),
        "matchers": len(ip.Completer.custom_matchers),
        "events": {name: len(hooks) for name, hooks in ip.events.callbacks.items()},
        "progress": len(progress._shown_to),
        "formatters": {kind: len(f.type_printers) for kind, f in ip.display_formatter.formatters.items()},
        "transformers": len(ip.input_transformers_post) + len(ip.ast_transformers),
        "hooks": [repr(sys.excepthook), repr(sys.displayhook), repr(ip.custom_exceptions),
                  repr(inspect.getfile)],
        # IPython makes its own %load_ext when it is first used.
        "configurables": sorted({type(c).__name__ for c in ip.configurables} - {"ExtensionMagics"}),
        "names": sorted(name for name in ip.user_ns if not name.startswith("_")),
    }
"""
HEAVY = (
    "torch numpy ipywidgets anywidget pydantic matplotlib librosa transformers pandas scipy watchdog".split()
)


def test_twenty_rounds_leave_a_kernel_as_it_was(shared_kernel: Kernel) -> None:
    """No thread, magic, matcher, hook, formatter or variable is left, and nothing was printed."""
    shared_kernel.run(PROBE + "before = after = during = None\nbefore = surroundings()").checked()
    for _ in range(20):
        assert shared_kernel.run("%load_ext grym_nb").outputs == []
        assert shared_kernel.run("%unload_ext grym_nb").outputs == []
    shared_kernel.run("after = surroundings()").checked()
    assert (
        shared_kernel.run("[(k, before[k], after[k]) for k in before if before[k] != after[k]]").result_text
        == "[]"
    )


def test_the_probe_sees_what_is_put_in(shared_kernel: Kernel) -> None:
    """While it is loaded, each thing is there once, however often it is loaded: the test above can fail."""
    shared_kernel.run("%load_ext grym_nb")
    shared_kernel.run("import grym_nb; grym_nb.load_ipython_extension(get_ipython()); del grym_nb").checked()
    shared_kernel.run("during = surroundings()").checked()
    told = shared_kernel.run(
        "import json; del surroundings.__doc__\n"
        "print(json.dumps(sorted(k for k in before if before[k] != during[k])), "
        "during['matchers'] - before['matchers'])"
    )
    shared_kernel.run("del json")
    changed, matchers = told.stdout.rsplit(" ", 1)
    assert {"line", "cell", "user magics", "matchers", "formatters"} <= set(json.loads(changed))
    assert int(matchers) == 1
    assert "threads" not in changed
    shared_kernel.run("%unload_ext grym_nb")


def test_loading_it_imports_nothing_heavy(kernel: Kernel) -> None:
    """What is in `sys.modules` of a kernel afterwards; the time is measured in the benchmarks."""
    reply = kernel.run(
        "import json, sys; before = set(sys.modules)\n"
        "get_ipython().run_line_magic('load_ext', 'grym_nb')\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    ).checked()
    modules = json.loads(reply.stdout)
    assert [name for name in HEAVY if name in modules] == []


def test_services_outlive_the_extension(kernel: Kernel) -> None:
    """`%unload_ext` and `%reload_ext` keep the handle, the loaded model and what it counted."""
    kernel.run("%load_ext grym_nb")
    kernel.run(
        "import grym_nb as grym\n"
        "class Count(grym.ModelService):\n"
        "    def load(self): self.n = 0\n"
        "    @grym.task\n"
        "    def up(self):\n"
        "        self.n += 1\n"
        "        return self.n\n"
        "count = grym.register('count', Count)\n"
        "count.up()"
    ).checked()
    assert kernel.run("%reload_ext grym_nb").outputs == []
    assert kernel.run("%grym run count").result_text == "2"
    assert kernel.run("%unload_ext grym_nb").outputs == []
    assert "not found" in kernel.run("%grym").stderr
    assert kernel.run("count.up()").result_text == "3"
    kernel.run("%load_ext grym_nb")
    assert kernel.run("%grym run count").result_text == "4"
    assert kernel.run("grym.get('count') is count").result_text == "True"


def test_it_can_be_loaded_from_the_configuration() -> None:
    """The form that a profile uses."""
    with Kernel(args=("--InteractiveShellApp.extensions=grym_nb",)) as kernel:
        assert "services" in (kernel.run("%grym").result_text or "")


def test_a_magic_of_the_same_name_comes_back(shell: InteractiveShell) -> None:
    """Whatever the user had under the name is there again afterwards."""

    def mine(line: str) -> str:
        return "mine"

    shell.register_magic_function(mine, "line", "grym")
    install(shell)
    assert shell.run_line_magic("grym", "status;") is None
    uninstall(shell)
    assert shell.run_line_magic("grym", "") == "mine"
    assert "grym" not in shell.magics_manager.magics["cell"]


def test_a_magic_that_somebody_put_over_ours_stays(shell: InteractiveShell) -> None:
    """It is no longer ours to take away."""

    def theirs(line: str) -> str:
        return "theirs"

    install(shell)
    shell.register_magic_function(theirs, "line", "grym")
    uninstall(shell)
    assert shell.run_line_magic("grym", "") == "theirs"
    assert "grym" not in shell.magics_manager.magics["cell"]
    assert getattr(shell.magics_manager.user_magics, "grym") is theirs  # noqa: B009


def test_loading_twice_is_loading_once(shell: InteractiveShell) -> None:
    """And unloading what is not there does nothing."""
    uninstall(shell)
    before = len(shell.Completer.custom_matchers), len(progress._shown_to)
    install(shell)
    magic = shell.magics_manager.magics["line"]["grym"]
    install(shell)
    assert shell.magics_manager.magics["line"]["grym"] is magic
    uninstall(shell)
    uninstall(shell)
    assert (len(shell.Completer.custom_matchers), len(progress._shown_to)) == before


def test_a_failing_installation_is_taken_back(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half an extension is none."""

    def fail(shell: InteractiveShell) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr("grym_nb.notebook.extension.displays_for", fail)
    with pytest.raises(RuntimeError):
        install(shell)
    assert "grym" not in shell.magics_manager.magics["line"]
    monkeypatch.undo()
    install(shell)
    assert "grym" in shell.magics_manager.magics["line"]
    uninstall(shell)


def test_an_error_that_is_looked_at_shows_its_lines(shell: InteractiveShell) -> None:
    """As text and as HTML, escaped; the user's own way of showing it comes back."""
    error = TaskFailed("it raised <b>", cause="at In[1]:1", hint="look")
    format = shell.display_formatter.format
    install(shell)
    data, _ = format(error)
    assert data["text/plain"] == "TaskFailed: it raised <b>\n  at In[1]:1\n→ look"
    assert data["text/html"] == "<pre>TaskFailed: it raised &lt;b&gt;\n  at In[1]:1\n→ look</pre>"
    uninstall(shell)
    assert format(error)[0].keys() == {"text/plain"}
    html = shell.display_formatter.formatters["text/html"]
    html.for_type("grym_nb.errors.GrymError", lambda error: "mine")
    install(shell)
    uninstall(shell)
    assert format(error)[0]["text/html"] == "mine"


def test_a_completer_without_room_for_matchers_is_left_alone(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of the extension works."""
    monkeypatch.setattr(shell, "Completer", object())
    install(shell)
    assert shell.run_line_magic("grym", "status;") is None
    uninstall(shell)


def test_the_package_is_not_needed_to_be_in_ipython() -> None:
    """`grym_nb.notebook` can be looked at without a shell."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; import grym_nb.notebook.glossary; print('IPython' in sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
