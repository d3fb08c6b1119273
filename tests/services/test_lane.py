"""Slots, the line in front of them, and places that a chain shares: never two where one may compute."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from grym_nb.errors import CallBlocked, CallCancelled, CallTimeout
from grym_nb.services import Call, ModelService, ServiceHandle, ServiceRegistry, task
from grym_nb.services.frame import Frame, Options, current_frame
from grym_nb.services.lane import Lane
from grym_nb.services.places import Ticket
from grym_nb.services.waits import aside, step_aside, step_back
from grym_nb.testing import FakeClock
from tests.services.crowd import WAIT, Gates, Overlap, all_at_once, outcome, passes, start, until


class Idle(ModelService):
    """A service whose lane the tests take apart."""

    @task
    def nothing(self) -> None: ...


def lane_of(registry: ServiceRegistry, slots: int = 1) -> Lane:
    """Return the lane of a new service with so many slots."""
    return registry.register(f"idle-{len(registry)}", Idle, concurrency=slots)._record.lane


def frame_for(
    registry: ServiceRegistry,
    priority: str | int = "normal",
    *,
    parent: Frame | None = None,
    inline: bool = False,
    timeout: float | None = None,
) -> Frame:
    """Return a frame as a call makes it: inline ones run in the thread of their parent."""
    record = registry[next(reversed([*registry]))]._record
    options = Options.of(timeout, priority)
    frame = Frame(record, record.task("nothing"), (), {}, options, registry.ports.clock())
    frame.parent, frame.inline = parent, inline
    if parent is not None and parent.deadline is not None and timeout is None:
        frame.deadline = parent.deadline
    return frame


class Late:
    """The lock of a lane, had only after something else has happened."""

    def __init__(self, lane: Lane, happens: Callable[[], object]) -> None:
        self.lane, self.happens, self.real = lane, happens, lane.lock
        lane.lock = self  # type: ignore[assignment]

    def __enter__(self) -> None:
        if self.lane.lock is self:
            self.lane.lock = self.real
            self.happens()
        self.real.__enter__()

    def __exit__(self, *_: object) -> None:
        self.real.release()


@pytest.mark.parametrize("way", ["on a thread", "on a loop"])
def test_who_comes_back_from_a_wait_after_its_call_has_ended_takes_nobodys_place(
    registry: ServiceRegistry, way: str
) -> None:
    """What an async task has gathered may come back later than the task: its place is another's by then."""
    lane = lane_of(registry)
    ended, following = frame_for(registry), frame_for(registry)
    lane.take(ended)

    def happens() -> None:
        lane.leave(ended)
        lane.take(following)
        step_aside(following)

    if way == "on a thread":
        with aside(ended):
            Late(lane, happens)
    else:
        left = step_aside(ended)
        Late(lane, happens)
        asyncio.run(step_back(left, None))
    [place] = lane.places
    assert (place.owner, place.occupant) == (following, None)
    following.lent = 0
    lane.leave(following)


# -- the line --------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    arrivals=st.lists(
        st.tuples(st.sampled_from([0.0, 0.5, 3.0, 10.0, 25.0]), st.integers(0, 3)), min_size=1, max_size=12
    )
)
def test_the_line_is_served_by_priority_and_a_step_of_it_is_worth_ten_seconds(
    arrivals: list[tuple[float, int]],
) -> None:
    """Who has waited ten seconds longer goes before who is one step more important; ties by arrival."""
    clock = FakeClock(0.0)
    registry = ServiceRegistry(clock=clock)
    lane = lane_of(registry)
    first = frame_for(registry)
    lane.take(first)
    served: list[int] = []
    done = threading.Event()
    expected: list[tuple[float, int]] = []

    def job(n: int, frame: Frame) -> Callable[[], None]:
        def run() -> None:
            served.append(n)
            if len(served) == len(arrivals):
                done.set()
            lane.leave(frame)

        return run

    for n, (passed, priority) in enumerate(arrivals):
        clock.advance(passed)
        frame = frame_for(registry, priority)
        lane.submit(frame, job(n, frame))
        expected.append((clock() - 10.0 * priority, n))
    assert (served, lane.waiting) == ([], len(arrivals))
    lane.leave(first)
    passes(done)
    assert served == [n for _, n in sorted(expected)]
    assert outcome(start(registry.close, 10.0)) == ()


