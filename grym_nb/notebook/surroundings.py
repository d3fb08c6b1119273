"""What is around the notebook: packages by their metadata, the front end, how threads fare."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from grym_nb.render import seconds

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["Probe", "extras", "front_end", "probe_threads", "version_of"]

_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_SHOWN_EXTRAS = ("sound", "audio", "ray", "api")

_BUSY = 0.15  # seconds for which the main thread computes
_TURN = 0.005  # seconds between two turns that the thread asks for
_PATIENCE = 2.0  # seconds in which what a thread sends must be on its way

#: environment variable -> the place that sets it, the more particular first
_PLACES = {
    "KAGGLE_KERNEL_RUN_TYPE": "Kaggle",
    "DATABRICKS_RUNTIME_VERSION": "Databricks",
    "BINDER_REPO_URL": "Binder",
    "JUPYTERHUB_USER": "JupyterHub",
    "JPY_SESSION_NAME": "a Jupyter server (JupyterLab or Notebook)",
    "VSCODE_PID": "VS Code",
    "VSCODE_CWD": "VS Code",
    "PYCHARM_HOSTED": "PyCharm",
}


def version_of(package: str) -> str:
    """Return the installed version, without importing anything; an empty string when there is none."""
    try:
        return metadata.version(package)
    except Exception:  # broken metadata is as good as none
        return ""


def extras(package: str) -> dict[str, tuple[str, ...]]:
    """Return what each extra of a package that a user may want brings."""
    wanted: dict[str, list[str]] = {}
    for line in metadata.requires(package) or ():
        extra, name = _EXTRA.search(line), _NAME.match(line)
        if extra and name and name[0].lower() != package:
            wanted.setdefault(extra[1], []).append(name[0])
    return {extra: tuple(wanted[extra]) for extra in _SHOWN_EXTRAS if extra in wanted}


def front_end(shell: InteractiveShell | None, environ: Mapping[str, str] = os.environ) -> str:
    """Return where the cells are typed, as far as what it sets tells."""
    if shell is None:
        return "none: plain Python"
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return "IPython in a terminal"
    if "google.colab" in sys.modules or environ.get("COLAB_RELEASE_TAG"):
        return "Google Colab"
    if "__vsc_ipynb_file__" in shell.user_ns:
        return "VS Code"
    if "PYTEST_CURRENT_TEST" in environ:
        return "a test that drives this kernel (nbval, nbclient or the like)"
    place = next((place for name, place in _PLACES.items() if environ.get(name)), "")
    return place or "a kernel of something else (console, nbclient, papermill, ...)"


@dataclass(frozen=True, slots=True)
class Probe:
    """How a thread fared while the main thread was busy: turns it got, the widest gap between two.

    `sent` is how long a message took to be on its way; None where there is no page, or it was not sent.
    `problem` says why it was not.
    """

    turns: int
    widest: float
    sent: float | None = None
    problem: str = ""

    @property
    def ran(self) -> bool:
        """Whether the thread got turns at all."""
        return self.turns > 1

    @property
    def told(self) -> str:
        """The figures in a line."""
        told = f"{self.turns} turns in {seconds(_BUSY)} of a busy cell, the widest gap {seconds(self.widest)}"
        if self.sent is not None:
            told += f"; a message was on its way after {seconds(self.sent)}"
        return told


def probe_threads(shell: InteractiveShell | None) -> Probe:
    """Measure how a thread fares while this one computes: whether it gets turns, and can send to the page."""
    over = threading.Event()
    turns: list[float] = []
    sent: float | None = None
    problem = ""

    def run() -> None:
        nonlocal sent, problem
        if shell is not None and getattr(shell, "kernel", None) is not None:
            try:
                sent = _send(shell)
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
        while not over.is_set():
            turns.append(time.monotonic())
            over.wait(_TURN)

    thread = threading.Thread(target=run, name="grym-doctor", daemon=True)
    began = time.monotonic()
    thread.start()
    # Computing, not waiting: the other thread gets a turn only when the interpreter takes ours away.
    while (took := time.monotonic() - began) < _BUSY or (not turns and took < _PATIENCE):
        sum(range(200))
    over.set()
    thread.join(_PATIENCE)
    gaps = [later - earlier for earlier, later in pairwise(turns)]
    return Probe(len(turns), max(gaps, default=0.0), sent, problem)


def _send(shell: Any) -> float:
    """Send an update that no display waits for, so that nothing is seen of it; return how long it took."""
    on_its_way = threading.Event()
    began = time.monotonic()
    shell.display_pub.publish({"text/plain": ""}, transient={"display_id": "grym-doctor"}, update=True)
    shell.kernel.iopub_thread.schedule(on_its_way.set)  # behind the message, in the thread that sends it
    if not on_its_way.wait(_PATIENCE):
        raise TimeoutError(f"it was not on its way within {_PATIENCE:g} s")
    return time.monotonic() - began
