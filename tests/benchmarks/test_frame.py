"""The benchmarks' frame measures fairly, hides no peer, and says what failed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks import frame
from tests.benchmarks.__main__ import load, main
from tests.benchmarks.frame import QUICK, Effort, Row, missing, side_by_side, table

load()
EVERY = sorted(frame.BENCHMARKS)


class Machine:
    """A clock that only work moves; each go is slower than the one before by `drift`."""

    def __init__(self, drift: float = 0.0) -> None:
        self.now = 0.0
        self.speed = 1.0
        self.drift = drift
        self.done: list[str] = []

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, seconds: float) -> None:
        """Take `seconds`, more if the machine has become slower."""
        self.now += seconds * self.speed
        self.speed += self.drift
        self.done.append(name)


def test_rounds_are_interleaved_so_that_drift_hits_both_alike() -> None:
    """On a machine that becomes ten times slower, work that is the same has a ratio near one."""
    machine = Machine(drift=0.05)
    works = {"a": lambda: machine.work("a", 1.0), "b": lambda: machine.work("b", 1.0)}
    figures = side_by_side(works, rounds=101, timer=machine)
    assert machine.done == ["a", "b"] * 101
    assert machine.speed > 10
    assert figures["b"] / figures["a"] == pytest.approx(1, abs=0.02)


def test_a_figure_is_the_time_of_one_go() -> None:
    """Fast work is repeated until a round is long enough to be timed, and divided again."""
    machine = Machine()
    works = {"fast": lambda: machine.work("fast", 1e-4), "slow": lambda: machine.work("slow", 0.3)}
    figures = side_by_side(works, rounds=3, seconds=0.1, timer=machine)
    assert figures == {"fast": pytest.approx(1e-4), "slow": pytest.approx(0.3)}
    assert machine.done.count("fast") > 3 * 400
    assert machine.done.count("slow") == 1 + 3


def test_a_statement_is_timed_with_its_own_names() -> None:
    """No callable around it: the names come with the statement."""
    machine = Machine()
    figures = side_by_side(
        {"said": ("machine.work('said', 2.0)", {"machine": machine})}, rounds=3, timer=machine
    )
    assert figures == {"said": pytest.approx(2.0)}


def test_the_table_names_a_peer_that_is_not_installed() -> None:
    """It has a row of its own, and no ratio."""
    rows = [
        Row("look-up", 1e-7, "svcs", 2e-7, "ns", "faster", "a note"),
        missing("look-up", 1e-7, "dishka", "ns"),
    ]
    shown = table(rows)
    assert shown.rows == [
        ("look-up", "100 ns", "svcs", "200 ns", "0.5", "faster", "a note"),
        ("look-up", "100 ns", "dishka", "not installed", "-", "", ""),
    ]
    assert "not installed" in shown.text()


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two benchmarks in place of the real ones, the second of which fails after a row."""

    def good(effort: Effort) -> Iterator[Row]:
        assert effort == QUICK
        yield Row("good work", 2.0, "peer", 1.0, "s")

    def bad(effort: Effort) -> Iterator[Row]:
        yield Row("bad work", 1.0, "peer", 1.0, "s")
        raise RuntimeError("nothing came")

    load()
    monkeypatch.setattr("tests.benchmarks.__main__.BENCHMARKS", table := {"good": good, "bad": bad})
    monkeypatch.setattr(frame, "BENCHMARKS", table)


@pytest.mark.usefixtures("benchmarks")
def test_one_table_is_printed_and_kept_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The JSON has the figures in seconds, the ratio, and the machine."""
    file = tmp_path / "figures.json"
    assert main(["good", "--quick", "--json", str(file)]) == 0
    assert "good work  2 s   peer  1 s     2" in capsys.readouterr().out
    told = json.loads(file.read_text())
    assert [(row["work"], row["ours_seconds"], row["ratio"]) for row in told["rows"]] == [("good work", 2, 2)]
    assert told["python"] and told["machine"]


@pytest.mark.usefixtures("benchmarks")
def test_a_benchmark_that_fails_is_told_and_the_rest_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit status says so, too."""
    assert main(["--quick", "--json", str(tmp_path / "figures.json")]) == 1
    shown = capsys.readouterr()
    assert "good work" in shown.out
    assert "bad failed:" in shown.err and "nothing came" in shown.err


@pytest.mark.usefixtures("benchmarks")
def test_an_unknown_name_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is measured."""
    with pytest.raises(SystemExit):
        main(["gud"])
    assert "no benchmark gud; there are good, bad" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_each_benchmark_runs_and_measures_something(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Roughly: whoever changes what one measures learns it here."""
    monkeypatch.setattr("tests.benchmarks.calls.installed", lambda package: False)  # Ray takes seconds
    status = main([name, "--quick", "--json", str(tmp_path / "figures.json")])
    assert status == 0, capsys.readouterr().err
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert rows and all(row["peer_name"] for row in rows)
    measured = (
        row["note"].startswith("needs") or row["ours_seconds"] > 0 for row in rows if row["aim"] != "0"
    )
    assert all(measured)