class Waiting:
    """What the model knows of one call: when it is due, and the ticket it has."""

    def __init__(self, due: float, order: int, frame: Frame, ticket: Ticket) -> None:
        self.due = (due, order)
        self.frame = frame
        self.ticket = ticket


class Held:
    """What the model knows of one place: who computes in it, who is in it, who of the chain waits for it."""

    def __init__(self, owner: Frame) -> None:
        self.occupant: Frame | None = owner
        self.inside = [owner]
        self.waiting: list[Waiting] = []


class LaneBesideAModel(RuleBasedStateMachine):
    """Calls come, ride, wait, leave, give up; slots are added and taken; the instance is let go of."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock(0.0)
        self.registry = ServiceRegistry(clock=self.clock)
        self.slots = 2
        self.lane = lane_of(self.registry, self.slots)
        self.order = 0
        self.line: list[Waiting] = []
        self.held: list[Held] = []
        self.lost: list[Held] = []
        self.frames: list[Frame] = []
        self.lent: list[tuple[Held, Frame]] = []

    def teardown(self) -> None:
        """Nothing waits and nothing is held once everybody has left."""
        while self.line:
            self.give_up(random.Random(0))
        for held in [*self.held, *self.lost]:
            for waiting in list(held.waiting):
                assert waiting.ticket.withdraw()
                held.waiting.remove(waiting)
            for frame in list(held.inside):
                self.lane.leave(frame)
        assert (self.lane.waiting, self.lane.free, self.lane.frames()) == (0, self.slots, [])
        assert outcome(start(self.registry.close, 10.0)) == ()

    # What the model does where the lane is expected to.

    def grant(self) -> None:
        """Let the first in line in, for as long as there are slots."""
        while self.line and len(self.held) < self.slots:
            first = min(self.line, key=lambda waiting: waiting.due)
            self.line.remove(first)
            self.held.append(Held(first.frame))

    def next_rider(self, held: Held) -> None:
        """Let the next of the chain compute, if nobody does."""
        if held.occupant is None and held.waiting:
            rider = held.waiting.pop(0)
            held.occupant = rider.frame
            held.inside.append(rider.frame)

    def leave_place(self, held: Held, frame: Frame) -> None:
        """One of a chain is gone; the last one gives the slot back."""
        held.inside.remove(frame)
        if held.occupant is frame:
            held.occupant = None
        self.lent = [(h, f) for h, f in self.lent if f is not frame]
        if held in self.lost:
            if not held.inside:
                self.lost.remove(held)
        elif not held.inside and not held.waiting:
            self.held.remove(held)
            self.grant()
        else:
            self.next_rider(held)

    # What happens.

    @rule(seconds=st.sampled_from([0.5, 4.0, 11.0]))
    def pass_time(self, seconds: float) -> None:
        """Whoever waits grows older."""
        self.clock.advance(seconds)

    @rule(priority=st.integers(0, 3))
    def submit(self, priority: int) -> None:
        """Somebody comes."""
        frame = frame_for(self.registry, priority)
        ticket = self.lane.submit(frame, lambda: None)
        self.order += 1
        self.line.append(Waiting(self.clock() - 10.0 * priority, self.order, frame, ticket))
        self.grant()

    @precondition(lambda self: self.held)
    @rule(pick=st.randoms(use_true_random=False))
    def submit_within(self, pick: random.Random) -> None:
        """A call makes another of the same service, on another thread."""
        held = pick.choice(self.held)
        frame = frame_for(self.registry, parent=pick.choice(held.inside) if held.inside else None)
        if frame.parent is None:
            return
        ticket = self.lane.submit(frame, lambda: None)
        held.waiting.append(Waiting(0.0, 0, frame, ticket))
        self.next_rider(held)

    @precondition(lambda self: any(held.occupant for held in self.held))
    @rule(pick=st.randoms(use_true_random=False))
    def wait_for_something(self, pick: random.Random) -> None:
        """Who computes waits, and the chain's others may use the place meanwhile."""
        held = pick.choice([held for held in self.held if held.occupant])
        frame = held.occupant
        assert frame is not None and frame.place is not None
        self.lane.lend(frame.place, frame)
        held.occupant = None
        self.lent.append((held, frame))
        self.next_rider(held)

    @precondition(lambda self: any(h.occupant is None for h, _ in self.lent))
    @rule(pick=st.randoms(use_true_random=False))
    def go_on(self, pick: random.Random) -> None:
        """And computes again, once nobody else of the chain does."""
        held, frame = pick.choice([pair for pair in self.lent if pair[0].occupant is None])
        self.lent.remove((held, frame))
        assert frame.place is not None
        with self.lane.condition:
            assert frame.place.occupant is None
            frame.place.occupant = frame
        held.occupant = frame

    @precondition(lambda self: self.held or self.lost)
    @rule(pick=st.randoms(use_true_random=False))
    def leave(self, pick: random.Random) -> None:
        """A call ends: the one that computes, or one that waits for what nobody will bring."""
        held = pick.choice([h for h in [*self.held, *self.lost] if h.inside] or [None])
        if held is None:
            return
        frame = pick.choice(held.inside)
        self.lane.leave(frame)
        self.leave_place(held, frame)

    @precondition(lambda self: self.line)
    @rule(pick=st.randoms(use_true_random=False))
    def give_up(self, pick: random.Random) -> None:
        """Somebody leaves the line; a second time there is nothing to leave."""
        waiting = pick.choice(self.line)
        assert waiting.ticket.withdraw()
        assert not waiting.ticket.withdraw()
        self.line.remove(waiting)

    @precondition(lambda self: any(held.waiting for held in self.held))
    @rule(pick=st.randoms(use_true_random=False))
    def give_up_riding(self, pick: random.Random) -> None:
        """One of a chain does not wait for its place any more."""
        held = pick.choice([held for held in self.held if held.waiting])
        waiting = pick.choice(held.waiting)
        assert waiting.ticket.withdraw()
        held.waiting.remove(waiting)
        if not held.inside and not held.waiting:
            self.held.remove(held)
            self.grant()

    @rule(slots=st.integers(1, 4))
    def resize(self, slots: int) -> None:
        """More slots let more in at once; fewer take effect as calls end."""
        self.lane.resize(slots)
        self.slots = slots
        self.grant()

    @precondition(lambda self: not any(held.waiting for held in self.held))
    @rule()
    def let_go_of_the_instance(self) -> None:
        """Those inside keep their old places to themselves, and everybody else finds new ones."""
        with self.lane.condition:
            jobs = self.lane.renew()
        self.lane.start(jobs)
        self.lost += self.held
        self.held = []
        self.grant()

    # What must hold at any time.

    @invariant()
    def the_lane_is_as_the_model(self) -> None:
        """Who is in, who waits, who computes, what is free."""
        assert self.lane.waiting == len(self.line)
        assert self.lane.free == max(0, self.slots - len(self.held))
        assert all(waiting.ticket.place is None for waiting in self.line)
        for held in self.held:
            places = {id(frame.place) for frame in held.inside}
            assert len(places) <= 1
            assert all(waiting.ticket.place is None for waiting in held.waiting)
            if held.inside:
                assert held.inside[0].place is not None
                assert held.inside[0].place.occupant is held.occupant
        occupants = [held.occupant for held in self.held if held.occupant]
        assert len(occupants) <= max(self.slots, len(self.held))

    @invariant()
    def calls_that_hold_a_slot_are_known(self) -> None:
        """`%grym mem` names them, also those in an instance that was let go of."""
        known = self.lane.frames()
        assert all(held.occupant in known for held in [*self.held, *self.lost] if held.occupant)


