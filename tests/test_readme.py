"""Every Python block of the README runs, in order, in a real kernel; the errors are those that come."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from grym_nb.notebook.glossary import GLOSSARY
from tests.kernel import Kernel

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def blocks() -> list[tuple[str, str]]:
    """The README's fenced blocks: language and content."""
    return [(found[1], found[2]) for found in BLOCK.finditer(README.read_text(encoding="utf-8"))]


def test_every_example_runs_and_every_error_is_the_one_that_is_shown(
    blocks: list[tuple[str, str]], shared_kernel: Kernel
) -> None:
    """A reader who pastes the blocks one after another sees what the README says."""
    ran = 0
    for (language, code), (following, shown) in pairwise([*blocks, ("", "")]):
        if language != "python":
            continue
        reply = shared_kernel.run(code)
        ran += 1
        if following == "text" and "Error" in shown:
            assert reply.error is not None, code
            assert "\n".join(reply.error.traceback) == shown.rstrip("\n")
        else:
            assert reply.error is None, (code, reply.error)
    assert ran > 5


def test_the_errors_of_the_readme_can_be_explained(shared_kernel: Kernel) -> None:
    """After an error in a cell, `%grym why` shows the cell's own line."""
    shared_kernel.run("import grym_nb as grym")
    reply = shared_kernel.run("def ask():\n    return grym.get('nobody')\nask()")
    assert reply.error is not None
    assert len(reply.error.traceback) <= 3
    why = shared_kernel.run("%load_ext grym_nb\n%grym why")
    assert "return grym.get('nobody')" in why.result_text


def test_the_readme_has_every_row_of_the_glossary() -> None:
    """Who looks for an original name finds it in the README as well as in the notebook."""
    text = README.read_text(encoding="utf-8")
    missing = [row for row in GLOSSARY if f"| {row.original} | {row.here} | `{row.where}` |" not in text]
    assert not missing
