"""A batch that is too much for the memory: computed in parts, in order, and what did fit is remembered."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as sized
from hypothesis import strategies as st

from grym_nb.errors import CallCancelled, CallTimeout, ConfigError, ResourceExhausted, TaskFailed
from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, task
from grym_nb.services.frame import current_frame
from grym_nb.services.parts import FITS_FOR
from grym_nb.testing import FakeClock

pytestmark = pytest.mark.usefixtures("small_heap")

torch = pytest.importorskip("torch")
SHORT: dict[str, Callable[[], BaseException]] = {
    "torch": lambda: torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 7.00 GiB"),
    "numpy": lambda: MemoryError("Unable to allocate 7 GiB"),
}


class Embed(ModelService):
    """Runs out of memory when it is given more than so many, and writes down how many it was given."""

    def __init__(self, *, most: int = 4, how: str = "torch") -> None:
        self.most = most
        self.how = how
        self.given: list[int] = []
        self.before: Callable[[Sequence[int]], object] = lambda part: None

    def _compute(self, items: Sequence[int], scale: int = 10) -> list[int]:
        self.given.append(len(items))
        self.before(items)
        if len(items) > self.most:
            raise SHORT[self.how]()
        return [item * scale for item in items]

    @task("embed.all", batch="items")
    def embed(self, items: list[int] | tuple[int, ...], scale: int = 10) -> list[int]:
        return self._compute(items, scale)

    @task(batch="items")
    def pair(self, *, items: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self._compute(items))

    @task(batch="items")
    async def later(self, items: list[int]) -> list[int]:
        return self._compute(items)

    @task(batch="items")
    def total(self, items: list[int]) -> int:
        return sum(self._compute(items))

    @task(batch="items")
    def fewer(self, items: list[int]) -> list[int]:
        return self._compute(items)[1:]

    @task(batch="items")
    def loose(self, items: Any) -> list[int]:
        return self._compute(items)

    @task
    def whole(self, items: list[int]) -> list[int]:
        return self._compute(items)


def given_to(handle: ServiceHandle) -> list[int]:
    """Return how many items the model was given, call by call, and forget it."""
    with handle.use() as model:
        told, model.given = model.given, []
    return list(told)


@pytest.fixture
def embed(driven: ServiceRegistry) -> ServiceHandle:
    return driven.register("embed", Embed)


NINE = list(range(9))
TENS = [10 * item for item in NINE]


@pytest.mark.parametrize("how", SHORT)
def test_a_batch_that_does_not_fit_is_computed_in_parts(driven: ServiceRegistry, how: str) -> None:
    embed = driven.register("embed", Embed, config={"how": how})
    assert embed.embed(NINE) == TENS
    assert embed.metrics().calls == 1 and not embed.metrics().errors
    assert given_to(embed) == [9, 9, 5, 3, 3, 3], "all, all again, half, and the rest as did fit"
    assert embed.embed(NINE[:2]) == TENS[:2] and embed.embed([]) == []
    sizes = driven.ports.metrics.histogram("service.batch.items", service="embed", task="embed").snapshot()
    assert (sizes.count, sizes.low, sizes.high, sizes.total) == (4, 2, 3, 11), (
        "what did not fit was not computed"
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda embed: embed.embed(NINE),
        lambda embed: embed.embed(items=NINE, scale=10),
        lambda embed: embed.embed.submit(NINE, scale=10).result(),
        lambda embed: embed.embed.with_(timeout=60)(items=NINE),
        lambda embed: embed.later(NINE),
        lambda embed: list(embed.pair(items=tuple(NINE))),
    ],
    ids=["inline", "by name", "submitted", "with a deadline", "async", "a tuple, by name only"],
)
def test_however_it_is_called(embed: ServiceHandle, call: Callable[[ServiceHandle], Any]) -> None:
    assert call(embed) == TENS
    assert given_to(embed) == [9, 9, 5, 3, 3, 3]


def test_the_answers_are_of_the_kind_that_the_task_gives(embed: ServiceHandle) -> None:
    assert type(embed.pair(items=tuple(NINE))) is tuple and type(embed.embed(tuple(NINE))) is list


def test_what_fits_is_computed_at_once(embed: ServiceHandle) -> None:
    assert embed.embed([1, 2, 3, 4]) == [10, 20, 30, 40] and embed.embed([]) == []
    call = embed.embed.submit([1])
    assert call.result() == [10] and call.outcome is not None and "at_a_time" not in call.outcome.metadata
    assert given_to(embed) == [4, 0, 1]


@sized(deadline=None, max_examples=40)
@given(n=st.integers(0, 40), k=st.integers(1, 12))
def test_any_batch_in_any_memory(n: int, k: int) -> None:
    with ServiceRegistry(clock=FakeClock()) as registry, pytest.MonkeyPatch.context() as patch:
        for module in ("parts", "shortage"):  # which would look through all of torch each time
            patch.setattr(f"grym_nb.services.{module}.give_back", lambda: True)
        embed = registry.register("embed", Embed, config={"most": k, "how": "numpy"})
        assert embed.embed(list(range(n))) == [10 * i for i in range(n)]
        given = given_to(embed)
        assert sum(many for many in given if many <= k) == n, "each item is computed once"
        assert sum(many > k for many in given) <= max(0, n.bit_length()) + 1, "each failure halves it"
        assert embed.embed(list(range(n))) == [10 * i for i in range(n)]
        assert all(many <= k for many in given_to(embed)), "the next call knows"


# -- what is said of it ----------------------------------------------------------------------------


def test_it_is_said_and_written_down(embed: ServiceHandle, caplog: pytest.LogCaptureFixture) -> None:
    told = "embed.embed ran out of memory with 5 at a time: computed in parts of 3"
    call = embed.embed.submit(NINE)
    assert call.result() == TENS and call.outcome is not None
    assert call.outcome.metadata["at_a_time"] == 3
    assert "in parts of 3: out of memory" in call.outcome._repr_html_()
    assert caplog.messages == [told]
    decision = embed._record.ports.resources.decisions[-1]
    assert (decision.what, decision.owner, decision.device, decision.why) == ("parted", "embed", "cpu", told)
    embed.embed(NINE)
    assert caplog.messages == [told], "what is known already is not said again"


# -- what did fit is remembered --------------------------------------------------------------------


def test_the_next_call_begins_with_what_did_fit(embed: ServiceHandle) -> None:
    embed.embed(NINE)
    given_to(embed)
    assert embed.embed(NINE) == TENS and embed.embed(NINE[:3]) == TENS[:3]
    assert given_to(embed) == [3, 3, 3, 3]
    call = embed.embed.submit(NINE)
    assert call.result() == TENS and call.outcome is not None and call.outcome.metadata["at_a_time"] == 3
    assert embed.later(NINE) == TENS
    assert given_to(embed) == [3, 3, 3, 9, 9, 5, 3, 3, 3], "another task may take less, or more"


def test_after_a_while_all_are_tried_again(embed: ServiceHandle, clock: FakeClock) -> None:
    embed.embed(NINE)
    given_to(embed)
    with embed.use() as model:
        model.most = 100  # a neighbour has gone
    clock.advance(FITS_FOR - 1)
    assert embed.embed(NINE) == TENS and given_to(embed) == [3, 3, 3]
    clock.advance(1)
    assert embed.embed(NINE) == TENS and given_to(embed) == [9]


def test_what_was_known_of_another_config_is_forgotten(embed: ServiceHandle) -> None:
    embed.embed(NINE)
    embed.configure(most=100)
    assert embed.embed(NINE) == TENS and given_to(embed)[-1] == 9


def test_less_memory_than_was_remembered(embed: ServiceHandle) -> None:
    embed.embed(NINE)
    given_to(embed)
    with embed.use() as model:
        model.most = 1
    assert embed.embed(NINE) == TENS
    assert given_to(embed) == [3, 3, 2, *[1] * 9], "as remembered, once more, and then halves"
    assert embed.embed([1, 2]) == [10, 20] and given_to(embed) == [1, 1]


# -- what ends it ----------------------------------------------------------------------------------


def test_an_item_that_does_not_fit_alone_is_named(embed: ServiceHandle) -> None:
    def before(part: Sequence[int]) -> None:
        if 6 in part:
            raise MemoryError("Unable to allocate 9 GiB")

    with embed.use() as model:
        model.before = before
    with pytest.raises(ResourceExhausted) as refused:
        embed.embed(NINE)
    assert refused.value.message.startswith(
        "embed.embed, given only items[6] of 9, ran out of memory: Unable"
    )
    assert refused.value.details["item"] == 6 and "cpu: " in refused.value.cause
    with pytest.raises(ResourceExhausted, match=r"given only items\[0\] of 1, ran out"):
        embed.embed([6])


def test_a_task_without_a_batch_ends_as_before(embed: ServiceHandle) -> None:
    with pytest.raises(ResourceExhausted, match=r"^embed\.whole ran out of memory: CUDA"):
        embed.whole(NINE)
    assert given_to(embed) == [9, 9]
    with pytest.raises(ResourceExhausted, match=r"^embed\.loose ran out of memory: CUDA"):
        embed.loose(dict.fromkeys(NINE))
    with pytest.raises(ResourceExhausted) as told:
        embed.loose(range(9))
    assert told.value.hint.startswith("its batch is range(0, 9), which is not parted: give a list or tuple")


def test_cancelled_between_two_parts(embed: ServiceHandle) -> None:
    call = None

    def before(part: Sequence[int]) -> None:
        if part[0] == 3 and len(part) == 3:
            assert call is not None
            call.cancel()

    with embed.use() as model:
        model.before = before
        call = embed.embed.submit(NINE)
    with pytest.raises(CallCancelled):
        call.result()
    assert given_to(embed) == [9, 9, 5, 3, 3]
    assert embed.embed(NINE[:4]) == TENS[:4]


def test_a_deadline_between_two_parts(embed: ServiceHandle, clock: FakeClock) -> None:
    with embed.use() as model:
        model.before = lambda part: clock.advance(6.0 if part[0] == 3 and len(part) == 3 else 0.0)
    with pytest.raises(CallTimeout):
        embed.embed.with_(timeout=5)(NINE)
    assert given_to(embed) == [9, 9, 5, 3, 3]


def test_an_error_of_the_authors_ends_it_and_shows_the_whole_input(embed: ServiceHandle) -> None:
    def before(part: Sequence[int]) -> None:
        if part[0] == 3:
            raise ValueError("no such thing")

    with embed.use() as model:
        model.before = before
    with pytest.raises(TaskFailed, match="raised ValueError: no such thing") as failed:
        embed.embed(NINE)
    assert "input: list of 9" in failed.value.cause
    assert given_to(embed) == [9, 9, 5, 3, 3]


@pytest.mark.parametrize(("name", "told"), [("total", "gave 30 for"), ("fewer", "gave 2 answers for")])
def test_a_task_that_does_not_answer_item_by_item_is_told_what_it_declares(
    embed: ServiceHandle, name: str, told: str
) -> None:
    with pytest.raises(TaskFailed) as failed:
        embed.run(name, NINE)
    assert told in failed.value.message and "3 items of its batch" in failed.value.message
    assert '@task(batch="items") says' in failed.value.cause
    assert embed.run(name, [1]) in (10, []), "of what fits nobody asks"


# -- with others -----------------------------------------------------------------------------------


def test_calls_inside_of_calls_are_parted_where_they_run_out(driven: ServiceRegistry) -> None:
    class Outer(ModelService):
        needs = ("embed",)

        @task(batch="items")
        def twice(self, items: list[int]) -> list[int]:
            if len(items) > 5:
                raise MemoryError("Unable to allocate")
            return [2 * item for item in self.needs.embed.embed(items)]

    embed = driven.register("embed", Embed)
    outer = driven.register("outer", Outer)
    assert outer.twice(NINE) == [2 * item for item in TENS]
    assert outer.metrics().calls == 1 and embed.metrics().calls == 2
    assert given_to(embed) == [5, 5, 3, 2, 3, 1], "the second time it is known what fits"


def test_what_a_called_service_cannot_part_is_parted_by_who_called_it(driven: ServiceRegistry) -> None:
    class Outer(ModelService):
        needs = ("embed",)

        @task(batch="items")
        def each(self, items: list[int]) -> list[int]:
            return self.needs.embed.whole(items)  # type: ignore[no-any-return]

        @task
        def whole(self, items: list[int]) -> list[int]:
            return self.needs.embed.whole(items)  # type: ignore[no-any-return]

    embed = driven.register("embed", Embed)
    outer = driven.register("outer", Outer)
    assert outer.each(NINE) == TENS
    assert given_to(embed) == [9, 9, 9, 9, 5, 5, 3, 3, 3], "each tries what ran out once more"
    assert outer.each(NINE) == TENS and given_to(embed) == [3, 3, 3], "and what fits is known"
    with pytest.raises(ResourceExhausted, match=r"^embed\.whole ran out of memory"):
        outer.whole(NINE)
    assert given_to(embed) == [9, 9], "whose batch nobody can part"
    with embed.use() as model:
        model.most = 0
    with pytest.raises(
        ResourceExhausted, match=r"^outer\.each, given only items\[0\] of 9, ran out of memory"
    ):
        outer.each(NINE)


def test_a_called_service_that_cannot_be_loaded_is_no_reason_to_part_a_batch(driven: ServiceRegistry) -> None:
    loads: list[int] = []

    class Large(ModelService):
        def load(self) -> None:
            loads.append(1)
            raise MemoryError("Unable to allocate")

        @task
        def one(self, item: int) -> int:
            return item

    class Outer(ModelService):
        needs = ()

        @task(batch="items")
        def each(self, items: list[int]) -> list[int]:
            return [large.one(item) for item in items]

    large = driven.register("large", Large)
    outer = driven.register("outer", Outer)
    with pytest.raises(ResourceExhausted, match=r"^loading large ran out of memory"):
        outer.each(NINE)
    assert len(loads) == 2, "once more without the idle, and no more often"


def test_the_idle_go_before_anything_is_parted(driven: ServiceRegistry) -> None:
    class Idle(Embed):
        def load(self) -> None:
            self.weights = torch.ones(1000)

    idle = driven.register("idle", Idle).load()
    embed = driven.register("embed", Embed).load()

    def before(part: Sequence[int]) -> None:
        if idle.state == "ready":
            raise MemoryError("Unable to allocate")

    with embed.use() as model:
        model.most, model.before = 100, before
    assert embed.embed(NINE) == TENS and given_to(embed) == [9, 9]


# -- what is declared ------------------------------------------------------------------------------


def test_a_batch_that_no_parameter_is_called_is_told_with_the_closest(registry: ServiceRegistry) -> None:
    class Wrong(ModelService):
        @task(batch="clip")
        def embed(self, clips: list[int], rate: int = 1) -> list[int]:
            return clips

        @task(batch="items")
        def stream(self, items: list[int]) -> Any:
            yield from items

        @task(batch="items", replay=False)
        def send(self, items: list[int]) -> list[int]:
            return items

        @task(batch="items")
        def starred(self, *items: int) -> list[int]:
            return list(items)

    with pytest.raises(ConfigError) as refused:
        registry.register("wrong", Wrong)
    assert [str(problem) for problem in refused.value.problems] == [
        "task embed, batch: found 'clip', expected a parameter: clips, rate. Did you mean 'clips'?",
        "task stream, batch: found a generator, expected a task that returns a list: one answer per item",
        "task send, batch: found replay=False, "
        "expected a task that may be called again: parts come after all of it",
        "task starred, batch: found 'items', expected a parameter: there is none.",
    ]


@pytest.mark.parametrize("batch", ["", 3, ["items"]])
def test_a_batch_is_a_name(batch: Any) -> None:
    with pytest.raises(ConfigError, match="cannot be given a batch so"):
        task(batch=batch)


def test_to_declare_a_batch_is_a_change(registry: ServiceRegistry) -> None:
    def made(batch: str | None) -> type:
        class Same(ModelService):
            @task(batch=batch)
            def embed(self, items: list[int]) -> list[int]:
                return items

        return Same

    registry.register("same", made(None))
    assert registry.register("same", made("items")).version == "v2"
    assert registry.register("same", made("items")).version == "v2"


# -- in earnest ------------------------------------------------------------------------------------

_CHILD = """
import json, resource
import numpy as np
from grym_nb.services import ModelService, ServiceRegistry, task