TestLaneBesideAModel = LaneBesideAModel.TestCase
TestLaneBesideAModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("slots", [1, 3])
def test_many_threads_never_hold_more_slots_than_there_are(registry: ServiceRegistry, slots: int) -> None:
    """Threads that wait here and jobs that workers run, mixed; and every one of them gets its turn."""
    lane = lane_of(registry, slots)
    overlap = Overlap()
    last = threading.Semaphore(0)

    def job(frame: Frame) -> Callable[[], None]:
        def run() -> None:
            with overlap:
                pass
            lane.leave(frame)
            last.release()

        return run

    def hammer(i: int) -> None:
        for n in range(25):
            frame = frame_for(registry, (i + n) % 4)
            if n % 3:
                lane.take(frame)
                with overlap:
                    pass
                lane.leave(frame)
            else:
                lane.submit(frame, job(frame))

    assert all_at_once(12, hammer) == [None] * 12
    assert all(last.acquire(timeout=WAIT) for _ in range(12 * 9))
    until(lambda: lane.free == slots)
    assert (overlap.times, overlap.most <= slots) == (300, True)
    assert (lane.waiting, lane.frames()) == (0, [])


def test_a_free_slot_is_taken_at_once_and_a_busy_one_waited_for(registry: ServiceRegistry) -> None:
    """`open` says which it would be."""
    lane = lane_of(registry)
    first, second = frame_for(registry), frame_for(registry)
    assert lane.open
    lane.take(first)
    assert (lane.open, lane.free) == (False, 0)
    waiting = start(lane.take, second)
    until(lambda: lane.waiting == 1)
    lane.leave(first)
    assert outcome(waiting) is None
    assert (second.place is not None, first.place) == (True, None)
    lane.leave(second)
    lane.leave(second)
    assert (lane.open, lane.free) == (True, 1)


