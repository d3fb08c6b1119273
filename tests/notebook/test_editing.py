"""Code that is edited while it runs: the commands, what is said by itself, `%autoreload` beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from IPython.core.interactiveshell import InteractiveShell

from grym_nb.errors import CommandError
from grym_nb.notebook.commands import dispatch
from grym_nb.notebook.completion import offers
from grym_nb.notebook.editing import watch
from grym_nb.runtime import Runtime
from tests.kernel import Kernel, Reply
from tests.services.reload.files import Edited, edited_in

SPEECH = """
    import grym_nb as grym

    SCALE = 2

    def scale(x):
        return x * SCALE

    class Speech(grym.ModelService):
        def load(self):
            self.weights = [1.0] * 10

        @grym.task
        def say(self, x: int) -> int:
            return scale(x)

        @grym.task
        def same(self, x: int) -> int:
            return x
"""

#: waits, without sleeping, for what a service comes to; the events are those of the kernel's own bus
BEGIN = """
%load_ext grym_nb
import gc, sys, threading
import grym_nb as grym
from grym_nb.events import ServiceReloaded
from speech import Speech

talk = grym.register("speech", Speech)
assert talk.say(2) == 4
with talk.use() as model:
    weights = model.weights
del model
came, there = [], threading.Condition()

def hear(event):
    with there:
        came.append((event.service, event.how, event.version))
        there.notify_all()

def until(*what):
    with there:
        assert there.wait_for(lambda: what in came, 30), came

def kept():
    with talk.use() as model:
        return model.weights is weights and type(model) is sys.modules["speech"].Speech

