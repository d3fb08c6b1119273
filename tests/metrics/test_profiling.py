"""A block knows what it cost, with and without the blocks inside of it."""

from __future__ import annotations

import asyncio
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from grym_nb.errors import ConfigError, StateError, ValidationError
from grym_nb.metrics.profiling import Cost, Profile, profile
from grym_nb.metrics.usage import Reading


class System:
    """A process whose figures go on as the test says."""

    def __init__(self) -> None:
        self.now = Reading(
            *(100.0, 10.0, 1, 5.0),
            **{"rss": 1000, "rss_peak": 5000, "waits": 3, "preemptions": 1, "read": 0, "written": 0},
            threads=frozenset({1}),
        )

    def goes(self, **more: object) -> None:
        """Let figures grow, or be something else if they are no numbers."""
        known = self.now._asdict()
        grown = {
            name: known[name] + value if isinstance(value, int | float) and known[name] is not None else value
            for name, value in more.items()
        }
        self.now = self.now._replace(**grown)

    def profile(self, name: str) -> Profile:
        return Profile(name, read=lambda begins: self.now)


@pytest.fixture
def system() -> System:
    return System()


def test_a_block_has_its_cost(system: System) -> None:
    with system.profile("load") as block:
        assert block.cost is None and block.own_seconds is None
        system.goes(at=2.0, cpu=1.5, thread_cpu=0.5, rss=300, rss_peak=700, waits=4, preemptions=2)
        system.goes(read=10, written=20, threads=frozenset({1, 7, 9}))
    assert block.cost == Cost(
        seconds=2.0,
        cpu_seconds=1.5,
        thread_seconds=0.5,
        memory_bytes=300,
        memory_peak_bytes=4700,
        gpu_bytes=None,
        gpu_peak_bytes=None,
        read_bytes=10,
        written_bytes=20,
        waits=4,
        preemptions=2,
        threads=2,
    )
    assert (block.own_seconds, block.error, block.children) == (2.0, "", [])


def test_what_the_system_does_not_tell_is_none(system: System) -> None:
    system.now = Reading(1.0, 1.0, 1)
    with system.profile("load") as block:
        system.goes(at=1.0, cpu=1.0, thread=1)
    assert block.cost == Cost(1.0, 1.0, *[None] * 10)
    assert "memory" not in repr(block) and "gpu" not in repr(block)


def test_a_peak_that_was_lower_than_an_earlier_one_is_not_known(system: System) -> None:
    with system.profile("load") as block:
        system.goes(rss=3000)
    assert block.cost is not None and (block.cost.memory_bytes, block.cost.memory_peak_bytes) == (3000, None)


def test_memory_of_a_card_counts_from_nothing_when_the_card_was_begun_inside(system: System) -> None:
    with system.profile("load") as block:
        system.goes(gpu=500, gpu_peak=800)
    assert block.cost is not None and (block.cost.gpu_bytes, block.cost.gpu_peak_bytes) == (500, 800)
    with system.profile("use") as block:
        system.goes(gpu=100, gpu_peak=400)
    assert block.cost is not None and (block.cost.gpu_bytes, block.cost.gpu_peak_bytes) == (100, 700)


def test_blocks_inside_are_children_with_their_own_time(system: System) -> None:
    with system.profile("whole") as whole:
        system.goes(at=1.0)
        with system.profile("a") as a:
            system.goes(at=2.0)
            with system.profile("deep") as deep:
                system.goes(at=4.0)
        with system.profile("b") as b:
            system.goes(at=8.0)
    with system.profile("after") as after:
        pass
    assert (whole.children, a.children, after.children) == ([a, b], [deep], [])
    assert [one.own_seconds for one in (whole, a, deep, b)] == [1.0, 2.0, 4.0, 8.0]
    assert whole.cost is not None and whole.cost.seconds == 15.0