def test_nobody_overtakes_the_line(registry: ServiceRegistry) -> None:
    """A slot that is free for a moment belongs to who waits, and not to who comes just now."""
    lane = lane_of(registry, 2)
    holders = [frame_for(registry) for _ in range(2)]
    for frame in holders:
        lane.take(frame)
    waiting = frame_for(registry)
    ticket = lane.submit(waiting, lambda: None)
    lane.leave(holders[0])
    assert ticket.place is not None
    assert not lane.open
    for frame in (holders[1], waiting):
        lane.leave(frame)


# -- leaving the line ------------------------------------------------------------------------------


def test_a_ticket_is_withdrawn_once_and_never_when_its_job_is_let_in(registry: ServiceRegistry) -> None:
    """True says that the call will not run; False that it does, or that it was said before."""
    lane = lane_of(registry)
    holder = frame_for(registry)
    lane.take(holder)
    ran: list[str] = []
    frame, other = frame_for(registry), frame_for(registry)
    gone = lane.submit(frame, lambda: ran.append("gone"))
    stays = lane.submit(other, lambda: ran.append("stays"))
    assert (gone.withdraw(), gone.withdraw(), lane.waiting) == (True, False, 1)
    lane.leave(holder)
    until(lambda: ran)
    assert (ran, stays.withdraw(), gone.withdraw()) == (["stays"], False, False)
    lane.leave(other)
    assert (stays.withdraw(), lane.free) == (False, 1)


def test_who_waits_longer_than_its_deadline_leaves_the_line(
    driven: ServiceRegistry, clock: FakeClock
) -> None:
    """With an error that says for what it waited; the slot goes to the next."""
    lane = lane_of(driven)
    holder, late, next_ = frame_for(driven), frame_for(driven, timeout=5.0), frame_for(driven)
    lane.take(holder)
    waiting = start(lane.take, late)
    clock.until_waiting(1)
    last = start(lane.take, next_)
    clock.until_waiting(2)
    clock.advance(5.0)
    error = outcome(waiting)
    assert isinstance(error, CallTimeout)
    assert "timed out after 5 s" in str(error) and "a slot of idle-0 (1 in use)" in str(error)
    assert (late.place, lane.waiting) == (None, 1)
    lane.leave(holder)
    assert outcome(last) is None
    lane.leave(next_)
    assert (lane.free, lane.frames()) == (1, [])


def test_who_is_cancelled_while_it_waits_leaves_the_line(driven: ServiceRegistry, clock: FakeClock) -> None:
    """As soon as the lane's condition is notified."""
    lane = lane_of(driven)
    holder, frame = frame_for(driven), frame_for(driven)
    lane.take(holder)
    waiting = start(lane.take, frame)
    clock.until_waiting(1)
    frame.cancelled = True
    with lane.condition:
        lane.condition.notify_all()
    assert isinstance(outcome(waiting), CallCancelled)
    lane.leave(holder)
    assert (lane.free, lane.waiting, frame.place) == (1, 0, None)


def test_a_slot_granted_to_who_just_gave_up_goes_to_the_next(
    driven: ServiceRegistry, clock: FakeClock
) -> None:
    """The deadline comes with the slot: whoever wins, no slot is lost."""
    lane = lane_of(driven)
    for _ in range(20):
        holder, frame = frame_for(driven), frame_for(driven, timeout=1.0)
        lane.take(holder)
        waiting = start(lane.take, frame)
        clock.until_waiting(1)
        line = threading.Barrier(2)
        leaving = start(lambda: (line.wait(WAIT), lane.leave(holder)))  # noqa: B023
        line.wait(WAIT)
        clock.advance(1.0)
        told = outcome(waiting)
        outcome(leaving)
        assert told is None or isinstance(told, CallTimeout)
        lane.leave(frame)
        assert (lane.free, lane.waiting, lane.frames()) == (1, 0, [])


