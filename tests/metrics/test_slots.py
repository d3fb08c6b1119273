"""Slots keep what was put in, whatever its size, and let go of the oldest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from grym_nb.metrics.slots import BucketSlots, NumberSlots, Timeline

#: buckets from those of the lowest values to those of the highest, and counts that need one byte to eight
parts = st.tuples(
    st.floats(0, 1e9),
    st.dictionaries(st.integers(-40_000, 40_000) | st.just(-(10**6)), st.integers(1, 2**63), max_size=20),
)


@given(st.lists(parts, max_size=40), st.integers(0, 45))
def test_buckets_come_out_as_they_went_in(given: list[tuple[float, dict[int, int]]], number: int) -> None:
    slots = BucketSlots()
    for at, part in enumerate(given):
        slots.add(at, part)
    assert list(slots) == list(enumerate(given))
    assert list(slots.after(number)) == list(enumerate(given))[number:]


def test_a_slot_of_few_values_takes_few_bytes() -> None:
    slots = BucketSlots()
    for at in range(1000):
        slots.add(at, (1.0, dict.fromkeys(range(30), 1)))
    columns = (slots._numbers, slots._totals, slots._sizes, slots._firsts, slots._steps, slots._counts)
    assert sum(column.itemsize * len(column) for column in columns) == 1000 * (16 + 30 * 2)


def test_the_oldest_slots_go() -> None:
    buckets, numbers = BucketSlots(), NumberSlots(2)
    for at in range(1000):
        buckets.add(at, (float(at), {at: 1, -at - 1: at + 1}), at - 10)
        numbers.add(at, (float(at), -float(at)), at - 10)
    kept = list(buckets)
    assert len(kept) == 11 and kept[-1] == (999, (999.0, {999: 1, -1000: 1000}))
    assert [number for number, _ in numbers] == [988, *(number for number, _ in kept)], "what it was before"


def test_numbers_come_with_the_last_slot_before() -> None:
    slots = NumberSlots(1)
    for at in (2, 5, 9):
        slots.add(at, (at / 2,))
    assert list(slots.after(6)) == [(5, (2.5,)), (9, (4.5,))]
    assert list(slots.after(0)) == list(slots)
    assert list(slots.after(99)) == [(9, (4.5,))]


def test_a_timeline_numbers_its_slots() -> None:
    line = Timeline(5.0, 3, 100.0)
    assert (line.open, line.after(0.0), line.after(200.0)) == (
        0,
        (0, line.since(0)[1]),
        (0, line.since(0)[1]),
    )
    assert not line.is_over(100.0, 200.0)  # nothing was seen in it yet
    for end in range(104, 304, 5):
        assert line.is_over(float(end), end + 1.0) and not line.is_over(end - 1.0, float(end))
        line.close(float(end))
    assert line.open == 40 and line.reaches(299.0) and not line.reaches(99.0)
    number, times = line.after(290.0)
    assert (number, list(times)) == (38, [289.0, 294.0, 299.0])
    assert [list(line.since(at)[1]) for at in (39, 40, 99)] == [[294.0, 299.0], [299.0], [299.0]]
    assert line.since(0)[0] == 40 - len(line.since(0)[1]) + 1
