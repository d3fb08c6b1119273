"""A shell in this process, and a runtime of its own: for what needs no kernel."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

import grym_nb.runtime
from grym_nb.runtime import Runtime
from grym_nb.settings import Settings


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """What `current()` returns as long as the test runs."""
    with Runtime(Settings(health_seconds=0)) as own:  # nobody looks in between
        monkeypatch.setattr(grym_nb.runtime, "_kernel", own)
        yield own


@pytest.fixture
def shell(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[InteractiveShell]:
    """An IPython without a terminal, a history or a profile of the user."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    main, hook = sys.modules["__main__"], sys.excepthook
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.warn_venv = False  # of another one that is active in the terminal
    made: InteractiveShell = InteractiveShell.instance(config=config)
    try:
        yield made
    finally:
        InteractiveShell.clear_instance()
        sys.modules["__main__"] = main
        sys.excepthook = hook
