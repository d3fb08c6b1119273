"""A real JupyterLab on loopback with directories of its own, and a notebook in a real browser."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import nbformat
from playwright.sync_api import Page

__all__ = ["CHROMIUM_FLAGS", "Lab", "Notebook"]

CHROMIUM_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
#: said by JupyterLab itself, of itself
_NOT_OURS = ("favicon", "ResizeObserver loop", "the server responded with a status of 404", "jupyter-lsp")

_OPEN = """async (path) => {
    const app = window.jupyterapp;
    await app.restored;
    const w = await app.commands.execute('docmanager:open', {path, factory: 'Notebook'});
    await w.context.ready;
    await w.sessionContext.ready;
    await w.sessionContext.session.kernel.info;
    app.shell.activateById(w.id);
}"""
_RUN = """async (at) => {
    const w = window.jupyterapp.shell.currentWidget;
    w.content.deselectAll();
    w.content.activeCellIndex = at;
    await window.jupyterapp.commands.execute('notebook:run-cell');
}"""


class Lab:
    """The server; a context manager. `root` is its folder of notebooks."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="grym-lab-"))
        self.root = self.home / "notebooks"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.root.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        own = {
            name: str(self.home / folder)
            for name, folder in (
                ("JUPYTER_CONFIG_DIR", "config"),
                ("JUPYTER_DATA_DIR", "data"),
                ("JUPYTER_RUNTIME_DIR", "runtime"),
                ("JUPYTERLAB_SETTINGS_DIR", "settings"),
                ("JUPYTERLAB_WORKSPACES_DIR", "workspaces"),
                ("IPYTHONDIR", "ipython"),
            )
        }
        self._kernelspec(self.home / "data")
        quiet = self.home / "settings" / "@jupyterlab" / "apputils-extension"
        quiet.mkdir(parents=True)
        news = {"fetchNews": "false", "checkForUpdates": False}
        (quiet / "notification.jupyterlab-settings").write_text(json.dumps(news))
        here = str(Path(__file__).parents[2])
        paths = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))
        command = [
            *(sys.executable, "-m", "jupyter", "lab", "--allow-root", "--no-browser", "--ip=127.0.0.1"),
            *(f"--port={self.port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=''"),
            *(
                "--LabApp.expose_app_in_browser=True",
                "--LabApp.news_url=",
                f"--ServerApp.root_dir={self.root}",
            ),
        ]
        with (self.home / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **own, "PYTHONPATH": paths},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
        shutil.rmtree(self.home, ignore_errors=True)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def write(self, name: str, cells: Sequence[str]) -> None:
        """Write a notebook of these cells."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata.kernelspec = {"name": "grym", "display_name": "grym", "language": "python"}
        nbformat.write(notebook, self.root / name)

    def end_kernels(self) -> None:
        """End every kernel that is left."""
        with urllib.request.urlopen(f"{self.url}/api/sessions") as answer:
            sessions = json.load(answer)
        for session in sessions:
            request = urllib.request.Request(f"{self.url}/api/sessions/{session['id']}", method="DELETE")
            with suppress(OSError), urllib.request.urlopen(request):
                pass

    def _kernelspec(self, data: Path) -> None:
        folder = data / "kernels" / "grym"
        folder.mkdir(parents=True)
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec = {"argv": argv, "display_name": "grym", "language": "python"}
        (folder / "kernel.json").write_text(json.dumps(spec))

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self._process is not None and self._process.poll() is None, self._log()
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/api", timeout=5):
                return
            time.sleep(0.1)  # until a process of somebody else's listens
        raise TimeoutError(self._log())

    def _log(self) -> str:
        return (self.home / "log").read_text(errors="replace")[-3000:]


class Notebook:
    """A notebook that is open in a page: its cells are run, and what the page complains of is kept."""

    def __init__(self, page: Page, lab: Lab) -> None:
        self.page = page
        self.lab = lab
        self.errors: list[str] = []
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _said(self, message: Any) -> None:
        if message.type == "error" and not any(known in message.text for known in _NOT_OURS):
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def open(self, name: str, *cells: str) -> Self:
        """Write a notebook and open it with a kernel."""
        if cells:
            self.lab.write(name, cells)
        self.page.goto(f"{self.lab.url}/lab?reset")
        self.page.wait_for_function("() => window.jupyterapp")
        self.page.evaluate(_OPEN, name)
        return self

    def run(self, at: int) -> None:
        """Run a cell to its end."""
        self.page.evaluate(_RUN, at)

    def start(self, at: int) -> None:
        """Run a cell, and do not wait for it."""
        self.page.evaluate(f"(at) => {{ ({_RUN})(at); }}", at)

    def run_code(self, code: str) -> str:
        """Run code in the kernel, in no cell; return what it printed."""
        text: str = self.page.evaluate(
            """async (code) => {
                const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
                const future = kernel.requestExecute({code, store_history: false});
                let text = '';
                future.onIOPub = (message) => {
                    if (message.header.msg_type === 'stream') text += message.content.text;
                    if (message.header.msg_type === 'error') text += message.content.evalue;
                };
                await future.done;
                return text;
            }""",
            code,
        )
        return text

    def save(self) -> None:
        """Save it, as by hand."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")

    def theme(self, name: str) -> None:
        """Change the theme: ``"JupyterLab Light"`` or ``"JupyterLab Dark"``."""
        self.page.evaluate(
            "(theme) => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", name
        )
        dark = "false" if "Dark" in name else "true"
        self.page.wait_for_selector(f"body[data-jp-theme-light={dark}]", state="attached")
