"""The demo: a notebook in a real kernel, told in the terminal, and an error that stops it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from grym_nb.errors import CommandError, StorageError
from grym_nb.notebook import demo
from grym_nb.notebook.demo import QUICKSTART, Cell, cells_of, find, play


def _notebook(folder: Path, *cells: str | tuple[str, str], name: str = "n") -> Path:
    """Write a notebook: text is code, a pair is (markdown or a tag, source)."""
    made: list[dict[str, Any]] = []
    for cell in cells:
        kind, source = cell if isinstance(cell, tuple) else ("code", cell)
        tags = [] if kind in ("code", "markdown") else [kind]
        kind = kind if kind == "markdown" else "code"
        made.append({"cell_type": kind, "source": source.splitlines(True), "metadata": {"tags": tags}})
    path = folder / f"{name}.ipynb"
    path.write_text(json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


def _play(path: Path, *, colour: bool = False) -> tuple[int, list[str]]:
    said: list[str] = []
    status = play(path, said.append, colour=colour)
    return status, said


def test_every_cell_is_told_with_what_comes_of_it(tmp_path: Path) -> None:
    """Text, streams, displays and an error that belongs there; the kernel finds this very package."""
    path = _notebook(
        tmp_path,
        ("markdown", "# A story"),
        "import grym_nb\nprint('on stdout'); 6 * 7",
        "",
        "from IPython.display import HTML, display\ndisplay(HTML('<b>bold</b>'))\n"
        "display({'text/html': 'x'}, raw=True)",
        ("raises-exception", "1 / 0"),
        "grym_nb.__file__",
    )
    status, said = _play(path)
    assert status == 0
    assert said[0] == f"n.ipynb: 4 cells in a kernel of {sys.executable}"
    assert said[1:8] == [
        "\n# A story",
        "\n[cell 1/4]\n  import grym_nb\n  print('on stdout'); 6 * 7",
        "on stdout",
        "42",
        "\n[cell 2/4]\n  from IPython.display import HTML, display\n  display(HTML('<b>bold</b>'))\n"
        "  display({'text/html': 'x'}, raw=True)",
        "<IPython.core.display.HTML object>",
        "[text/html: shown in a browser]",
    ]
    assert said[9].splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert "\x1b" not in "".join(said)
    assert said[-2] == repr(str(Path(demo.__file__).parents[1] / "__init__.py"))
    assert said[-1].startswith("\nall 4 cells ran. Open it in a browser:\n")
    assert f"jupyter lab {path}" in said[-1]


def test_an_error_stops_it(tmp_path: Path) -> None:
    """It is shown, in colour where that is wanted, and the rest is not run."""
    status, said = _play(_notebook(tmp_path, "x = 1", "1 / 0", "x"), colour=True)
    assert status == 1
    assert said[-1] == "\ncell 2/3 failed; the rest was not run"
    assert re.sub(r"\x1b\[[0-9;]*m", "", said[-2]).endswith("ZeroDivisionError: division by zero")
    assert "\x1b[" in said[-2]


def test_what_is_no_notebook_is_told(tmp_path: Path) -> None:
    """No JSON, no cells, no file."""
    for text in ("nonsense", "{}", '{"cells": [{}]}', "[]"):
        path = tmp_path / "x.ipynb"
        path.write_text(text)
        with pytest.raises(StorageError, match=r"x\.ipynb is not a notebook"):
            cells_of(path)
    with pytest.raises(StorageError, match="FileNotFoundError"):
        cells_of(tmp_path / "y.ipynb")
    with pytest.raises(StorageError):
        play(tmp_path / "y.ipynb", print)


def test_a_notebook_is_found_by_name_or_its_beginning(tmp_path: Path) -> None:
    """In the source tree or in the wheel; an unknown one is told with what there is."""
    first, second = tmp_path / "tree", tmp_path / "wheel"
    first.mkdir()
    second.mkdir()
    one = _notebook(first, "1", name="01_quick")
    two = _notebook(second, "1", name="02_more")
    places = (first, second, tmp_path / "not there")
    assert find("01_quick", places) == find("01_quick.ipynb", places) == find("01", places) == one
    assert find("02", places) == two
    with pytest.raises(CommandError) as caught:
        find("02_mor3", places)
    assert caught.value.lines() == [
        "there is no notebook '02_mor3'. Did you mean '02_more'?",
        "→ there are: 01_quick, 02_more",
    ]
    with pytest.raises(CommandError, match="there are: 01_quick, 02_more"):
        find("0", places)
    with pytest.raises(CommandError, match="none; looked in"):
        find("01", (tmp_path / "not there",))


def test_without_jupyterlab_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line can be copied."""
    monkeypatch.setattr(demo, "version_of", lambda package: "")
    assert demo._how_to_open(tmp_path / "n.ipynb").startswith("pip install jupyterlab && jupyter lab ")
    monkeypatch.setattr(demo, "version_of", lambda package: "4.4")
    monkeypatch.chdir(tmp_path)
    assert demo._how_to_open(tmp_path / "n.ipynb") == "jupyter lab n.ipynb"


def test_no_kernel_is_left_when_it_ends(tmp_path: Path) -> None:
    """Neither after an error nor after the last cell."""
    status, said = _play(_notebook(tmp_path, "import os; print(os.getpid())", "1 / 0"))
    assert status == 1
    import psutil

    assert not psutil.pid_exists(int(said[2]))


def test_a_cell_knows_its_kind_and_whether_it_raises(tmp_path: Path) -> None:
    """Empty cells are left out."""
    path = _notebook(tmp_path, ("markdown", "m"), "a\nb\n", ("raises-exception", "1/0"), "")
    assert cells_of(path) == [
        Cell("markdown", "m", False),
        Cell("code", "a\nb", False),
        Cell("code", "1/0", True),
    ]


def test_the_quick_start_runs_from_the_command_line(tmp_path: Path) -> None:
    """What the README tells a first visitor to type, away from the tree and without a browser."""
    done = subprocess.run(
        [sys.executable, "-m", "grym_nb", "demo"],
        env={**os.environ, "PYTHONPATH": str(Path(demo.__file__).parents[2])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-3000:] + done.stderr
    cells = cells_of(find(QUICKSTART))
    total = sum(cell.kind == "code" for cell in cells)
    for number in range(1, total + 1):
        assert f"[cell {number}/{total}]" in done.stdout
    assert f"all {total} cells ran" in done.stdout
    assert list(tmp_path.iterdir()) == []
