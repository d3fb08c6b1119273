"""What goes into a file comes back as it was: every kind of value, every kind of array, packed or not."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp

from grym_nb.clip import Clip
from grym_nb.context import storable
from grym_nb.context.codec import decode, encode
from grym_nb.context.packing import pack, unpack
from grym_nb.devices import Device
from grym_nb.errors import StorageError, ValidationError


class Mode(enum.IntEnum):
    MAJOR = 1


@dataclass(frozen=True, slots=True)
class Beat:
    at: float
    strength: Any = None


@dataclass
class Loose:
    a: int = 0
    made: int = field(init=False, default=7)


class Pair(NamedTuple):
    left: int
    right: str


for kept in (Mode, Loose, Pair):
    storable(kept)
storable("beat")(Beat)


def there_and_back(value: Any, *, inline: bool = False) -> Any:
    packed = pack(*encode(value, inline=inline))
    return decode(*unpack(packed.text, packed.arrays))


def same(a: Any, b: Any) -> bool:
    """Of one type and one content, NaN and the sign of zero included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(x, y) and same(a[x], b[y]) for x, y in zip(a, b, strict=True))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if is_dataclass(a):
        return all(same(getattr(a, part.name), getattr(b, part.name)) for part in fields(a))
    if isinstance(a, (float, complex)):
        return repr(a) == repr(b)
    return bool(a == b)


plain = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.complex_numbers(), st.binary(max_size=600),
        st.text(st.characters(), max_size=20), st.dates(), st.timedeltas(), st.datetimes(),
        st.datetimes(timezones=st.just(UTC)), st.builds(Beat, st.floats()), st.just(Mode.MAJOR),
        st.builds(Pair, st.integers(), st.text(max_size=3)), st.builds(Path, st.just("/a/b c")),
        st.builds(bytearray, st.binary(max_size=5)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.sampled_from(["$array", "$tuple", "a", "b"]), inner, max_size=4),
        st.dictionaries(st.one_of(st.integers(), st.text(max_size=2)), inner, max_size=3),
        st.frozensets(st.integers(), max_size=3),
        st.sets(st.text(max_size=2), max_size=3),
        st.builds(Beat, st.just(0.5), inner),
    ),
    max_leaves=12,
)  # fmt: skip


@given(plain, st.booleans())
def test_whatever_is_kept_comes_back_with_its_types(value: Any, inline: bool) -> None:
    assert same(there_and_back(value, inline=inline), value)


dtypes = st.one_of(
    stnp.scalar_dtypes(), stnp.unicode_string_dtypes(), stnp.byte_string_dtypes(), stnp.array_dtypes()
)


@given(stnp.arrays(dtypes, stnp.array_shapes(min_dims=0, min_side=0, max_side=8)), st.booleans())
def test_arrays_of_every_dtype_come_back_to_the_bit(array: np.ndarray[Any, Any], inline: bool) -> None:
    back = there_and_back(array, inline=inline)
    assert same(back, array)
    assert not back.flags.writeable


