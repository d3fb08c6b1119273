"""Modules in a folder that services are made from, edited as by a person in an editor."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest


class Edited:
    """A folder of modules on the path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        return self.folder / f"{name.replace('.', '/')}.py"

    def write(self, name: str, text: str) -> None:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))

    def start(self, **texts: str) -> ModuleType:
        """Write modules and import them; returns the last of them."""
        for name, text in texts.items():
            self.write(name, text)
        importlib.invalidate_caches()
        return [importlib.import_module(name) for name in texts][-1]

    def edit(self, name: str, *changes: tuple[str, str]) -> None:
        """Put one text in the place of another; each has to be there once."""
        text = self.path(name).read_text()
        for was, now in changes:
            assert text.count(was) == 1, (was, text.count(was))
            text = text.replace(was, now)
        self.path(name).write_text(text)


def edited_in(folder: Path, monkeypatch: Any) -> Iterator[Edited]:
    """Yield a folder on the path; what was imported from it is forgotten afterwards."""
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield Edited(folder)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "") or "").startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edited]:
    """A folder of the test's own."""
    yield from edited_in(tmp_path, monkeypatch)