# -- more and fewer slots, and another instance ----------------------------------------------------


def test_more_slots_let_in_who_waits_and_fewer_take_effect_as_calls_end(registry: ServiceRegistry) -> None:
    """No call is thrown out."""
    lane = lane_of(registry)
    frames = [frame_for(registry) for _ in range(4)]
    tickets = [lane.submit(frame, lambda: None) for frame in frames]
    inside = lambda: [ticket.place is not None for ticket in tickets]  # noqa: E731
    assert inside() == [True, False, False, False]
    lane.resize(3)
    assert inside() == [True, True, True, False]
    lane.resize(1)
    assert inside() == [True, True, True, False]
    for frame in frames[:2]:
        lane.leave(frame)
        assert inside() == [True, True, True, False]
    lane.leave(frames[2])
    assert inside() == [True, True, True, True]
    lane.leave(frames[3])
    assert (lane.free, lane.slots) == (1, 1)


def test_a_new_instance_has_its_slots_to_itself_and_old_calls_end_harmlessly(
    registry: ServiceRegistry,
) -> None:
    """Whoever still computes in the old one is known until it ends, and gives no slot back twice."""
    lane = lane_of(registry, 2)
    old = [frame_for(registry) for _ in range(2)]
    for frame in old:
        lane.take(frame)
    waiting = frame_for(registry)
    ticket = lane.submit(waiting, lambda: None)
    with lane.condition:
        jobs = lane.renew()
    lane.start(jobs)
    assert (jobs, ticket.place is not None, lane.free) == ([ticket], True, 1)
    assert set(lane.frames()) == {waiting, *old}
    for frame in old:
        lane.leave(frame)
    assert (lane.free, lane.frames()) == (1, [waiting])
    lane.leave(waiting)
    assert (lane.free, lane.frames()) == (2, [])


def test_a_rider_whose_place_was_forgotten_waits_in_line_and_leaves_nothing_behind(
    registry: ServiceRegistry,
) -> None:
    """The old place is forgotten with the last call in it."""
    lane = lane_of(registry)
    owner = frame_for(registry)
    lane.take(owner)
    rider = frame_for(registry, parent=owner)
    ticket = lane.submit(rider, lambda: None)
    assert ticket.place is None
    with lane.condition:
        jobs = lane.renew()
    lane.start(jobs)
    assert (jobs, ticket.place is not None) == ([ticket], True)
    lane.leave(owner)
    lane.leave(rider)
    assert (lane.free, lane.frames()) == (1, [])


def test_a_call_whose_place_was_forgotten_takes_a_new_one(registry: ServiceRegistry) -> None:
    """It enters anew, and its old place is given up."""
    lane = lane_of(registry)
    frame = frame_for(registry)
    lane.take(frame)
    before = frame.place
    with lane.condition:
        lane.start(lane.renew())
    lane.take(frame)
    assert frame.place is not None and frame.place is not before
    assert (lane.free, lane.frames()) == (0, [frame])
    lane.leave(frame)
    assert lane.free == 1


# -- places that a chain shares --------------------------------------------------------------------


