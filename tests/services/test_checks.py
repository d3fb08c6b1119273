"""Validation declared on signatures: every problem at once, and none where Python itself sees none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from fractions import Fraction
from typing import Annotated, Any, Literal, Optional, Union

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_nb.clip import Clip
from grym_nb.errors import ConfigError
from grym_nb.services import not_empty, one_of, positive, within
from grym_nb.services.checks import Check, Checker


def wrong(function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[str]:
    """Return what is wrong with a call of `function`, in words."""
    return [str(problem) for problem in Checker(function).problems(args, kwargs)]


def taking(annotation: Any) -> Callable[..., Any]:
    """Return a function of one argument with that annotation."""

    def function(x: Any) -> None: ...

    function.__annotations__["x"] = annotation
    return function


# -- what a type lets in ---------------------------------------------------------------------------

NUMBERS = [1, 1.5, Fraction(1, 3), np.float32(1.5), np.float64(1.5), np.float16(1), np.int64(1), float("nan")]
WHOLE = [1, -1, 10**30, np.int16(1), np.uint8(1)]
TEXT = ["", "x", np.str_("x")]
BOOLS = [True, False, np.bool_(True)]
OTHERS = [None, b"x", [1], {1: 2}, object(), 1j, np.zeros(3)]

PASSES = [
    (float, NUMBERS + WHOLE, BOOLS + TEXT + OTHERS),
    (int, WHOLE, [1.0, 1.5, np.float32(1), Fraction(1, 2), *BOOLS, *TEXT, *OTHERS]),
    (bool, BOOLS, [0, 1, 1.0, "True", None]),
    (str, TEXT, [1, None, b"x", ["x"]]),
    (bytes, [b"", bytearray(b"x"), memoryview(b"x")], ["x", 1, [1]]),
    (None, [None], [0, "", False]),
    (type(None), [None], [0, "", False]),
    (list, [[], [1, "x"]], [(), "x", {1: 2}, np.zeros(2), None]),
    (list[int], [[], ["not looked into"]], [(1,), None]),
    (tuple[int, ...], [(), (1,)], [[1]]),
    (dict[str, int], [{}, {"a": 1}], [[("a", 1)], None]),
    (set, [set()], [frozenset(), [], {}]),
    (frozenset[int], [frozenset()], [set()]),
    (Literal["wav", "flac"], ["wav", "flac"], ["mp3", None, 1, ["wav"], np.zeros(3)]),
    (Optional[float], [None, 1, 2.5], ["x", True]),  # noqa: UP045
    (float | None, [None, 1, 2.5], ["x", True]),
    (Union[int, str], [1, "x"], [1.5, None, True]),  # noqa: UP007
    (list[int] | Literal["all"], [[1], "all"], ["none", 1, (1,)]),
    (np.ndarray, [np.zeros(3)], [[1.0], 1.0, None]),
    (Clip, [Clip(np.zeros(8), 8)], [np.zeros(8), None]),
    (Annotated[float, within(0, 2)], [0, 2, 1.5, np.float32(1)], [-0.1, 2.1, "x", True, float("nan"), None]),
    (Annotated[int, positive()], [1, np.int8(1)], [0, -1, 1.5]),
    (Annotated[str, not_empty()], ["x"], ["", 1, ["x"]]),
    (Annotated[Any, not_empty()], ["x", [1], np.zeros(2)], ["", [], 3, np.zeros(0)]),
    (Annotated[float | None, within(0, 1)], [0.5], [2.0, None]),
    (Annotated[float, within(0, 1)] | None, [0.5, None], [2.0, "x"]),
    (Annotated[float, "a word that is no check"], [1.0], ["x"]),
]


@pytest.mark.parametrize("annotation, good, bad", PASSES, ids=[str(row[0]) for row in PASSES])
def test_a_type_lets_in_what_it_means_and_nothing_else(
    annotation: Any, good: list[Any], bad: list[Any]
) -> None:
    """Numpy numbers are numbers, a bool is none, and containers are not looked into."""
    function = taking(annotation)
    assert [value for value in good if wrong(function, value)] == []
    assert [value for value in bad if not wrong(function, value)] == []


class Own:
    """A user's class."""