@pytest.mark.parametrize(
    "dtype", ["<f4", ">f8", "f2", "i2", "u1", "?", "c8", "M8[s]", "U3", [("a", "f4"), ("b", "i8", 3)]]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_large_arrays_that_get_smaller_come_back_to_the_bit(dtype: Any, order: Any) -> None:
    """Those whose bytes are sorted and deflated, whatever the layout; in less room than they take."""
    array = np.zeros((300, 40), dtype)
    array[10:200] = np.ones((), dtype)
    array = np.asarray(array, order=order)
    text, arrays = encode(array)
    packed = pack(text, arrays)
    assert packed.size < array.nbytes / 3 < packed.raw
    assert same(decode(*unpack(packed.text, packed.arrays)), array)


def test_what_does_not_get_smaller_is_kept_as_it_is() -> None:
    noise = np.random.default_rng(0).integers(0, 256, 100_000, np.uint8)
    packed = pack(*encode(noise))
    assert packed.arrays is not None and 100_000 < packed.size < 100_500
    sung = np.sin(np.arange(50_000) / 7).astype(np.float32)
    assert pack(*encode(sung)).size < 0.8 * sung.nbytes  # sorted by significance; deflated alone it is 0.93
    long = "la " * 10_000
    assert pack(*encode(long)).size < 1_000 and there_and_back(long) == long


@pytest.mark.parametrize(
    "value",
    [
        np.float32(1.5),
        np.int8(-3),
        np.bool_(True),
        np.str_("hé"),
        np.datetime64("2026-01-02"),
        np.complex64(1j),
    ],
)
def test_numbers_of_numpy_come_back_as_such(value: Any) -> None:
    back = there_and_back({"x": value})["x"]
    assert type(back) is type(value) and back == value


def test_a_clip_comes_back_as_a_clip() -> None:
    clip = Clip(np.random.default_rng(0).normal(size=(2, 5000)), 8000)
    back = there_and_back([clip])[0]
    assert back == clip and back.rate == 8000 and same(back.samples, clip.samples)


def test_a_dataclass_comes_back_without_its_init_and_with_what_it_gained() -> None:
    """A field that the class got since has its default; one that it lost is an error and not lost."""
    kept = Loose(3)
    kept.made = 9
    assert there_and_back(kept) == kept
    text, arrays = encode(Beat(1.0))

    @storable("beat")
    @dataclass
    class Later:
        at: float
        strength: Any
        label: str = "new"

    try:
        assert decode(text, arrays) == Later(1.0, None, "new")

        @storable("beat")
        @dataclass
        class Less:
            at: float

        with pytest.raises(StorageError, match="no field strength any more"):
            decode(text, arrays)

        @storable("beat")
        @dataclass
        class More:
            at: float
            strength: Any
            needed: int

        with pytest.raises(StorageError, match="nothing for its field needed"):
            decode(text, arrays)
    finally:
        storable("beat")(Beat)


def test_dataclasses_of_the_package_need_no_mark() -> None:
    device = Device("cpu", "cpu", 1000, None, "a processor")
    assert there_and_back({"on": device}) == {"on": device}


def test_what_a_file_cannot_hold_is_named_by_its_place_all_at_once() -> None:
    stranger = object()
    loose = Loose()
    loose.own = 1  # type: ignore[attr-defined]
    content = {
        "a": [1, {"b": stranger}], ("k", 1): lambda: 1, "objects": np.array([stranger]), "loose": loose,
        "when": datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")),
    }  # fmt: skip
    with pytest.raises(ValidationError) as caught:
        encode(content)
    assert [problem.path for problem in caught.value.problems] == [
        "content['a'][1]['b']",
        "content[('k', 1)]",
        "content['objects']",
        "content['loose'].own",
        "content['when']",
    ]


def test_a_tensor_is_refused_with_what_to_do() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(ValidationError, match="detach"):
        encode({"x": torch.zeros(2)})


def test_too_deep_is_an_error_and_not_a_crash() -> None:
    content: list[Any] = []
    for _ in range(100_000):
        content = [content]
    with pytest.raises(ValidationError, match="deep"):
        encode(content)
    while content:  # taken apart gently: Python itself may not
        content = content[0]


@pytest.mark.parametrize("cls", [int, 3, object(), type("Plain", (), {})])
def test_only_classes_made_of_parts_can_be_marked(cls: Any) -> None:
    with pytest.raises(ValidationError, match="cannot be kept in a file"):
        storable(cls)


@pytest.mark.parametrize(
    "name",
    ["nobody", "grym_nb.errors:GrymError", "grym_nb.context.codec:encode", "os:system", "grym_nb.nobody:X"],
)
def test_a_name_in_a_file_makes_nothing_but_marked_classes_and_our_dataclasses(name: str) -> None:
    """What is read runs nothing: neither by pickle nor by the name of something else."""
    with pytest.raises(StorageError, match="no such class"):
        decode(json.dumps({"$object": [name, {}]}), ())


def test_zones_that_are_offsets_are_kept() -> None:
    when = datetime(2026, 1, 1, 3, tzinfo=timezone(timedelta(hours=2)), fold=1)
    back = there_and_back(when)
    assert back == when and back.utcoffset() == when.utcoffset() and back.fold == 1
    assert there_and_back(date(2026, 2, 3)) == date(2026, 2, 3)


@pytest.mark.parametrize(
    "path", [PureWindowsPath("C:\\a\\b"), PurePosixPath("/a/b"), Path("a/b"), Path("/a")]
)
def test_a_path_comes_back_as_the_kind_that_it_was(path: PurePath) -> None:
    found = decode(*encode(path))
    assert found == path and type(found) is type(path)
