"""Who goes: by each policy, no more than are needed, the lower priorities first; and traces replayed."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_nb.errors import ConfigError
from grym_nb.hardening.eviction import (
    POLICIES,
    Candidate,
    Heat,
    best_fit,
    choose,
    cost_rate,
    gdsf,
    lru,
    smallest,
)
from grym_nb.hardening.replay import Use, clairvoyant, days, main, read, replay

candidates = st.lists(
    st.builds(
        Candidate,
        name=st.uuids().map(str),
        bytes=st.integers(1, 1000),
        last_used=st.floats(0, 1000),
        load_seconds=st.floats(0.01, 100),
        spells=st.integers(1, 50),
        heat=st.floats(0.1, 10),
        heat_at=st.floats(0, 1000),
        priority=st.integers(0, 2),
    ),
    max_size=9,
)


@given(candidates, st.integers(1, 5000), st.sampled_from([*POLICIES.values()]))
def test_it_is_enough_and_none_of_them_goes_in_vain(
    there: list[Candidate], need: int, policy: object
) -> None:
    going = choose(policy, there, need=need, now=1000.0)  # type: ignore[arg-type]
    freed = sum(one.bytes for one in going)
    if sum(one.bytes for one in there) < need:
        assert going == ()
        return
    assert freed >= need and len(set(going)) == len(going) and set(going) <= set(there)
    assert all(freed - one.bytes < need for one in going)


@given(candidates, st.integers(1, 5000))
def test_the_cheapest_set_goes(there: list[Candidate], need: int) -> None:
    there = [Candidate(one.name, one.bytes, load_seconds=one.load_seconds, heat=one.heat) for one in there]
    going = choose(cost_rate, there, need=need, now=0.0)
    if not going or len(going) > 5:
        return
    cost = sum(one.load_seconds * one.heat for one in going)
    for many in range(1, min(5, len(there)) + 1):
        for other in combinations(there, many):
            if sum(one.bytes for one in other) >= need:
                assert cost <= sum(one.load_seconds * one.heat for one in other) + 1e-9


@given(candidates, st.integers(1, 5000), st.sampled_from([*POLICIES.values()]))
def test_a_higher_priority_goes_only_where_the_lower_are_too_few(
    there: list[Candidate], need: int, policy: object
) -> None:
    going = choose(policy, there, need=need, now=1000.0)  # type: ignore[arg-type]
    for rank in {one.priority for one in going}:
        below = sum(one.bytes for one in there if one.priority < rank)
        if len(there) <= 5:
            assert below < need


def names(*going: Candidate) -> list[str]:
    return [one.name for one in going]


def test_what_each_policy_looks_at() -> None:
    old = Candidate("old", 50, last_used=1.0, load_seconds=100.0, spells=9, heat=9.0)
    small = Candidate("small", 10, last_used=5.0, load_seconds=10.0)
    large = Candidate("large", 90, last_used=9.0, load_seconds=30.0)
    for policy, first in ((lru, "old"), (smallest, "small"), (best_fit, "large"), (gdsf, "small")):
        order = sorted((old, small, large), key=lambda one: policy(one, 10.0))
        assert order[0].name == first
    assert names(*choose(cost_rate, [old, small, large], need=10, now=10.0)) == ["small"]
    assert names(*choose(cost_rate, [old, small, large], need=40, now=10.0)) == ["large"]


def test_heat_counts_spells_and_cools() -> None:
    heat = Heat()
    heat.spell(0.0)
    heat.spell(0.0)
    assert (heat.value, heat.spells) == (2.0, 2)
    heat.spell(600.0)
    assert heat.value == pytest.approx(1.0 + 2.0 / 2.718281828)


# -- replayed --------------------------------------------------------------------------------------


def test_a_replay_counts_each_load_and_no_other() -> None:
    uses = [Use(float(at), name, 60, 2.0) for at, name in enumerate("aabba")]
    assert replay(uses, 120, lru) == 4.0
    assert replay(uses, 100, lru) == 6.0
    assert replay([*uses, Use(9.0, "huge", 1000, 50.0)], 120, lru) == 4.0


def test_ours_is_the_best_of_those_that_do_not_know_the_future() -> None:
    """On made-up days, at each budget; the figures are in the README."""
    traces = [days(seed) for seed in range(12)]
    for gigabytes in (8, 16, 20, 24):
        costs = {
            name: sum(replay(uses, gigabytes * 10**9, policy) for uses in traces)
            for name, policy in POLICIES.items()
        }
        assert min(costs, key=lambda name: costs[name]) == "cost-rate"
        known = sum(replay(uses, gigabytes * 10**9, clairvoyant(uses)) for uses in traces)
        assert known < costs["cost-rate"] < 1.35 * known


def test_a_trace_is_read_from_a_file_and_shown_beside_the_others(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    lines = [{"at": 1.0, "service": "a", "bytes": 10**9, "load_seconds": 2.0}] * 3
    file.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert len(read(file)) == 3
    said: list[str] = []
    assert main([str(file), "--budget", "2GB"], say=said.append) == 0
    assert "2 s (1.00)" in said[0] and "cost-rate" in said[0]
    file.write_text('{"at": 1}\n')
    with pytest.raises(ConfigError, match="line 1"):
        read(file)
    assert main([str(file)], say=said.append) == 2 and "is no trace" in said[-1]
    assert main([str(tmp_path / "none")], say=said.append) == 2


@pytest.mark.parametrize(
    "line",
    [
        '{"at": "x", "service": "a", "bytes": 5, "load_seconds": 1}',
        '{"at": 1, "service": null, "bytes": 5, "load_seconds": 1}',
        '{"at": 1, "service": "a", "bytes": 0, "load_seconds": 1}',
        '{"at": 1, "service": "a", "bytes": -5, "load_seconds": 1}',
        '{"at": 1, "service": "a", "bytes": NaN, "load_seconds": 1}',
        "[" * 3000,
        "\udcff",
    ],
)
def test_a_line_that_is_no_use_of_a_model_is_told(tmp_path: Path, line: str) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_bytes(line.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match="is no trace"):
        read(file)