def test_a_block_that_raises_is_kept_with_its_error(system: System) -> None:
    with system.profile("whole") as whole, pytest.raises(ValueError, match="x"), system.profile("bad"):
        system.goes(at=1.0)
        raise ValueError("x")
    (bad,) = whole.children
    assert (bad.error, whole.error, bad.own_seconds) == ("ValueError", "", 1.0)
    with pytest.raises(KeyboardInterrupt), system.profile("stopped") as stopped:
        raise KeyboardInterrupt
    assert stopped.error == "KeyboardInterrupt" and stopped.cost is not None


def test_coroutines_that_run_at_the_same_time_count_once(system: System) -> None:
    async def work(name: str, seconds: float) -> None:
        with system.profile(name):
            await asyncio.sleep(0)
            system.goes(at=seconds)
            await asyncio.sleep(0)
            with system.profile(f"in {name}"):
                await asyncio.sleep(0)

    async def both() -> None:
        await asyncio.gather(work("a", 1.0), work("b", 2.0))

    with system.profile("whole") as whole:
        asyncio.run(both())
        system.goes(at=0.5)
    assert [(child.name, [one.name for one in child.children]) for child in whole.children] == [
        ("a", ["in a"]),
        ("b", ["in b"]),
    ]
    assert whole.own_seconds == 0.5


def test_a_thread_begins_a_tree_of_its_own(system: System) -> None:
    found = []

    def work() -> None:
        with system.profile("inside") as block:
            found.append(block)

    with system.profile("whole") as whole:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(30)
    assert whole.children == [] and [block.name for block in found] == ["inside"]


def test_a_task_that_outlives_its_block_is_no_child_of_it(system: System) -> None:
    async def later(going: asyncio.Event) -> Profile:
        with system.profile("early"):
            await going.wait()
        with system.profile("late") as block:
            system.goes(at=1.0)
        return block

    async def kernel() -> tuple[Profile, Profile]:
        going = asyncio.Event()
        with system.profile("whole") as whole:
            task = asyncio.create_task(later(going))
            await asyncio.sleep(0)
            system.goes(at=3.0)
            assert "running" in repr(whole)
        going.set()
        return whole, await task

    whole, late = asyncio.run(kernel())
    assert [child.name for child in whole.children] == ["early"] and late.cost is not None
    assert (whole.own_seconds, late.own_seconds) == (0.0, 1.0)


def test_each_call_of_a_function_is_a_block(system: System) -> None:
    @system.profile("half")
    def half(n: int) -> float:
        system.goes(at=1.0)
        return n / 2

    @system.profile("wait")
    async def wait() -> str:
        await asyncio.sleep(0)
        system.goes(at=2.0)
        return "done"

    assert half.last_profile is None  # type: ignore[attr-defined]
    with system.profile("whole") as whole:
        assert (half(2), half(4), asyncio.run(wait())) == (1.0, 2.0, "done")
    assert [(one.name, one.own_seconds) for one in whole.children] == [
        ("half", 1.0),
        ("half", 1.0),
        ("wait", 2.0),
    ]
    half(2)
    last = half.last_profile  # type: ignore[attr-defined]
    assert last.cost.seconds == 1.0 and last not in whole.children
    with pytest.raises(ConfigError, match="runs when somebody else"):
        system.profile("some")(lambda: (yield))


def test_one_profile_is_for_one_block(system: System) -> None:
    block = system.profile("load")
    with block, pytest.raises(StateError, match="has begun already"), block:
        pass
    with pytest.raises(StateError, match="has begun already"), block:
        pass


def test_children_beyond_a_thousand_are_counted_and_not_kept(system: System) -> None:
    with system.profile("whole") as whole:
        for _ in range(1200):
            with system.profile("step"):
                system.goes(at=0.5)
        system.goes(at=1.0)
    assert (len(whole.children), whole.left_out, whole.own_seconds) == (1000, 200, 1.0)
    lines = repr(whole).splitlines()
    assert (
        lines[-2].startswith("· step x 1000")
        and lines[-1].startswith("· 200 more")
        and "1 min 40 s" in lines[-1]
    )