MB = 1 << 20

class Spectra(ModelService):
    @task(batch="clips")
    def spectra(self, clips):
        given.append(len(clips))
        work = np.ones((len(clips), 64 * MB // 8))
        return [float(work[at].sum() * clip) for at, clip in enumerate(clips)]

given = []
with ServiceRegistry() as registry:
    spectra = registry.register("spectra", Spectra).load()
    spectra.spectra([1.0])
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + 300 * MB
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    once = spectra.spectra([float(i) for i in range(16)])
    first, given = given[1:], []
    again = spectra.spectra([float(i) for i in range(16)])
    print(json.dumps({"right": once == again == [i * 64 * MB / 8 for i in range(16)],
                      "first": first, "again": given, "calls": spectra.metrics().calls}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux's")
def test_a_process_that_may_not_have_more() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _CHILD], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    told = json.loads(ran.stdout)
    assert told["right"] and told["calls"] == 3
    assert told["first"][:3] == [16, 16, 8] and sum(told["again"]) == 16
    assert max(told["again"]) == told["first"][-1] <= 4, "each part is within what it may have"


def test_a_list_that_its_owner_changes_meanwhile_is_answered_as_it_was(registry: ServiceRegistry) -> None:
    embed = registry.register("embed", Embed, config={"most": 2})
    items = list(range(8))
    with embed.use() as model:
        model.before = lambda part: items.clear() if len(part) == 2 else None
    assert embed.embed(items) == [item * 10 for item in range(8)]


def test_what_is_cancelled_while_it_runs_out_of_memory_is_cancelled(registry: ServiceRegistry) -> None:
    embed = registry.register("embed", Embed, config={"most": 2})
    with embed.use() as model:
        model.before = lambda part: current_frame().call.cancel()
    assert isinstance(embed.embed.submit(list(range(8))).exception(10), CallCancelled)
    assert given_to(embed) == [8]


def test_what_is_cancelled_is_cancelled_also_where_it_may_not_run_twice(registry: ServiceRegistry) -> None:
    class Once(ModelService):
        @task(replay=False)
        def write(self) -> None:
            current_frame().call.cancel()
            raise MemoryError("Unable to allocate 7 GiB")

    once = registry.register("once", Once)
    assert isinstance(once.write.submit().exception(10), CallCancelled)


def test_where_a_late_call_came_from_names_all_of_its_batch(registry: ServiceRegistry) -> None:
    """Its deadline passes while it computes a part."""
    embed = registry.register("embed", Embed, config={"most": 2})
    with embed.use() as model:
        model.before = lambda part: current_frame().call.expire() if len(part) == 2 else None
    call = embed.embed.with_(timeout=60).submit(scale=3, items=list(range(4)))
    assert isinstance(call.exception(10), CallTimeout)
    assert call.outcome is not None and call.outcome.provenance is not None
    assert call.outcome.provenance.parameters["items"] == "[0, 1, 2, 3]"
