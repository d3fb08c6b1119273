"""`python -m grym_nb demo`: a notebook run in a real kernel, shown in the terminal as it goes."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from grym_nb.errors import CommandError, StorageError, closest
from grym_nb.notebook.surroundings import version_of

if TYPE_CHECKING:
    from jupyter_client.blocking.client import BlockingKernelClient

__all__ = ["QUICKSTART", "Cell", "Say", "cells_of", "find", "play"]

QUICKSTART = "01_quickstart"

_PACKAGE = Path(__file__).resolve().parents[1]
#: beside the package in a source tree, inside of it in a wheel
_PLACES = (_PACKAGE.parent / "notebooks", _PACKAGE / "_notebooks")
_CELL_SECONDS = 600.0
_ANSI = re.compile(r"\x1b\[[0-9;]*m")

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a notebook: its kind, its source, and whether it is there to show an error."""

    kind: str
    source: str
    raises: bool


def find(name: str, places: Sequence[Path] = _PLACES) -> Path:
    """Return the path of a notebook by its name, or by the beginning of it (``01``)."""
    found = {path.stem: path for place in places for path in sorted(place.glob("*.ipynb"))}
    wanted = name.removesuffix(".ipynb")
    fitting = [path for stem, path in found.items() if stem == wanted] or [
        path for stem, path in found.items() if stem.startswith(wanted)
    ]
    if len(fitting) == 1:
        return fitting[0]
    raise CommandError(
        f"there is no notebook {name!r}.{closest(name, found)}",
        hint=f"there are: {', '.join(found) or 'none; looked in ' + ', '.join(map(str, places))}",
    )


def cells_of(path: Path) -> list[Cell]:
    """Return the cells of a notebook that hold anything."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        cells = [
            Cell(
                cell["cell_type"],
                "".join(cell["source"]).rstrip(),
                "raises-exception" in cell["metadata"].get("tags", ()),
            )
            for cell in notebook["cells"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path} is not a notebook: {type(error).__name__}: {error}") from None
    return [cell for cell in cells if cell.source]


def play(path: Path, say: Say, *, colour: bool = False) -> int:
    """Run a notebook in a kernel of this interpreter and say every cell and what comes of it.

    Returns 0, or 1 when a cell raised that is not there to show an error: the rest is then left out.
    """
    cells = cells_of(path)
    total = sum(cell.kind == "code" for cell in cells)
    number = 0
    say(f"{path.name}: {total} cells in a kernel of {sys.executable}")
    with _kernel(path.parent) as client:
        for cell in cells:
            if cell.kind != "code":
                say("\n" + cell.source)
                continue
            number += 1
            say(f"\n[cell {number}/{total}]\n" + "\n".join(f"  {line}" for line in cell.source.splitlines()))
            if _run(client, cell, say, colour) and not cell.raises:
                say(f"\ncell {number}/{total} failed; the rest was not run")
                return 1
    say(f"\nall {total} cells ran. Open it in a browser:\n  {_how_to_open(path)}")
    return 0


def _how_to_open(path: Path) -> str:
    near = os.path.relpath(path)
    line = f"jupyter lab {path if near.startswith('..') else near}"
    return line if version_of("jupyterlab") else f"pip install jupyterlab && {line}"


def _run(client: BlockingKernelClient, cell: Cell, say: Say, colour: bool) -> bool:
    """Run a cell; return whether it raised."""
    failed = False

    def hear(message: dict[str, Any]) -> None:
        nonlocal failed
        content = message["content"]
        failed = failed or message["msg_type"] == "error"
        for text in _texts(message["msg_type"], content):
            say(text if colour else _ANSI.sub("", text))

    client.execute_interactive(
        cell.source, allow_stdin=False, stop_on_error=False, output_hook=hear, timeout=_CELL_SECONDS
    )
    return failed


def _texts(kind: str, content: dict[str, Any]) -> Iterator[str]:
    """Yield what a terminal can show of an output."""
    if kind == "stream":
        yield content["text"].rstrip("\n")
    elif kind == "error":
        yield "\n".join(content["traceback"]) or f"{content['ename']}: {content['evalue']}"
    elif kind in ("execute_result", "display_data", "update_display_data"):
        data = content["data"]
        if text := data.get("text/plain"):
            yield text
        elif data:
            yield f"[{', '.join(sorted(data))}: shown in a browser]"


@contextmanager
def _kernel(folder: Path) -> Iterator[BlockingKernelClient]:
    """Start a kernel of this very interpreter, whatever kernels are installed; it is gone at the end."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import KernelManager

    class ThisInterpreter(KernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="grym_nb demo", language="python")

    # The kernel runs in the notebook's folder and is to find this very package all the same.
    paths = [str(_PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    with TemporaryDirectory(prefix="grym-", ignore_cleanup_errors=True) as home:
        # Sockets in a folder of ours: no port that others could talk to, and no warning of it.
        ipc = os.name != "nt"
        manager = ThisInterpreter(transport="ipc", ip=f"{home}/s") if ipc else ThisInterpreter()
        manager.connection_file = f"{home}/kernel.json"
        manager.start_kernel(
            cwd=str(folder),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            extra_arguments=["--HistoryManager.enabled=False"],
        )
        client: BlockingKernelClient = manager.client()
        try:
            client.start_channels(stdin=False)
            client.wait_for_ready(timeout=_CELL_SECONDS)
            yield client
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