stop = grym.current().events.subscribe(hear, ServiceReloaded)
"""


NEW = "has new code, and its weights as they were"


class Notebook:
    """A kernel in a folder with a module that somebody edits."""

    def __init__(self, kernel: Kernel, edited: Edited) -> None:
        self.kernel = kernel
        self.edit = edited.edit
        self.path = edited.path
        self.write = edited.write

    def __call__(self, code: str) -> Reply:
        return self.kernel.run(dedent(code)).checked()

    def says(self, code: str) -> str:
        return self(code).result_text or ""


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    """A kernel with a service from a file, called once."""
    for edited in edited_in(tmp_path, monkeypatch):
        edited.write("speech", SPEECH)
        with Kernel(cwd=tmp_path) as kernel:
            yield Notebook(kernel, edited)


def strips(reply: Reply) -> list[str]:
    return [line for shown in reply.displays for line in shown["text/plain"].splitlines()]


def test_the_commands_from_edit_to_edit(notebook: Notebook) -> None:
    """New code and the same weights, what is refused, back again, what differs, and how the answers do."""
    notebook(BEGIN)
    notebook.edit("speech", ("SCALE = 2", "SCALE = 3"))
    reply = notebook("%grym reload speech")
    assert (reply.result_text or "").startswith(f"speech v1 → v2 {NEW} in ")
    assert strips(reply) == []  # what was asked for is answered, not announced
    assert notebook.says("talk.say(2), kept()") == "(6, True)"

    reply = notebook("%grym diff speech")
    assert "-SCALE = 2\n+SCALE = 3\n" in (reply.result_text or "")
    assert (reply.result_text or "").splitlines()[1:3] == ["--- speech.py", "+++ speech.py"]
    assert "+SCALE = 3</span>" in (reply.result_html or "")
    text = notebook.says("%grym compare speech v1 v2")
    assert text.splitlines()[0] == "speech: 1 call through v1 and v2" and "say(2)" in text
    assert text.splitlines()[3].split()[:4] == ["say(2)", "4", "6", "2"]

    notebook.edit("speech", ("return x * SCALE", "return x * SCALE +"))
    refused = notebook.kernel.run("%grym reload speech")
    assert refused.error is not None and refused.error.ename == "ReloadFailed"
    assert refused.error.traceback[0].endswith("SyntaxError: invalid syntax (speech.py:7)")
    assert len(refused.error.traceback) == 3
    assert "SyntaxError: invalid syntax" in notebook.says("%grym why")
    notebook.edit("speech", ("return x * SCALE +", "return x * SCALE / 0"))
    assert notebook.kernel.run("%grym reload speech").error is not None
    assert "has new code" in notebook.says("%grym reload speech --force")
    back = notebook.says("%grym rollback speech")
    assert back.splitlines()[0] == "speech v3 → v2 has the code of before again: asked for"
    notebook("with talk.use() as model: now = model.weights")
    assert notebook.says("talk.say(2), now is weights") == "(6, True)"

    card = notebook.says("%grym status speech")
    assert "lately" in card and "speech v3 → v2 has the code of before again" in card
    assert notebook.kernel.complete("%grym diff speech ").matches == ("v1", "v2", "v3")
    assert notebook.kernel.complete("%grym compare speech v1 ").matches == ("v2", "v3")


def test_several_are_reloaded_as_a_table(notebook: Notebook) -> None:
    """One that was reloaded with another says so; one that is refused leaves the others alone."""
    notebook(BEGIN)
    notebook.write("tone", SPEECH.replace("Speech", "Tone"))
    notebook(
        "from tone import Tone\ntone = grym.register('tone', Tone)\ntwin = grym.register('twin', Speech)"
    )
    notebook("tone.say(1), twin.say(1)")
    notebook.edit("speech", ("SCALE = 2", "SCALE = 3"))
    notebook.edit("tone", ("SCALE = 2", "SCALE ="))
    lines = notebook.says("%grym reload speech twin tone").splitlines()
    assert lines[0] == "reloads, 1 of them refused"
    rows = [line.split() for line in lines[3:]]
    assert [row[:5] for row in rows[:2]] == [
        ["speech", "in", "place", "v1", "→"],
        ["twin", "in", "place", "v1", "→"],
    ]
    assert rows[2][:3] == ["tone", "refused", "v1"] and "(tone.py:4)" in lines[-1]
    assert notebook.says("talk.say(1), twin.say(1), tone.say(1)") == "(3, 3, 2)"


def test_what_is_saved_is_said_once_under_the_next_cell(notebook: Notebook) -> None:
    """New code, a refusal with file and line, and a version that a call takes back; never an error."""
    notebook(BEGIN)
    assert notebook.says("%grym watch").startswith("files are not watched")
    assert notebook.says("%grym watch on").startswith("watching 1 file, ")
    job = notebook.kernel.run_async("print('on', flush=True)\nuntil('speech', 'in place', 'v2')")
    notebook.kernel.wait_for("on")
    notebook.edit("speech", ("SCALE = 2", "SCALE = 3"))
    reply = notebook.kernel.wait(job).checked()
    assert reply.stdout == "on\n" and reply.stderr == ""
    (strip,) = strips(reply)
    assert strip.startswith(f"speech v1 → v2 {NEW} in ")
    reply = notebook("talk.say(2), kept()")
    assert (reply.result_text, strips(reply)) == ("(6, True)", [])

    notebook.edit("speech", ("return x * SCALE", "return x * SCALE +"))
    reply = notebook("until('speech', 'refused', 'v2')")
    (strip,) = strips(reply)
    assert strip.startswith("speech v2 goes on with the code it had: SyntaxError")
    assert strip.endswith(": SyntaxError: invalid syntax (speech.py:7)") and reply.stderr == ""

    notebook.edit(
        "speech",
        ("return x * SCALE +", "return x * SCALE"),
        ("        return x\n", "        return x / (x - 5)\n"),
    )
    assert "has new code" in strips(notebook("until('speech', 'in place', 'v3')"))[0]
    reply = notebook("talk.same(5)")
    assert reply.result_text == "5" and reply.stderr == ""
    (strip,) = strips(reply)
    assert strip == (
        "speech v3 → v2 has the code of before again: same raised ZeroDivisionError: division by zero "
        "(speech.py:19)"
    )
    assert strips(notebook("1")) == []
    assert notebook.says("%grym watch off").startswith("files are not watched")
    notebook("%unload_ext grym_nb")
    assert notebook.says("import logging; logging.getLogger('grym_nb.services.reload').handlers") == "[]"


def test_autoreload_leaves_alone_what_is_watched(notebook: Notebook) -> None:
    """New code and the same weights, though `%autoreload` was there first; what nobody watches is its own."""
    notebook.write("other", "def value():\n    return 1\n")
    notebook("%load_ext autoreload\n%autoreload 2\nimport other\nfrom other import value")
    notebook(BEGIN)
    notebook("%grym watch on")
    notebook.edit("speech", ("SCALE = 2", "SCALE = 3"))
    reply = notebook("until('speech', 'in place', 'v2')")
    assert reply.stderr == ""
    reply = notebook("talk.say(2), kept()")
    assert (reply.result_text, reply.stderr) == ("(6, True)", "")
    assert notebook.says("type(sys.modules['speech']).__name__") == "'Followed'"
    notebook.write("other", "def value():\n    return 2222\n")
    assert notebook.says("value()") == "2222"

    notebook("%grym watch off")
    notebook.edit("speech", ("SCALE = 3", "SCALE = 4"))
    assert notebook.says("talk.say(2), type(sys.modules['speech']).__name__") == "(6, 'Followed')"
    notebook("%grym reload speech")
    assert notebook.says("talk.say(2), kept()") == "(8, True)"


@pytest.mark.parametrize("mode", ["1", "2", "3"])
def test_autoreload_without_watch_meets_a_reload(notebook: Notebook, mode: str) -> None:
    """Until the first reload the module is its own; from then on ours."""
    notebook(BEGIN)
    notebook(f"%load_ext autoreload\n%autoreload {mode}\n%aimport speech")
    notebook.edit("speech", ("SCALE = 2", "SCALE = 3"))
    reply = notebook("%grym reload speech")
    assert reply.stderr == ""
    assert notebook.says("talk.say(2), sys.modules['speech'].SCALE") == "(6, 3)"
    notebook.edit("speech", ("SCALE = 3", "SCALE = 44"))
    notebook("%grym reload speech")
    assert notebook.says("talk.say(2), kept(), sys.modules['speech'].SCALE") == "(88, True, 44)"
    notebook.edit("speech", ("SCALE = 44", "SCALE = 555"))
    assert notebook.says("talk.say(2), sys.modules['speech'].SCALE") == "(88, 44)"


def test_what_was_never_reloaded_is_given_back(notebook: Notebook) -> None:
    """When the watch goes off, `%autoreload` has what it had, and what was skipped by hand stays so."""
    notebook(BEGIN)
    notebook("%load_ext autoreload\n%autoreload 1\n%aimport speech\n%aimport -json")
    notebook("reloader = get_ipython().magics_manager.registry['AutoreloadMagics']._reloader")
    notebook("%grym watch on")
    told = "'speech' in reloader.skip_modules, 'speech' in reloader.modules, 'json' in reloader.skip_modules"
    assert notebook.says(told) == "(True, False, True)"
    notebook("%grym watch off")
    assert notebook.says(told) == "(False, True, True)"
    notebook("%grym watch on")
    notebook.edit("speech", ("SCALE = 2", "SCALE = 3"))
    notebook("until('speech', 'in place', 'v2')")
    notebook("%grym watch off")
    assert notebook.says(told) == "(True, False, True)"
    notebook("%unload_ext grym_nb")
    assert (
        notebook.says("[f for f in get_ipython().events.callbacks['pre_run_cell'] if 'grym' in repr(f)]")
        == "[]"
    )


def test_the_cell_of_a_class_is_run_again_beside_autoreload(notebook: Notebook) -> None:
    """New code on the same weights, and what differs is told of the cells."""
    notebook("%load_ext autoreload\n%autoreload 2")
    notebook(BEGIN)
    cell = """
    class Bell(grym.ModelService):
        def load(self):
            self.weights = [1.0]

        @grym.task
        def ring(self, x: int) -> int:
            return x + 1

    bell = grym.register("bell", Bell)
    bell.ring(1)
    """
    assert notebook.says(cell) == "2"
    notebook("with bell.use() as model: before = model.weights")
    assert notebook.says(cell.replace("x + 1", "x + 10")) == "11"
    assert notebook.says(
        "with bell.use() as model: print(end='')\nmodel.weights is before, bell.version"
    ) == ("(True, 'v2')")
    text = notebook.says("%grym diff bell")
    assert "-        return x + 1\n+        return x + 10" in text and "register" not in text


def test_a_service_of_a_cell_is_told_apart_with_its_helpers(shared_kernel: Kernel) -> None:
    """All that its class uses of the cell, and nothing of the line with the magic."""
    cell = """%%grym service drum