class Chained(ModelService):
    """Calls itself and others in every way; `gates` say what it waits for, `overlap` who computes."""

    def __init__(self, gates: Gates, overlap: Overlap, other: str = "") -> None:
        self.gates = gates
        self.overlap = overlap
        self.other = other
        self.me: Any = None
        self.back: Any = None

    @task
    def leaf(self, name: str = "leaf") -> str:
        with self.overlap:
            self.gates.tell(name)
        return name

    @task
    def gated(self, name: str) -> str:
        with self.overlap:
            self.gates.tell(name)
            self.gates.wait(f"{name} may go")
        return name

    @task
    def deep(self, n: int) -> int:
        return 1 + self.me.deep(n - 1) if n else 0

    @task
    def around(self, n: int) -> int:
        return 1 + self.me._registry[self.other].around(n - 1) if n else 0

    @task
    def waits(self, name: str) -> str:
        """Compute, then wait for a child on another thread, then compute again."""
        with self.overlap:
            call = self.me.leaf.submit(name)
            self.gates.tell("child is submitted")
            self.gates.wait("parent may wait")
            begun = self.gates[name].is_set()
        told = call.result(WAIT)
        with self.overlap:
            self.gates.tell("parent goes on")
        return f"{told}, {'too early' if begun else 'in time'}"

    @task
    def forgets(self, names: tuple[str, ...]) -> list[Call]:
        with self.overlap:
            calls = [self.me.leaf.submit(name) for name in names]
            self.gates.tell("submitted")
            self.gates.wait("owner may end")
            assert not any(self.gates[name].is_set() for name in names)
        return calls

    @task
    async def later(self, names: tuple[str, ...]) -> list[str]:
        calls = [self.me.leaf.submit(name) for name in names]
        return [await call for call in calls]

    @task
    async def cares(self, name: str) -> None:
        """Wait for a child, and look at the place once that is over."""
        try:
            await self.me.gated.submit(name)
        finally:
            frame = current_frame()
            assert frame is not None and frame.place is not None
            self.back = (frame.lent, frame.place.occupant is frame, self.gates[f"{name} may go"].is_set())

    @task
    def parts(self, n: int) -> Iterator[int]:
        for i in range(n):
            with self.overlap:
                pass
            yield i

    @task
    def opens(self, n: int) -> Iterator[int]:
        return iter(self.me.parts(n))

    @task
    def opens_and_submits(self) -> Any:
        return self.me.submits_between()

    @task
    def submits_between(self) -> Iterator[Any]:
        with self.overlap:
            call = self.me.leaf.submit("child of a generator")
            self.gates.tell("child is submitted")
            self.gates.wait("generator may go on")
        yield call


@pytest.fixture
def gates() -> Gates:
    """Events by name."""
    return Gates()


@pytest.fixture
def overlap() -> Overlap:
    """Who computes now."""
    return Overlap()


@pytest.fixture
def chained(registry: ServiceRegistry, gates: Gates, overlap: Overlap) -> ServiceHandle:
    """A loaded service with one slot that knows its own handle."""
    return service(registry, "chained", gates, overlap)


def service(
    registry: ServiceRegistry, name: str, gates: Gates, overlap: Overlap, other: str = ""
) -> ServiceHandle:
    """Register a chained service, load it, and tell it who it is."""
    config = {"gates": gates, "overlap": overlap, "other": other}
    handle = registry.register(name, Chained, config=config)
    with handle.use() as model:
        model.me = handle
    return handle


def test_a_chain_re_enters_its_own_service_in_its_own_thread(chained: ServiceHandle) -> None:
    """However deep, with one slot, and without another thread."""
    assert chained.deep(50) == 50
    assert threading.current_thread() in threading.enumerate()
    assert outcome(start(chained.deep, 50)) == 50
    assert chained.submit("deep", 20).result(WAIT) == 20
    assert chained._record.lane.free == 1


def test_a_chain_re_enters_through_others(registry: ServiceRegistry, gates: Gates, overlap: Overlap) -> None:
    """A calls B, B calls A, each with one slot."""
    one = service(registry, "one", gates, overlap, "two")
    two = service(registry, "two", gates, overlap, "one")
    assert (one.around(21), two.around(20), one.submit("around", 11).result(WAIT)) == (21, 20, 11)
    assert (one._record.lane.free, two._record.lane.free) == (1, 1)


def test_a_child_on_another_thread_runs_only_while_its_parent_waits(
    chained: ServiceHandle, gates: Gates, overlap: Overlap
) -> None:
    """It rides on the parent's slot: not before the parent waits, and the parent not before it is done."""
    running = start(chained.waits, "child")
    gates.wait("child is submitted")
    assert not gates["child"].is_set()
    gates.tell("parent may wait")
    assert outcome(running) == "child, in time"
    assert (overlap.most, overlap.times, chained._record.lane.free) == (1, 3, 1)


def test_a_parent_goes_on_only_when_the_rider_is_done(
    chained: ServiceHandle, gates: Gates, overlap: Overlap
) -> None:
    """Even when what it waited for is there long since: two children, the first one quick."""

    def parent() -> None:
        # Through `use()`, so that the chain's own code is the test's.
        with chained.use():
            quick, slow = chained.leaf.submit("quick"), chained.gated.submit("slow")
            assert quick.result(WAIT) == "quick"
            with overlap:
                gates.tell("parent goes on")
            assert slow.result(WAIT) == "slow"

    running = start(parent)
    gates.wait("slow")
    assert not gates["parent goes on"].is_set()
    gates.tell("slow may go")
    outcome_of_parent = outcome(running)
    assert (outcome_of_parent, overlap.most, chained._record.lane.free) == (None, 1, 1)