def test_it_is_shown_as_a_tree_of_what_is_known(system: System) -> None:
    with system.profile("whole") as whole:
        for n in range(2):
            with pytest.raises(KeyError), system.profile("step"):
                system.goes(at=1.0, cpu=0.25, rss=-2_000_000 * n, rss_peak=10_000, written=3000)
                with system.profile("<deep>"):
                    system.goes(at=0.5)
                raise KeyError
    assert repr(whole).splitlines() == [
        "profile of whole",
        "block           own   took  cpu     cpu of the thread  memory   peak      written  error",
        "--------------  ----  ----  ------  -----------------  -------  --------  -------  --------",
        "whole           0 us  3 s   500 ms  0 us               -2.0 MB  +24.0 KB  6.0 KB",
        "· step x 2      2 s   3 s   500 ms  0 us               -2.0 MB  +24.0 KB  6.0 KB   KeyError",
        "· · <deep> x 2  1 s   1 s   0 us    0 us               0 B      -         0 B",
    ]
    assert "&lt;deep&gt;" in whole._repr_html_() and "<table" in whole._repr_html_()


def test_a_real_block_is_measured() -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait, args=(30,), daemon=True)
    with profile("real") as block:
        held = b"x" * 100_000_000  # more than malloc ever takes from what it has kept
        thread.start()
        total = sum(range(200_000))
    over.set()
    thread.join(30)
    cost = block.cost
    assert cost is not None and total and held
    assert cost.cpu_seconds > 0 and 0 < cost.seconds < 60
    assert cost.thread_seconds is not None and 0 < cost.thread_seconds <= cost.cpu_seconds + 0.01
    assert cost.memory_bytes is not None and cost.memory_bytes > 90_000_000
    assert cost.threads == 1 if sys.platform == "linux" else cost.threads is not None


def test_torch_is_asked_only_when_it_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = {0: (100, 300), 1: (20, 30)}
    cuda = SimpleNamespace(
        is_initialized=lambda: False,
        device_count=lambda: len(cards),
        memory_allocated=lambda card: cards[card][0],
        max_memory_allocated=lambda card: cards[card][1],
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))  # type: ignore[arg-type]
    with profile("load") as block:
        pass
    assert block.cost is not None and block.cost.gpu_bytes is None
    with profile("load") as block:
        cuda.is_initialized = lambda: True
        cards[0] = (400, 900)
    assert block.cost is not None and (block.cost.gpu_bytes, block.cost.gpu_peak_bytes) == (420, 930)
    cuda.device_count = lambda: 1 // 0
    with profile("load") as block:
        pass
    assert block.cost is not None and block.cost.gpu_bytes is None


def test_of_calls_within_calls_the_outermost_is_the_last() -> None:
    @profile("down")
    def down(n: int) -> int:
        return down(n - 1) if n else 0

    down(3)
    last = down.last_profile  # type: ignore[attr-defined]
    assert len(last.children) == 1 and len(last.children[0].children[0].children) == 1


def test_what_is_interrupted_before_it_begins_is_around_nothing() -> None:
    def interrupted(begins: bool) -> Any:
        raise KeyboardInterrupt

    broken = Profile("broken", read=interrupted)
    with profile("whole") as whole:
        with pytest.raises(KeyboardInterrupt), broken:
            pass
        with profile("later"):
            pass
    assert broken.children == [] and [one.name for one in whole.children] == ["later"]


@pytest.mark.parametrize("wrong", [5, "", None])
def test_a_profile_has_a_name(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="nothing can be called"):
        profile(wrong)


def test_who_forgets_the_name_is_told_where_it_goes() -> None:
    wrong: Any = profile
    with pytest.raises(ConfigError, match="a profile has a name") as caught:

        @wrong
        def work() -> None: ...

    assert '@profile("my step")' in caught.value.hint
    with pytest.raises(ValidationError, match="missing 1 required"):
        wrong()