NOT_JUDGED = [Any, object, Own, "Own", Callable[[int], int], type, list["Own"] | Own, 3, [1], Own | None]


@pytest.mark.parametrize("annotation", NOT_JUDGED, ids=str)
def test_what_says_nothing_to_us_is_not_judged(annotation: Any) -> None:
    """Users' own classes (and unions with them), protocols, things that are no types."""
    for value in (None, 1, "x", Own(), np.zeros(3)):
        assert wrong(taking(annotation), value) == []


@pytest.mark.parametrize("name", ["float", "Annotated[float, within(0, 1)]", "float | None"])
def test_postponed_annotations_count_too(name: str) -> None:
    """As does every annotation in this file."""
    space: dict[str, Any] = {}
    code = f"from __future__ import annotations\ndef f(x: {name}): ..."
    exec(code, {"Annotated": Annotated, "within": within}, space)
    f = space["f"]
    f.__globals__.update(Annotated=Annotated, within=within)
    assert isinstance(f.__annotations__["x"], str)
    assert (wrong(f, 0.5), len(wrong(f, "x"))) == ([], 1)


def test_an_annotation_that_cannot_be_resolved_takes_nothing_else_with_it() -> None:
    """A name that only a type checker sees leaves the call as Python would make it."""

    def f(x: NotThere, y: float = 1.0) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert (wrong(f, object(), 2.0), wrong(f)) == (
        [],
        ["x: found nothing, expected a value: it has no default"],
    )


def test_a_class_is_known_by_its_name_after_it_was_redefined() -> None:
    """A reload makes a new `Clip`; clips made before it are clips still, and strangers are not."""
    module = {"__name__": Clip.__module__}
    exec("class Clip:\n    pass\nclass Part(Clip):\n    pass\nclass Clap:\n    pass", module)
    accepts = taking(Clip)
    assert wrong(accepts, module["Clip"]()) == []
    assert wrong(accepts, module["Part"]()) == []
    assert [text.split(", ")[-2] for text in wrong(accepts, module["Clap"]())] == ["expected a Clip"]


def test_a_check_without_its_parentheses_is_the_check() -> None:
    """Nothing else can be meant by `positive`; `within` has to say what."""

    def f(x: Annotated[int, positive], y: Annotated[str, not_empty] = "y") -> None: ...

    assert wrong(f, -1, "") == [
        "x: found -1, expected a number above 0",
        "y: found '', expected something that is not empty",
    ]

    def g(x: Annotated[int, within]) -> None: ...

    with pytest.raises(ConfigError, match="within says not what it checks"):
        Checker(g)


def test_a_signature_shows_checks_in_words() -> None:
    """And not as objects with addresses."""

    def f(x: Annotated[float, within(0, 2)], y: Annotated[int, "a note"] = 1) -> None: ...

    f.__annotations__ = {"x": Annotated[float, within(0, 2)], "y": Annotated[int, "a note"]}
    assert Checker(f).signature == "(x: float (a number from 0 to 2), y: int = 1)"


def test_a_secret_of_an_unknown_name_is_not_shown() -> None:
    """Least of all where its name is told as a wrong one."""

    def f() -> None: ...

    [told] = wrong(f, api_token="LEAK")
    assert told.startswith("api_token: found '***', expected no such argument")


# -- what is said ----------------------------------------------------------------------------------


def scale(
    clip: Clip, gain: Annotated[float, within(0, 2)] = 1.0, *, mode: Literal["a", "b"], n: int = 1
) -> None:
    """A task's method as authors write it."""


CLIP = Clip(np.zeros(8), 8)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    """A value of the wrong type, one out of range, an unknown name and a missing one, in one go."""
    assert wrong(scale, "x.wav", 3.5, n=1.5, loud=True) == [
        "loud: found True, expected no such argument; there are: clip, gain, mode, n",
        "mode: found nothing, expected a value: it has no default",
        "clip: found 'x.wav', expected a Clip, such as grym.Clip.read(path)",
        "gain: found 3.5, expected a number from 0 to 2",
        "n: found 1.5, expected a whole number",
    ]