def test_children_that_nobody_waits_for_run_after_their_parent_and_before_strangers(
    registry: ServiceRegistry, chained: ServiceHandle, gates: Gates, overlap: Overlap
) -> None:
    """In the order in which they were submitted; the slot is given on when the last one is done."""
    parent = chained.forgets.submit(("first", "second"))
    gates.wait("submitted")
    stranger = chained.leaf.submit("stranger")
    gates.tell("owner may end")
    children = parent.result(WAIT)
    assert [child.result(WAIT) for child in children] == ["first", "second"]
    assert stranger.result(WAIT) == "stranger"
    ids = {call.id: name for call, name in zip([*children, stranger], "123", strict=True)}
    assert [ids[ended.id] for ended in registry.calls() if ended.id in ids] == ["1", "2", "3"]
    assert overlap.most == 1
    until(lambda: chained._record.lane.free == 1)


def test_children_of_an_async_task_run_while_it_awaits_them(chained: ServiceHandle, overlap: Overlap) -> None:
    """On the private loop nothing blocks."""
    names = tuple(f"child {i}" for i in range(5))
    assert chained.later(names) == list(names)
    assert (overlap.most, chained._record.lane.free) == (1, 1)


def test_an_await_that_is_cancelled_twice_goes_on_only_with_its_place(
    chained: ServiceHandle, gates: Gates
) -> None:
    """Its child is deaf and computes in it: the parent's own code waits for that, however it is cancelled."""
    parent = chained.cares.submit("child")
    gates.wait("child")
    frame = parent._frame
    assert frame is not None
    assert [running.task for running in chained._record.lane.frames()] == ["cares", "gated"]
    assert parent.cancel()
    until(lambda: frame.waits_for == ())
    assert parent.cancel() and not parent.done()
    gates.tell("child may go")
    assert isinstance(parent.exception(WAIT), CallCancelled)
    with chained.use() as model:
        assert model.back == (0, True, True)


def test_a_child_that_gives_up_before_it_rides_leaves_the_place_as_it_was(
    chained: ServiceHandle, gates: Gates
) -> None:
    """Cancelled while its parent computes: the parent's slot is the parent's."""
    parent = chained.forgets.submit(("never", "second"))
    gates.wait("submitted")
    place = chained._record.lane.places[0]
    first = place.waiting[0]
    assert first.frame.call is not None
    assert first.frame.call.cancel()
    gates.tell("owner may end")
    assert [type(call.exception(WAIT)) for call in parent.result(WAIT)] == [CallCancelled, type(None)]
    until(lambda: chained._record.lane.free == 1)
    assert not gates["never"].is_set()


def test_many_chains_at_once_compute_one_at_a_time(chained: ServiceHandle, overlap: Overlap) -> None:
    """Nested, submitted, awaited and forgotten calls of forty chains on one slot."""

    def chain(i: int) -> Any:
        match i % 4:
            case 0:
                return chained.deep(5)
            case 1:
                return chained.later(("a", "b"))
            case 2:
                return list(chained.parts(3))
            case _:
                return chained.leaf("leaf")

    told = all_at_once(40, chain)
    assert told == [[5, ["a", "b"], [0, 1, 2], "leaf"][i % 4] for i in range(40)]
    assert overlap.most == 1
    until(lambda: chained._record.lane.free == 1)
    assert chained._record.lane.frames() == []


def test_two_chains_that_wait_for_one_another_are_told(
    registry: ServiceRegistry, gates: Gates, overlap: Overlap
) -> None:
    """A holds its slot and asks B, B holds its own and asks A: one of them is refused, the other ends."""
    services = [service(registry, name, gates, overlap) for name in ("one", "two")]
    line = threading.Barrier(2)

    def chain(i: int) -> Any:
        with services[i].use():
            line.wait(WAIT)
            return services[1 - i].leaf(f"by {i}")

    told = all_at_once(2, chain)
    assert sorted(type(one) for one in told if isinstance(one, BaseException)) in ([CallBlocked], [])
    assert any(isinstance(one, str) for one in told)
    assert [handle._record.lane.free for handle in services] == [1, 1]


