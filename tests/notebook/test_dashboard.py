"""`%grym dashboard` in a real kernel: what it shows without a page, what goes over the wire, and its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from grym_nb.errors import CommandError
from grym_nb.notebook.completion import offers
from grym_nb.notebook.dashboard import dashboard, views_of
from grym_nb.notebook.panels import VIEWS
from grym_nb.notebook.sheet import Sheet
from grym_nb.runtime import Runtime
from tests.kernel import Kernel, Reply


class _Manager(AsyncKernelManager):
    """Starts this very interpreter."""

    @property
    def kernel_spec(self) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="tests", language="python")


def _environment() -> dict[str, str]:
    """Return one in which a process elsewhere imports what is tested here."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


WIDGET = "application/vnd.jupyter.widget-view+json"
SERVICE = """
%load_ext grym_nb
import grym_nb as grym, threading, time

class Echo(grym.ModelService):
    @grym.task
    def say(self, x: int = 1) -> int:
        return x

    @grym.task
    def steps(self, n: int) -> int:
        for done in grym.track(range(n)):
            time.sleep(0.001)
        return n

echo = grym.register("echo", Echo)
"""
SURROUNDINGS = """
from ipywidgets.widgets.widget import _instances
from comm import get_comm_manager
def around():
    names = [thread.name for thread in threading.enumerate()]
    ours = sorted(name for name in names if name.startswith("grym") and name != "grym-pulse")
    hooks = {name: len(of) for name, of in get_ipython().events.callbacks.items()}
    return len(_instances), len(get_comm_manager().comms), ours, hooks
"""


@pytest.fixture
def kernel(shared_kernel: Kernel) -> Iterator[Kernel]:
    shared_kernel.run(SERVICE).checked()
    yield shared_kernel
    shared_kernel.run("grym.current().close()\n%unload_ext grym_nb")


def shown(kernel: Kernel, line: str = "%grym dashboard") -> dict[str, Any]:
    return kernel.run(line).checked().result


def news(reply: Reply) -> list[dict[str, Any]]:
    """Return what was sent to the page while a cell ran."""
    found = [content["data"] for kind, content in reply.messages if kind == "comm_msg"]
    return [data["state"]["news"] for data in found if "news" in data.get("state", {})]


def comm_of(reply: Reply) -> str:
    [comm] = [
        content["comm_id"]
        for kind, content in reply.messages
        if kind == "comm_open" and "news" in content["data"]["state"]
    ]
    return str(comm)


def test_its_output_is_a_widget_and_the_same_as_tables(kernel: Kernel) -> None:
    """So that GitHub, nbconvert and notebooks nobody trusts show how it was."""
    bundle = shown(kernel)
    assert set(bundle) == {"text/plain", "text/html", WIDGET}
    assert "Services, all together unknown" in bundle["text/plain"]
    assert "<caption>Services, all together unknown</caption>" in bundle["text/html"]
    assert "<script" not in bundle["text/html"]


def test_run_again_it_is_another_view_of_the_same(kernel: Kernel) -> None:
    """One for each kernel, whichever panels are asked for; after `off` it is a new one."""
    model = shown(kernel)[WIDGET]["model_id"]
    again = shown(kernel, "%grym dashboard services log")
    assert again[WIDGET]["model_id"] == model
    assert "Log" in again["text/plain"] and "Memory" not in again["text/plain"]
    assert kernel.run("%grym dashboard off").checked().result_text == "the dashboard has ended"
    assert kernel.run("%grym dashboard off").checked().result_text == "there is no dashboard"
    assert shown(kernel)[WIDGET]["model_id"] != model


def test_the_first_paint_has_everything_and_what_is_new_follows_while_a_cell_runs(kernel: Kernel) -> None:
    """The page needs no question; each message builds on the one before."""
    reply = kernel.run("%grym dashboard").checked()
    [opened] = [
        content["data"]["state"]
        for kind, content in reply.messages
        if kind == "comm_open" and "news" in content["data"]["state"]
    ]
    assert opened["panels"] == list(VIEWS)
    assert set(opened["full"]["views"]) == set(VIEWS)
    assert [row["id"] for row in opened["full"]["views"]["services"]["rows"]] == [
        *("dsp", "wav2vec2", "audioldm", "echo")
    ]
    reply = kernel.run_async("echo.say(1)\nwhile True: time.sleep(0.001)")
    kernel.wait_for(
        lambda reply: any(
            row["id"] == "echo" and row["calls"] == 1
            for new in news(reply)
            for row in new["views"].get("services", {}).get("rows", [])
        )
    )
    kernel.interrupt()
    kernel.wait()
    sent = news(reply)
    assert [new["base"] for new in sent] == [new["seq"] - 1 for new in sent]


def test_many_changes_are_few_messages(kernel: Kernel) -> None:
    """Some hundred calls a second inside, four messages a second outside, the first at once."""
    kernel.run("%grym dashboard").checked()
    reply = kernel.run(
        "began = time.monotonic()\n"
        "for n in range(1000): echo.say(n); time.sleep(0.002)\n"
        "print(time.monotonic() - began)"
    ).checked()
    sent = [kind for kind, _ in reply.messages if kind == "comm_msg"]
    assert 1 <= len(sent) <= 4 * float(reply.stdout) + 1