import grym_nb as grym
STEP = 1
def up(x):
    return x + STEP
class Drum(grym.ModelService):
    @grym.task
    def beat(self, x: int) -> int:
        return up(x)
"""
    shared_kernel.run("%load_ext grym_nb").checked()
    shared_kernel.run(cell).checked()
    shared_kernel.run("%grym run drum beat 1").checked()
    shared_kernel.run(
        cell.replace("STEP = 1", "STEP = 5").replace("service drum", "service drum --ttl 60")
    ).checked()
    assert shared_kernel.run("%grym run drum beat 1").result_text == "6"
    shown = shared_kernel.run("%grym diff drum").checked().result_text or ""
    assert shown.splitlines()[0] == "drum v1 → v2: 1 line more, 1 line less"
    assert "-STEP = 1\n+STEP = 5" in shown and "ttl" not in shown


@pytest.mark.parametrize(
    ("line", "texts"),
    [
        ("reload d", ["dsp"]),
        ("reload --", ["--force", "--share"]),
        ("rollback d", ["dsp"]),
        ("rollback dsp ", []),
        ("diff d", ["dsp"]),
        ("diff dsp ", ["v1"]),
        ("diff nobody ", []),
        ("diff dsp v1 v1 ", []),
        ("compare dsp ", []),
        ("watch ", ["on", "off", "status"]),
        ("watch o", ["on", "off"]),
        ("watch on ", []),
    ],
)
def test_what_tab_offers(runtime: Runtime, line: str, texts: list[str]) -> None:
    """Services, and their versions as far as they are known; nothing is loaded for it."""
    assert offers(line)[1] == texts
    assert runtime.registry["dsp"].state == "registered"


def test_a_third_version_is_too_many(shell: InteractiveShell) -> None:
    """Said as with any other word that is too many."""
    for name in ("diff", "compare"):
        with pytest.raises(CommandError, match="v3"):
            dispatch(shell, f"{name} dsp v1 v2 v3")


def test_a_watch_says_how_it_comes_to_know(runtime: Runtime) -> None:
    """Off, on without a file, and what is no such thing."""
    assert repr(watch(runtime.registry, "on")) == (
        "watching: no file yet, since no service that is registered comes from one"
    )
    assert repr(watch(runtime.registry, "off")).startswith("files are not watched: %grym reload SERVICE")
    with pytest.raises(CommandError, match=r"on, off or status was expected\. Did you mean 'on'\?"):
        watch(runtime.registry, "om")


HELPERS = """
    def scale(x):
        return 2 * x

    def bias():
        return 1