# -- waits that only this thread could end ---------------------------------------------------------


def test_a_blocking_call_that_would_wait_for_an_open_generator_here_is_refused(
    chained: ServiceHandle,
) -> None:
    """It names the generator and says how to end it; from another thread it just waits."""
    stream = chained.parts(2)
    assert next(stream) == 0
    for blocking in (
        lambda: chained.leaf(),
        lambda: chained.leaf.submit().result(WAIT),
        chained.use().__enter__,
    ):
        with pytest.raises(CallBlocked) as caught:
            blocking()
        assert "chained.parts is open in this thread and holds the slot" in str(caught.value)
        assert "concurrency=2" in str(caught.value)
    elsewhere = start(chained.leaf)
    stream.close()
    assert outcome(elsewhere) == "leaf"
    assert chained.leaf() == "leaf"


def test_with_another_slot_or_another_holder_it_is_not_refused(
    registry: ServiceRegistry, chained: ServiceHandle, gates: Gates
) -> None:
    """Somebody else will bring the slot: that wait can end."""
    registry.register("chained", Chained, config=dict(chained._record.spec.config), concurrency=2)
    stream = chained.parts(2)
    assert (next(stream), chained.leaf()) == (0, "leaf")
    other = chained.gated.submit("other")
    gates.wait("other")
    waiting = start(chained.leaf)
    here = chained.leaf.submit("mine")
    gates.tell("other may go")
    assert (here.result(WAIT), outcome(waiting), other.result(WAIT)) == ("mine", "leaf", "other")
    assert list(stream) == [1]


def test_a_generator_that_outlives_the_call_it_was_made_in_keeps_the_slot(
    chained: ServiceHandle, overlap: Overlap
) -> None:
    """And is named by who would wait for it in its own thread."""

    def read() -> None:
        stream = chained.opens(3)
        assert next(stream) == 0
        assert chained._record.lane.free == 0
        assert [frame.title for frame in chained._record.lane.frames()] == ["chained.parts"]
        with pytest.raises(CallBlocked, match=r"chained\.parts is open in this thread"):
            chained.leaf()
        assert list(stream) == [1, 2]

    assert outcome(start(read)) is None
    assert (chained._record.lane.free, chained.leaf()) == (1, "leaf")


def test_a_generator_that_outlives_its_call_computes_alone(
    chained: ServiceHandle, gates: Gates, overlap: Overlap
) -> None:
    """A child that its body submits waits until the body does."""

    def read() -> Any:
        with chained.opens_and_submits() as stream:
            call = next(stream)
        return call.result(WAIT)

    running = start(read)
    gates.wait("child is submitted")
    assert not gates["child of a generator"].is_set()
    gates.tell("generator may go on")
    assert outcome(running) == "child of a generator"
    assert (overlap.most, chained._record.lane.free) == (1, 1)


def test_use_is_left_in_any_order_of_threads(chained: ServiceHandle) -> None:
    """Sixteen threads each hold the object in turn, and call it inside."""

    def hold(i: int) -> Any:
        with chained.use() as model:
            return model.me.leaf(f"{i}")

    assert all_at_once(16, hold) == [f"{i}" for i in range(16)]
    assert chained._record.lane.free == 1


def test_the_chain_is_left_behind_in_a_plain_thread_of_ones_own(chained: ServiceHandle) -> None:
    """A thread that a task starts is no part of the call: what it calls waits for the slot like any other."""
    with chained.use():
        elsewhere = start(chained.leaf)
        until(lambda: chained._record.lane.waiting == 1)
        assert not elsewhere.done()
    assert outcome(elsewhere) == "leaf"


def test_aside_gives_back_nothing_where_nothing_is_held(chained: ServiceHandle) -> None:
    """Outside of a call, and in one whose place is its parent's."""
    with aside(None):
        assert chained.leaf() == "leaf"
    with chained.use(), chained.use():
        assert chained.leaf.submit().result(WAIT) == "leaf"
    assert chained._record.lane.free == 1


def test_a_thousand_submitted_calls_all_end(chained: ServiceHandle, overlap: Overlap) -> None:
    """Through one slot, by whatever number of workers."""
    calls = [chained.leaf.submit() for _ in range(1000)]
    done, left = wait(calls, timeout=WAIT)
    assert (len(done), len(left), overlap.most, overlap.times) == (1000, 0, 1, 1000)