def test_closing_leaves_nothing(kernel: Kernel) -> None:
    """Widgets, comms, threads and hooks are as before, twenty times; so they are without the extension."""
    kernel.run(SURROUNDINGS).checked()
    reply = kernel.run(
        "before = around()\n"
        "for _ in range(20):\n"
        "    d = get_ipython().run_line_magic('grym', 'dashboard')\n"
        "    d._repr_mimebundle_(); d.close(); d.close()\n"
        "print(before == around(), before, around(), repr(d))"
    ).checked()
    assert reply.stdout.startswith("True "), reply.stdout
    assert reply.stdout.endswith("a dashboard that was closed\n")
    assert shown(kernel, "d") == {"text/plain": "a dashboard that was closed"}
    reply = kernel.run(
        "shell = get_ipython()\n"
        "shell.run_line_magic('unload_ext', 'grym_nb')\n"
        "without = around()\n"
        "for _ in range(20):\n"
        "    shell.run_line_magic('load_ext', 'grym_nb')\n"
        "    d = shell.run_line_magic('grym', 'dashboard')\n"
        "    shell.run_line_magic('unload_ext', 'grym_nb')\n"
        "print(d.closed, around() == without, without, around())"
    ).checked()
    assert reply.stdout.startswith("True True"), reply.stdout


def test_what_a_page_asks_for_is_done(kernel: Kernel) -> None:
    """A load, and the cancel of a call; what it cannot ask for changes nothing."""
    comm = comm_of(kernel.run("%grym dashboard").checked())
    for message in ({"do": "load", "service": "echo"}, {"do": "seen"}, {"do": "full"}, {"do": "dance"}, "x"):
        kernel.send_comm(comm, {"method": "custom", "content": message})
    reply = kernel.run("while echo.state != 'ready': time.sleep(0.01)\ncall = echo.steps.submit(10**9)")
    reply.checked()
    reply = kernel.run(
        "while not grym.current().registry.running(): time.sleep(0.01)\n"
        "print(grym.current().registry.running()[0].id)"
    ).checked()
    kernel.send_comm(comm, {"method": "custom", "content": {"do": "cancel", "call": reply.stdout.strip()}})
    reply = kernel.run("print(type(call.exception()).__name__)").checked()
    assert reply.stdout == "CallCancelled\n"


def test_eight_threads_of_a_page_find_it_whole(kernel: Kernel) -> None:
    """Load, unload, reload, charts and cancel from everywhere at once; it goes on afterwards."""
    reply = kernel.run(
        "d = get_ipython().run_line_magic('grym', 'dashboard')\n"
        "def clicks(n):\n"
        "    for at in range(40):\n"
        "        what = ('load', 'unload', 'reload', 'rollback')[(n + at) % 4]\n"
        "        d._heard(None, {'do': what, 'service': 'echo'}, None)\n"
        "        d._heard(None, {'do': 'chart', 'service': None, 'window': (60, 300, 900)[at % 3]}, None)\n"
        "        d._heard(None, {'do': 'cancel', 'call': str(at)}, None)\n"
        "        d.publisher.step()\n"
        "threads = [threading.Thread(target=clicks, args=(n,)) for n in range(8)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "while any(doing.state == 'running' for doing in d.orders.doings): time.sleep(0.01)\n"
        "print(echo.say(3), d.publisher.step() is None or 'sent')"
    ).checked()
    assert reply.stdout in ("3 sent\n", "3 True\n")
    assert reply.stderr == ""


def test_what_it_shows_ends_with_the_runtime_it_is_of(kernel: Kernel) -> None:
    """Another runtime has another dashboard."""
    model = shown(kernel)[WIDGET]["model_id"]
    kernel.run("grym.current().close()").checked()
    assert shown(kernel)[WIDGET]["model_id"] != model


def test_an_unknown_panel_is_an_error_that_names_the_closest(kernel: Kernel) -> None:
    """And nothing is shown."""
    error = kernel.run("%grym dashboard servces").error
    assert error is not None
    assert error.traceback[0] == "CommandError: there is no panel 'servces'. Did you mean 'services'?"
    assert views_of(("log", "log")) == ("log",)
    with pytest.raises(CommandError):
        views_of(("off",))


def test_panels_are_completed() -> None:
    """Those that are not typed yet."""
    assert offers("dashboard services m") == ("m", ["metrics", "memory"])


def test_where_there_is_no_page_it_is_tables(shell: InteractiveShell, runtime: Runtime) -> None:
    """In a terminal."""
    assert isinstance(dashboard(shell, runtime, ("services",)), Sheet)


def test_a_notebook_with_one_is_run_converted_and_tested_without_a_page(tmp_path: Path) -> None:
    """By nbclient, nbconvert and nbval; the tables are in its file, and no state of a widget."""
    cells = ["%load_ext grym_nb", "%grym dashboard"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = NotebookClient(notebook, timeout=60, kernel_manager_class=_Manager, store_widget_state=False)
    client.execute()
    [output] = notebook.cells[1].outputs
    assert "Services, all together" in output.data["text/html"]
    assert "widgets" not in notebook.metadata
    assert len(json.dumps(notebook)) < 60_000
    page, _ = HTMLExporter(template_name="basic").from_notebook_node(notebook)
    assert "<caption>Services, all together" in page
    nbformat.write(notebook, tmp_path / "dashboard.ipynb")
    nbval = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    nbval += ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=60", "dashboard.ipynb"]
    tested = subprocess.run(nbval, cwd=tmp_path, env=_environment(), capture_output=True, text=True)
    assert "2 passed" in tested.stdout, tested.stdout