"""


@pytest.mark.parametrize("auto", [False, True], ids=["alone", "beside %autoreload 2"])
def test_a_helper_of_cells_is_followed_by_a_watch_that_was_on_before(notebook: Notebook, auto: bool) -> None:
    """Of a cell that names the module, and of a service's cell that has a function of it by name."""
    notebook.write("helpers", HELPERS)
    notebook(BEGIN)
    notebook("%load_ext autoreload\n%autoreload 2" if auto else "pass")
    notebook("%grym watch on")
    notebook("import helpers\nfrom helpers import bias")
    notebook(
        """
        class ByModule(grym.ModelService):
            def load(self):
                self.weights = [1.0]
            @grym.task
            def out(self, x: int) -> int:
                return helpers.scale(x)

        one = grym.register("one", ByModule)
        """
    )
    notebook(
        """\
        %%grym service two
        class ByName(grym.ModelService):
            @grym.task
            def out(self, x: int) -> int:
                return helpers.scale(x) + bias()
        """
    )
    assert notebook.says("two = grym.get('two')\none.out(3), two.out(3)") == "(6, 7)"
    notebook("with one.use() as model: held = model.weights")
    notebook(
        """
        for _ in range(600):
            if grym.current().registry.watching.status().files == 2:
                break
            threading.Event().wait(0.1)
        """
    )
    job = notebook.kernel.run_async(
        "print('on', flush=True)\nuntil('one', 'in place', 'v2')\nuntil('two', 'in place', 'v2')"
    )
    notebook.kernel.wait_for("on")
    notebook.edit("helpers", ("2 * x", "3 * x"), ("return 1", "return 10"))
    reply = notebook.kernel.wait(job).checked()
    assert reply.stderr == "" and len(strips(reply)) == 2
    assert notebook.says("one.out(3), two.out(3)") == "(9, 19)"
    assert notebook.says("with one.use() as model: now = model.weights\nnow is held, bias()") == "(True, 10)"
    assert "bound anew in the notebook: bias" in notebook.says("two.reloads[-1]")
    assert notebook.says("one.at('v1').out(3), helpers.scale(3)") == "(6, 9)"
    assert notebook.says("%grym diff two").count("+    return 3 * x") == 1
