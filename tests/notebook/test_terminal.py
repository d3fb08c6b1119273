"""IPython in a terminal: no kernel and no page, and the same commands."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pexpect = pytest.importorskip("pexpect", reason="terminals are driven by pexpect")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="pexpect needs a pseudo-terminal")

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\r")


class Terminal:
    """An IPython prompt without colours or line editing: what is typed, and what it shows."""

    def __init__(self, home: Path) -> None:
        self._child: Any = pexpect.spawn(
            sys.executable,
            [
                "-m",
                "IPython",
                "--simple-prompt",
                "--no-banner",
                "--colors=NoColor",
                "--HistoryManager.enabled=False",
            ],
            env={**os.environ, "IPYTHONDIR": str(home), "TERM": "dumb", "COLUMNS": "200"},
            dimensions=(50, 200),
            encoding="utf-8",
            timeout=60,
        )
        self._child.expect(r"In \[1\]: ")

    def type(self, line: str, prompt: str = r"In \[\d+\]: ") -> str:
        """Type a line and return what is shown until the prompt comes back."""
        self._child.sendline(line)
        self._child.expect(prompt)
        return _CONTROL.sub("", self._child.before).removeprefix(line).strip()

    def close(self) -> None:
        """End it."""
        self._child.close(force=True)


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """One prompt for all tests here."""
    running = Terminal(tmp_path_factory.mktemp("ipython"))
    yield running
    running.close()


def test_the_extension_and_its_table_work_at_a_prompt(terminal: Terminal) -> None:
    """Loading says nothing; the table is text."""
    assert terminal.type("%load_ext grym_nb") == ""
    shown = terminal.type("%grym status")
    assert re.search(r"service +state +health", shown)
    assert re.search(r"dsp +registered +unknown", shown)


def test_an_error_is_three_lines_there_too(terminal: Terminal) -> None:
    """No traceback."""
    assert terminal.type("%grym statu").splitlines() == [
        "CommandError: there is no command 'statu'. Did you mean 'status'?",
        "→ %grym help lists the commands",
    ]


def test_the_debugger_opens_in_the_frame_that_failed(terminal: Terminal) -> None:
    """With the locals of the author's method; leaving it leads back to the prompt."""
    code = [
        "import grym_nb as grym",
        "class Bad:",
        "    @grym.task",
        "    def f(self, x):",
        "        inner = x * 2",
        "        raise ValueError(inner)",
        "bad = grym.register('bad', Bad)",
    ]
    terminal.type(f"exec({chr(10).join(code)!r}, globals())")
    assert "TaskFailed: bad.f raised ValueError: 42" in terminal.type("bad.f(21)")
    assert "<string>(6)f" in terminal.type("%grym debug", "ipdb> ")
    assert terminal.type("p inner, x", "ipdb> ") == "(42, 21)"
    terminal.type("q")
    assert terminal.type("bad.state").endswith("'ready'")


def test_what_happens_in_the_context_is_shown_when_it_is_asked_for(terminal: Terminal) -> None:
    """Nothing is written into the prompt meanwhile."""
    shown = terminal.type("%grym context watch type=note")
    assert shown.endswith("context, live (type=note): nothing yet")
    assert terminal.type("%grym context put note hello key=one;") == ""
    assert re.search(r"put +ctx-\w+-1 +note +one +normal", terminal.type("%grym context watch type=note"))
    assert terminal.type("%grym context watch off").endswith("1 watch has ended")


def test_unloading_takes_it_away(terminal: Terminal) -> None:
    """Silently."""
    assert terminal.type("%unload_ext grym_nb") == ""
    assert "not found" in terminal.type("%grym")