def test_too_many_and_duplicate_arguments_are_each_named() -> None:
    """By name where there is one, by their number where there is none."""
    assert wrong(scale, CLIP, 1.0, "a", 4, mode="a") == ["arguments: found 4 positional, expected at most 2"]
    assert wrong(scale, CLIP, 1.0, gain=2.0, mode="a") == [
        "gain: found a value by position and one by name, expected one of them"
    ]


def test_a_required_keyword_is_asked_for_even_when_the_positions_fit() -> None:
    """The short way for plain positional calls is closed then."""
    assert wrong(scale, CLIP) == ["mode: found nothing, expected a value: it has no default"]
    assert wrong(scale, CLIP, mode="b") == []


def test_an_argument_that_is_only_positional_cannot_be_named() -> None:
    """That is said once; and `**kwargs` may take the name for something else."""

    def only(x: int, /, y: int = 2) -> None: ...
    def open_(x: int, /, **kw: Any) -> None: ...

    assert wrong(only, x=1) == ["x: found a value by name, expected a value by position"]
    assert wrong(only, 1, x=1) == ["x: found a value by name, expected a value by position"]
    assert wrong(only, 1, y=2) == []
    assert wrong(open_, 1, x=2) == []
    assert wrong(open_, x=2) == ["x: found nothing, expected a value: it has no default"]


def test_star_arguments_take_the_rest_and_are_not_judged() -> None:
    """What is named before them still is."""

    def f(x: int, *rest: int, y: float = 1.0, **more: str) -> None: ...

    assert wrong(f, 1, "any", None, z=object()) == []
    assert wrong(f, "x", "any", y="y", z=1) == [
        "x: found 'x', expected a whole number",
        "y: found 'y', expected a number",
    ]


def test_defaults_are_not_judged_but_what_is_given_is() -> None:
    """A sentinel of the author's own is fine as a default."""

    def f(x: float = None, y: int = "many") -> None: ...  # type: ignore[assignment]  # noqa: RUF013

    assert wrong(f) == []
    assert wrong(f, "x", "y") == ["x: found 'x', expected a number", "y: found 'y', expected a whole number"]


def test_a_value_equal_to_its_own_default_passes() -> None:
    """`gain: float = None` is how people write an optional number: saying None aloud changes nothing."""

    def f(x: float = None, y: int = 2) -> None: ...  # type: ignore[assignment]  # noqa: RUF013

    assert wrong(f, None) == wrong(f, x=None, y=2) == []


def test_only_the_first_failing_check_of_an_argument_is_told() -> None:
    """A word is not also out of range."""

    def f(x: Annotated[float, within(0, 1), positive()]) -> None: ...

    assert wrong(f, "x") == ["x: found 'x', expected a number"]
    assert wrong(f, -1) == ["x: found -1, expected a number from 0 to 1"]
    assert wrong(f, 0) == ["x: found 0, expected a number above 0"]


def test_a_secret_that_does_not_fit_is_not_shown() -> None:
    """Neither itself, nor what is inside something else."""

    def f(api_key: int, options: int, plain: int) -> None: ...

    told = wrong(f, "sk-1", {"token": "sk-2"}, "shown")
    assert [text.split(":")[0] for text in told] == ["api_key", "options", "plain"]
    assert "sk-" not in "".join(told) and "shown" in told[-1]


def test_a_check_that_raises_counts_as_not_passed() -> None:
    """Whatever it raises, and whatever it is asked about."""

    def fail(value: Any) -> bool:
        raise RuntimeError(value)

    class Hostile:
        def __le__(self, other: object) -> bool:
            raise ValueError("do not compare me")

        __ge__ = __eq__ = __gt__ = __lt__ = __le__
        __hash__ = None  # type: ignore[assignment]

        def __len__(self) -> int:
            raise ValueError("nor this")

        def __repr__(self) -> str:
            raise ValueError("nor that")

    assert wrong(taking(Annotated[Any, Check("anything at all", fail)]), 1) == [
        "x: found 1, expected anything at all"
    ]
    for check in (within(0, 1), positive(), one_of(1, 2), not_empty()):
        problems = wrong(taking(Annotated[Any, check]), Hostile())
        assert problems == [f"x: found <Hostile, its repr raised ValueError>, expected {check.expected}"]


