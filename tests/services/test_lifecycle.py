"""The table of moves, walked at random beside a plain model of it."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_nb.errors import StateError
from grym_nb.services.lifecycle import MOVES, STATES, Lifecycle, Move, State, Step

EVERY_MOVE: tuple[Move, ...] = get_args(Move)


def shortest_ways() -> dict[State, tuple[Move, ...]]:
    """Return, for every state that can be reached at all, the moves that lead there."""
    ways: dict[State, tuple[Move, ...]] = {"registered": ()}
    fresh: list[State] = ["registered"]
    while fresh:
        at = fresh.pop(0)
        for (before, move), after in MOVES.items():
            if before == at and after not in ways:
                ways[after] = (*ways[at], move)
                fresh.append(after)
    return ways


WAYS = shortest_ways()


def arrived(state: State) -> Lifecycle:
    """Return a lifecycle that was moved into `state`."""
    life = Lifecycle("net", 0.0)
    for n, move in enumerate(WAYS[state], start=1):
        life.move(move, float(n))
    assert life.state == state
    return life


def test_every_state_can_be_reached() -> None:
    """No state stands in the table that no service could ever be in."""
    assert set(WAYS) == set(STATES) == set(get_args(State))


def test_every_move_is_legal_somewhere() -> None:
    """No move stands in the type that the table does not know."""
    assert {move for _, move in MOVES} == set(EVERY_MOVE)


def test_every_state_but_closed_leads_on_to_closed() -> None:
    """Whatever happens to a service, it can be ended; and after that nothing can happen to it."""
    for state in STATES:
        out = {move for before, move in MOVES if before == state}
        assert (not out) == (state == "closed")
        reached, fresh = {state}, [state]
        while fresh:
            at = fresh.pop()
            for after in {after for (before, _), after in MOVES.items() if before == at} - reached:
                reached.add(after)
                fresh.append(after)
        assert "closed" in reached


@given(
    moves=st.lists(st.tuples(st.sampled_from(EVERY_MOVE), st.text(max_size=8)), max_size=80),
    length=st.integers(1, 12),
)
def test_random_moves_do_what_the_table_says_and_nothing_else(
    moves: list[tuple[Move, str]], length: int
) -> None:
    """Legal moves give one step each, illegal ones raise with the story, and neither loses anything."""
    life = Lifecycle("net", 0.0, story_length=length)
    state: State = "registered"
    since = 0.0
    told: list[Step] = []
    for now, (move, reason) in enumerate(moves, start=1):
        after = MOVES.get((state, move))
        if after is None:
            with pytest.raises(StateError) as caught:
                life.move(move, float(now), reason)
            assert caught.value.details["story"] == tuple(told[-length:])
            assert caught.value.service == "net"
            assert state in caught.value.message
        else:
            step = life.move(move, float(now), reason)
            told.append(Step(float(now), state, after, reason))
            assert step == told[-1]
            state, since = after, float(now)
        assert (life.state, life.since, list(life.story)) == (state, since, told[-length:])


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("move", EVERY_MOVE)
def test_each_move_from_each_state(state: State, move: Move) -> None:
    """The whole table: a move that is not in it raises and leaves the state, the time and the story."""
    life = arrived(state)
    since, story = life.since, list(life.story)
    if (state, move) in MOVES:
        step = life.move(move, 99.0, "because")
        assert step == Step(99.0, state, MOVES[state, move], "because")
        assert (life.state, life.since, life.story[-1]) == (step.after, 99.0, step)
    else:
        with pytest.raises(StateError):
            life.move(move, 99.0, "because")
        assert (life.state, life.since, list(life.story)) == (state, since, story)


def test_an_illegal_move_says_how_it_got_there_and_what_is_possible() -> None:
    """Three lines: what cannot be, the story, the moves that can."""
    life = arrived("ready")
    life.move("drain", 3.0, "unload")
    with pytest.raises(StateError) as caught:
        life.move("load_failed", 4.0)
    error = caught.value
    assert error.message == "net is draining and cannot load failed"
    assert error.cause == "story: registered → loading · loading → ready · ready → draining (unload)"
    assert error.hint == "from here: close, resume, unloaded"


def test_a_fresh_service_and_a_closed_one_have_words_of_their_own() -> None:
    """No empty story, no empty list of moves."""
    with pytest.raises(StateError, match="just registered"):
        Lifecycle("net", 0.0).move("loaded", 1.0)
    with pytest.raises(StateError, match="from here: nothing; register it again"):
        arrived("closed").move("load", 9.0)


def test_the_story_keeps_the_last_moves_only() -> None:
    """A service that is loaded and unloaded for months costs no more than its first hundred moves."""
    life = Lifecycle("net", 0.0)
    for n in range(1000):
        for move in ("load", "loaded", "drain", "unloaded"):
            life.move(move, float(n))  # type: ignore[arg-type]
    assert len(life.story) == 100
    assert life.story[-1] == Step(999.0, "draining", "registered", "")
