"""How often a series is taken for what it is, on series that no threshold was chosen by.

``-s`` prints the table. The half with even seeds is for choosing thresholds; this one scores the other.
"""

from __future__ import annotations

import sys
from collections import Counter
from math import inf

import pytest

from grym_nb.metrics.forecast import Reach, Shape, classify, time_to
from tests.metrics.labelled import FAMILIES, SERIES, Labelled, labelled, made

_RISING = ("trend", "leak", "drift")

Scored = list[tuple[Labelled, Shape, Reach | None]]


@pytest.fixture(scope="module")
def scored() -> Scored:
    found: Scored = []
    for its in labelled(1):
        shape = classify(its.points, now=its.now)
        assert shape is not None
        found.append((its, shape, time_to(its.points, its.limit) if its.limit < inf else None))
    return found


def test_there_are_enough_series_and_each_is_made_the_same_again() -> None:
    assert SERIES * len(FAMILIES) >= 500
    halves = [{(its.family, its.seed) for its in labelled(parity)} for parity in (0, 1)]
    assert not halves[0] & halves[1] and len(halves[0] | halves[1]) == SERIES * len(FAMILIES)
    assert all(made(family, 7) == made(family, 7) != made(family, 9) for family in FAMILIES)


def test_each_family_is_taken_for_what_it_is(scored: Scored) -> None:
    table = Counter((its.family, shape.kind) for its, shape, _ in scored)
    lines = [" " * 9 + "".join(f"{name:>9}" for name in FAMILIES) + "   recall  precision"]
    figures = {}
    for family in FAMILIES:
        row = [table[family, other] for other in FAMILIES]
        recall = table[family, family] / sum(row)
        precision = table[family, family] / sum(table[other, family] for other in FAMILIES)
        figures[family] = (recall, precision)
        lines.append(f"{family:9}" + "".join(f"{n:9}" for n in row) + f"{recall:9.3f}{precision:11.3f}")
    sys.stdout.write("\n" + "\n".join(lines) + "\n")
    assert {family: pair for family, pair in figures.items() if min(pair) <= 0.95} == {}


def test_the_true_time_is_within_what_is_told_and_that_is_narrow(scored: Scored) -> None:
    for family in _RISING:
        found = [(its.reach, reach) for its, _, reach in scored if its.family == family]
        told = [(true, reach) for true, reach in found if reach is not None]
        held = sum(reach.soon <= true <= reach.late for true, reach in told) / len(found)
        widths = sorted((reach.late - reach.soon) / true for true, reach in told)
        middle = widths[len(widths) // 2]
        sys.stdout.write(f"{family:9}{held:7.1%} within; its width is {middle:.0%} of the time (median)\n")
        assert held >= 0.85
        assert middle < 0.75  # or any limit would be reached some time between now and never


def test_what_is_level_is_on_its_way_nowhere(scored: Scored) -> None:
    level = [its for its, _, _ in scored if its.family in ("steady", "noise", "seasonal", "step", "spike")]
    wrong = 0
    for its in level:
        values = sorted(value for _, value in its.points)
        beyond = values[-1] + (values[-1] - values[0]) + 1e-3 * abs(values[-1])
        wrong += time_to(its.points, beyond) is not None
    assert wrong / len(level) < 0.03


def test_steps_seasons_and_spikes_are_found_where_they_are(scored: Scored) -> None:
    steps = [(its, shape) for its, shape, _ in scored if its.stepped is not None]
    seasons = [(its, shape) for its, shape, _ in scored if its.season is not None]
    lone = [(its, shape) for its, shape, _ in scored if its.spiked]

    def at_the_place(its: Labelled, shape: Shape) -> bool:
        span = its.points[-1][0] - its.points[0][0]
        return len(shape.changes) == 1 and abs(shape.changes[0].at - (its.stepped or 0.0)) < 0.03 * span

    def of_the_period(its: Labelled, shape: Shape) -> bool:
        return shape.season is not None and abs(shape.season / (its.season or 1.0) - 1) < 0.07

    assert sum(at_the_place(*pair) for pair in steps) / len(steps) > 0.95
    assert sum(of_the_period(*pair) for pair in seasons) / len(seasons) > 0.95
    assert sum({one.at for one in shape.spikes} == set(its.spiked) for its, shape in lone) / len(lone) > 0.95
