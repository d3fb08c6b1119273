"""`python -m grym_nb`: the two commands, and how it says no."""

from __future__ import annotations

import subprocess
import sys

import pytest

from grym_nb import __main__
from grym_nb.__main__ import main
from grym_nb.notebook.doctor import Finding, Report


def test_doctor_prints_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    """The same as in a notebook."""
    status = main(["doctor"])
    told = capsys.readouterr().out
    assert "versions\n" in told and "memory and devices\n" in told
    assert status == ("\nbroken: " in told)


@pytest.mark.parametrize(("kind", "status"), [("broken", 1), ("warning", 0), ("note", 0)])
def test_only_what_is_broken_is_a_failure(monkeypatch: pytest.MonkeyPatch, kind: str, status: int) -> None:
    """So that a script can ask."""
    report = Report((Finding(kind, "what", "why", "cure"),), ())  # type: ignore[arg-type]
    monkeypatch.setattr("grym_nb.notebook.doctor.examine", lambda: report)
    assert main(["doctor"]) == status


@pytest.mark.parametrize("arguments", [[], ["frobnicate"], ["demo", "--nope"], ["doctor", "x"]])
def test_what_is_not_understood_is_told_with_the_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """And exit status 2, as everywhere."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python -m grym_nb")


def test_an_unknown_notebook_is_an_error_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    """In words, not a traceback."""
    assert main(["demo", "--notebook", "99_nothing"]) == 1
    assert capsys.readouterr().err.startswith("CommandError: there is no notebook '99_nothing'.")


def test_ctrl_c_ends_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With the status that shells know."""

    def interrupt(notebook: str) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(__main__, "_demo", interrupt)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_it_runs_as_a_module() -> None:
    """Without a warning, and with a help text."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "grym_nb", "--help"], capture_output=True, text=True, check=True
    )
    assert "demo" in done.stdout and "doctor" in done.stdout and done.stderr == ""
