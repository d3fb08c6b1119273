"""One tree of errors: three lines at most, a stable code, and no live frame that outlasts its moment."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_nb import errors
from grym_nb.errors import (
    CallTimeout,
    ConfigError,
    GrymError,
    Interrupted,
    LoadFailed,
    MissingExtra,
    Problem,
    ServiceNotFound,
    StorageError,
    TaskFailed,
    TaskNotFound,
    UnknownName,
    ValidationError,
    closest,
    says_what_it_takes,
)


def tree(kind: type[BaseException] = GrymError) -> Iterator[type[BaseException]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


TREE = sorted(set(tree()), key=lambda kind: kind.__name__)


def test_the_tree_at_the_top_of_the_file_is_the_tree() -> None:
    drawn: dict[str, str] = {}
    above = [""]
    for line in re.findall(r"^    (\w+|[ │]*[├└]── \w+)", errors.__doc__ or "", re.MULTILINE):
        *branches, name = line.replace("──", "").split()
        depth = line.index(name) // 4
        above[depth:] = [name]
        if branches:
            drawn[name] = above[depth - 1]
    kinds = [*TREE, Interrupted]
    roots = [Exception, KeyboardInterrupt, *kinds]
    assert drawn == {k.__name__: next(c for c in k.__mro__[1:] if c in roots).__name__ for k in kinds}
    assert drawn.keys() <= set(errors.__all__)


def test_codes_are_told_apart() -> None:
    codes = [kind.code for kind in TREE if issubclass(kind, GrymError)]
    assert sorted(set(codes)) == sorted(codes)


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (ServiceNotFound, KeyError),
        (TaskNotFound, AttributeError),
        (CallTimeout, TimeoutError),
        (ValidationError, ValueError),
        (StorageError, OSError),
        (MissingExtra, ImportError),
        (Interrupted, KeyboardInterrupt),
    ],
)
def test_an_error_is_also_what_python_would_raise(
    kind: type[BaseException], builtin: type[BaseException]
) -> None:
    with pytest.raises(builtin):
        raise kind("it went wrong")


def test_ctrl_c_is_not_swallowed_by_except_exception() -> None:
    assert not issubclass(Interrupted, (GrymError, Exception))


@pytest.mark.parametrize("kind", [*TREE, Interrupted], ids=lambda kind: kind.__name__)
def test_every_error_tells_its_message_and_hint_and_survives_copying_and_pickling(
    kind: type[GrymError],
) -> None:
    error = kind("it went wrong", hint="try again")
    twin = pickle.loads(pickle.dumps(error))
    assert str(error) == "it went wrong\n→ try again"
    for other in (twin, copy.copy(error)):
        assert (type(other), str(other), other.__dict__) == (kind, str(error), error.__dict__)


def test_a_storage_error_is_not_taken_apart_into_an_errno() -> None:
    error = StorageError("the store is full", cause="No space left on device", path="/tmp/x")
    assert (type(error), error.args, error.details) == (
        StorageError,
        ("the store is full",),
        {"path": "/tmp/x"},
    )
    assert str(error) == "the store is full\n  No space left on device"


def test_the_advice_stands_in_for_a_hint_unless_one_is_given() -> None:
    assert LoadFailed("x").hint == LoadFailed.advice != ""
    assert (LoadFailed("x", hint="").lines(), LoadFailed("x", hint="do it").hint) == (["x"], "do it")


@given(st.text(), st.text(), st.text())
def test_an_error_is_at_most_three_short_lines(message: str, cause: str, hint: str) -> None:
    error = GrymError(message, cause=cause, hint=hint)
    lines = error.lines()
    assert 1 <= len(lines) <= 3
    assert all("\n" not in line and len(line) <= 245 for line in lines)
    assert str(error).count("\n") == len(lines) - 1


def test_a_notebook_shows_the_name_and_the_three_lines() -> None:
    shown = GrymError("it went wrong", cause="because", hint="try again")._render_traceback_()
    assert shown == ["\x1b[31mGrymError\x1b[0m: it went wrong", "  because", "→ try again"]
    assert Interrupted("stopped at 3 of 5")._render_traceback_() == [
        "\x1b[31mInterrupted\x1b[0m: stopped at 3 of 5",
        "→ run it again when you want it after all",
    ]


def test_details_service_and_task_are_kept_for_programs() -> None:
    error = TaskFailed("x", service="a", task="b", shape=(1, 2))
    assert (error.service, error.task, error.details) == ("a", "b", {"shape": (1, 2)})
    assert (TaskFailed.code, TaskFailed.can_change, GrymError.can_change) == ("task.failed", True, False)


def test_every_problem_is_told_unless_a_cause_is_given() -> None:
    problems = [Problem("rate", "'fast'", "a number"), Problem("n", "-1", "0 or more")]
    error = ConfigError("it does not fit", problems=problems)
    assert error.problems == tuple(problems)
    assert error.cause == "rate: found 'fast', expected a number; n: found -1, expected 0 or more"
    assert ConfigError("x", problems=problems, cause="mine").cause == "mine"
    assert pickle.loads(pickle.dumps(error)).problems == error.problems


def test_another_waiter_gets_an_equal_error_without_a_traceback() -> None:
    try:
        try:
            raise ZeroDivisionError
        except ZeroDivisionError as cause:
            raise TaskFailed("x", service="a") from cause
    except TaskFailed as error:
        again = error.again()
        assert error.__traceback__ is not None
        assert (again.__traceback__, again.__cause__, again.__context__) == (None, None, None)
        assert (type(again), again is error, again.__dict__) == (TaskFailed, False, error.__dict__)


def test_a_missing_extra_names_the_line_that_installs_it() -> None:
    error = MissingExtra.of("torch", extra="audio", purpose="wav2vec2")
    assert error.lines() == [
        "wav2vec2 needs torch, which is not installed",
        '→ pip install "grym-nb[audio]"',
    ]
    assert error.details == {"package": "torch", "extra": "audio"}


@pytest.mark.parametrize(
    ("name", "known", "told"),
    [
        ("loudnes", ["loudness", "tempo"], " Did you mean 'loudness'?"),
        ("xyz", ["loudness"], ""),
        ("xyz", [], ""),
    ],
)
def test_the_closest_name_is_offered_when_one_is_near(name: str, known: list[str], told: str) -> None:
    assert closest(name, known) == told


class TestSaysWhatItTakes:
    def test_what_does_not_bind_is_told_with_what_would(self) -> None:
        @says_what_it_takes
        def scale(x: int, *, times: int = 2) -> int:
            """Doc."""
            return x * times

        assert scale(3) == 6 and scale.__doc__ == "Doc."
        with pytest.raises(ValidationError) as caught:
            scale(3, timse=1)  # type: ignore[call-arg]
        assert caught.value.lines() == [
            "TestSaysWhatItTakes.test_what_does_not_bind_is_told_with_what_would.<locals>.scale "
            "got an unexpected keyword argument 'timse'. Did you mean 'times'?",
            "→ it takes (x, *, times=2)",
        ]

    def test_a_type_error_from_within_stays_as_it_is(self) -> None:
        @says_what_it_takes
        def add(x: object) -> object:
            return x + 1  # type: ignore[operator]

        with pytest.raises(TypeError, match="NoneType"):
            add(None)

    def test_a_class_is_told_by_its_name(self) -> None:
        @says_what_it_takes
        class Box:
            def __init__(self, size: int) -> None:
                self.size = size

        assert Box(3).size == 3 and isinstance(Box(3), Box)
        with pytest.raises(ValidationError, match=r"Box missing 1 required positional argument: 'size'"):
            Box()  # type: ignore[call-arg]


def test_an_unknown_name_is_an_attribute_error() -> None:
    import grym_nb

    assert not hasattr(grym_nb, "regster")
    with pytest.raises(UnknownName, match=r"grym_nb has no 'regster'. Did you mean 'register'\?") as caught:
        grym_nb.regster  # type: ignore[attr-defined]  # noqa: B018
    assert isinstance(caught.value, AttributeError) and "register" in caught.value.hint