def test_an_array_answer_is_no_answer() -> None:
    """`0 <= array <= 2` is not one truth value, so it is not passed."""
    assert wrong(taking(Annotated[Any, within(0, 2)]), np.ones(3)) == [
        "x: found ndarray float64 (3,), expected a number from 0 to 2"
    ]


def test_a_check_is_frozen_and_says_what_it_expects() -> None:
    """It is shared by every call."""
    check = within(0, 2)
    with pytest.raises(FrozenInstanceError):
        check.expected = "nothing"  # type: ignore[misc]
    assert [c.expected for c in (within(-1, 0.5), positive(), one_of("a", 1), not_empty())] == [
        "a number from -1 to 0.5",
        "a number above 0",
        "one of 'a', 1",
        "something that is not empty",
    ]


def test_a_checker_says_what_it_takes() -> None:
    """Names, defaults and the signature as text, the instance left out."""

    def method(
        self: Any, clip: Any, gain: float = 1.0, *rest: Any, mode: str = "a", **more: Any
    ) -> float: ...

    checker = Checker(method, method=True)
    assert checker.names == ("clip", "gain", "mode")
    assert checker.defaults() == {"gain": 1.0, "mode": "a"}
    assert checker.missing({"gain": 2}) == ["clip"]
    assert checker.signature == (
        "(clip: Any, gain: float = 1.0, *rest: Any, mode: str = 'a', **more: Any) -> float"
    )


# -- beside Python's own binding -------------------------------------------------------------------

NAMES = "abcde"


@st.composite
def signatures(draw: st.DrawFn) -> str:
    """Return the parameters of a function, as text, of every kind and in every legal order."""
    counts = [draw(st.integers(0, 2)) for _ in range(3)]
    names = iter(NAMES + "f")
    before, middle, after = ([next(names) for _ in range(n)] for n in counts)
    # Once one positional parameter has a default, all later ones have.
    first_default = draw(st.integers(0, len(before) + len(middle)))
    places = [f"{n}=0" if i >= first_default else n for i, n in enumerate([*before, *middle])]
    parts = places[: len(before)] + (["/"] if before else []) + places[len(before) :]
    if draw(st.booleans()):
        parts.append("*args")
    elif after:
        parts.append("*")
    parts += [f"{n}=0" if draw(st.booleans()) else n for n in after]
    if draw(st.booleans()):
        parts.append("**kwargs")
    return ", ".join(parts)


@given(
    signature=signatures(),
    args=st.lists(st.integers(), max_size=6),
    kwargs=st.dictionaries(st.sampled_from([*NAMES, "f", "z"]), st.integers(), max_size=5),
)
def test_there_is_a_problem_exactly_when_python_cannot_bind(
    signature: str, args: list[int], kwargs: dict[str, int]
) -> None:
    """For any signature without annotations, and any arguments."""
    function = eval(f"lambda {signature}: None")
    try:
        function(*args, **kwargs)
        binds = True
    except TypeError:
        binds = False
    assert (wrong(function, *args, **kwargs) == []) == binds


@given(
    signature=signatures(),
    args=st.lists(st.integers(), max_size=6),
    kwargs=st.dictionaries(st.sampled_from([*NAMES, "f", "z"]), st.integers(), max_size=5),
)
def test_a_method_is_bound_as_the_function_without_its_instance(
    signature: str, args: list[int], kwargs: dict[str, int]
) -> None:
    """`self` is left out and everything else is as it was."""
    # As a positional-only instance wherever the rest begins with one.
    first = "self, " if signature else "self"
    method = eval(f"lambda {first}{signature}: None")
    function = eval(f"lambda {signature}: None")
    found = Checker(method, method=True).problems(tuple(args), kwargs)
    assert found == Checker(function).problems(tuple(args), kwargs)
