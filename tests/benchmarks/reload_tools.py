"""Tools that bring an edit into what runs, each in a process of its own: ``python -m ... TOOL FOLDER``.

Prints, as JSON, what came of each kind of edit: whether it answers right, whether what was loaded is the very
same object, whether what answers is an instance of the class that its module has by now, and the seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import inspect
import io
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from grym_nb.errors import ReloadFailed
from grym_nb.services import ServiceRegistry
from tests.services.reload.kinds import KINDS, REFUSED, SAVES, Kind

__all__ = ["TOOLS", "Tool", "run"]

_HANGS = 30  # seconds


class Tool(Protocol):
    """Something that serves a kind's class, and takes edits of its files."""

    def begin(self, kind: Kind, folder: Path) -> None:
        """Import the modules, and load what they serve."""

    def reload(self) -> None:
        """Bring into force what is on disk by now."""

    def answer(self, *asked: Any) -> Any:
        """Return what it answers."""

    def held(self) -> tuple[Any, ...]:
        """Return what an edit has to leave as it is."""

    def served(self) -> Any:
        """Return what answers."""


class Ours:
    """A service."""

    def begin(self, kind: Kind, folder: Path) -> None:
        self.registry = ServiceRegistry()
        made = importlib.import_module(kind.module).S
        self.service = self.registry.register("service", made, config=kind.config)

    def reload(self) -> None:
        with contextlib.suppress(ReloadFailed):
            self.service.reload()

    def answer(self, *asked: Any) -> Any:
        value = self.service.ask(*asked)
        return list(value) if isinstance(value, Iterator) else value

    def held(self) -> tuple[Any, ...]:
        return self.service.held()  # type: ignore[no-any-return]

    def served(self) -> Any:
        with self.service.use() as model:
            return model


class Plain:
    """An object that somebody made, and goes on using; what runs is edited by a peer."""

    def begin(self, kind: Kind, folder: Path) -> None:
        self.kind = kind
        self.watch(folder)
        self.make()

    def watch(self, folder: Path) -> None:
        """Begin to look for edits."""

    def make(self) -> None:
        self.one = importlib.import_module(self.kind.module).S(**(self.kind.config or {}))
        self.one.load()

    def reload(self) -> None:
        raise NotImplementedError

    def answer(self, *asked: Any) -> Any:
        value = self.one.ask(*asked)
        if inspect.iscoroutine(value):
            return asyncio.run(value)
        if inspect.isasyncgen(value):
            return asyncio.run(_all(value))
        return list(value) if isinstance(value, Iterator) else value

    def held(self) -> tuple[Any, ...]:
        return self.one.held()  # type: ignore[no-any-return]

    def served(self) -> Any:
        return self.one


async def _all(values: Any) -> list[Any]:
    return [value async for value in values]


class Reloaded(Plain):
    """`importlib.reload`, of what was edited and of what imports it; then all is made and loaded again."""

    def reload(self) -> None:
        for name in self.kind.texts:
            importlib.reload(sys.modules[name.removesuffix(".__init__")])
        self.make()


class Jurigged(Plain):
    """jurigged, told of each file that was saved."""

    def watch(self, folder: Path) -> None:
        import jurigged

        self.folder = folder
        self.watcher = jurigged.watch(f"{folder}/*.py", autostart=False, logger=lambda *_: None)
        for name in self.kind.texts:
            importlib.import_module(name.removesuffix(".__init__"))

    def reload(self) -> None:
        for module, text in self.kind.edited().items():
            if text is not None and module in self.kind.texts:
                self.watcher.refresh(str(_path(self.folder, module)))


class Auto(Plain):
    """IPython's `%autoreload`, as the next cell begins."""

    mode = "2"

    def watch(self, folder: Path) -> None:
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        self.shell: Any = InteractiveShell.instance(
            config=Config({"HistoryManager": {"enabled": False}, "InteractiveShell": {"warn_venv": False}})
        )
        self.shell.run_line_magic("load_ext", "autoreload")
        self.shell.run_line_magic("autoreload", self.mode)
        self.shell.run_cell(f"import {self.kind.module}")

    def reload(self) -> None:
        self.shell.run_cell("pass")


class Auto3(Auto):
    """The same, with what is new in a module as well."""

    mode = "3"


TOOLS: dict[str, tuple[Callable[[], Tool], str]] = {
    "ours": (Ours, ""),
    "%autoreload 2": (Auto, "IPython"),
    "%autoreload 3": (Auto3, "IPython"),
    "importlib.reload": (Reloaded, ""),
    "jurigged": (Jurigged, "jurigged"),
}


def run(tool: Tool, kind: Kind, folder: Path) -> dict[str, Any]:
    """Take a tool through a kind of edit, in this process."""
    sys.path.insert(0, str(folder))
    written = {_path(folder, module): text for module, text in kind.texts.items()}
    saved = time.time() - 10
    _write(written, saved)
    tool.begin(kind, folder)
    if tool.answer() != kind.before:
        raise AssertionError(f"it does not answer {kind.before} before it is edited")
    held = tool.held()
    # Later by seconds: what goes by the time of a file is to see each edit, but for those within a second.
    later = saved if kind.at_once else time.time() + 2
    _write({_path(folder, module): text for module, text in kind.edited().items()}, later)
    began = time.perf_counter()
    with contextlib.suppress(Exception, SystemExit):
        tool.reload()
    told: dict[str, Any] = {
        "seconds": time.perf_counter() - began,
        "right": False,
        "kept": False,
        "is": False,
    }
    with contextlib.suppress(Exception):
        told["right"] = tool.answer(*kind.then) == kind.after
    with contextlib.suppress(Exception):
        told["kept"] = all(a is b for a, b in zip(tool.held(), held, strict=True))
    with contextlib.suppress(Exception):
        told["is"] = isinstance(tool.served(), sys.modules[kind.module].S)
    return told


def _path(folder: Path, module: str) -> Path:
    return folder / f"{module.replace('.', '/')}.py"


def _write(texts: Mapping[Path, str | None], at: float) -> None:
    for path, text in texts.items():
        if text is None:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("latin-1" if "latin-1" in text else "utf-8"))
        os.utime(path, (at, at))


#: what each is taken through before: what takes long but once is not of interest
_FIRST = replace(
    KINDS[0], texts={"first_": KINDS[0].texts["m"]}, changes={"first_": KINDS[0].changes["m"]}, cell=False
)


def _apart(tool: Callable[[], Tool], kind: Kind) -> dict[str, Any]:
    """Do it in a fork, so that no kind sees what another has left."""
    told, tells = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(_HANGS)
        status = 1
        try:
            with tempfile.TemporaryDirectory() as folder, open(tells, "w") as out:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    with contextlib.suppress(Exception):
                        run(tool(), _FIRST, Path(folder, "first"))
                    came = run(tool(), kind, Path(folder, "kind"))
                json.dump(came, out)
            status = 0
        finally:
            os._exit(status)
    os.close(tells)
    with open(told) as got:
        text = got.read()
    os.waitpid(child, 0)
    none = {"seconds": None, "right": False, "kept": False, "is": False}
    return json.loads(text) if text else none


def main(name: str, *asked: str) -> None:
    """Print what came of a tool's kinds, by their names."""
    tool, needs = TOOLS[name]
    for package in filter(None, {needs, "torch"}):
        with contextlib.suppress(ImportError):
            importlib.import_module(package)  # once, and not in each fork
    kinds = [one for one in (*KINDS, *REFUSED, *SAVES) if not asked or one.name in asked]
    there = [one for one in kinds if not one.needs or importlib.util.find_spec(one.needs)]
    sys.stdout.write(json.dumps({kind.name: _apart(tool, kind) for kind in there}))


if __name__ == "__main__":
    main(*sys.argv[1:])
