"""`map` calls a task for each item, in order, with progress, and goes on where an earlier run stopped."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grym_nb.errors import (
    Interrupted,
    LoadFailed,
    ServiceClosed,
    StorageError,
    TaskFailed,
    TaskNotFound,
    ValidationError,
)
from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, task
from grym_nb.services.progress import Progress, on_progress
from tests.services.crowd import Gates, Overlap, outcome, start, until


@dataclass(frozen=True)
class Point:
    x: float
    y: float


class Scene:
    """What the mapped service did, seen from outside of it."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.bad: set[Any] = set()
        self.stop_at: Any = None
        self.overlap = Overlap()
        self.gates = Gates()


scene = Scene()


class Work(ModelService):
    @task
    def square(self, x: int, *, plus: int = 0) -> int:
        with scene.overlap:
            if x in scene.bad:
                raise ValueError(f"{x} is bad")
            if x == scene.stop_at:
                raise KeyboardInterrupt
            scene.done.append(x)
            return x * x + plus

    @task
    def held(self, x: int) -> int:
        scene.gates.tell(f"begun {x}")
        scene.gates.wait("on")
        return x

    @task
    def point(self, x: float) -> Point:
        return Point(x, -x)

    @task
    def strange(self, x: int) -> Any:
        return object()

    @task
    def squares(self, xs: list[int]) -> Any:
        return list(self_handle().map("square", xs))


_handle: ServiceHandle | None = None


def self_handle() -> ServiceHandle:
    assert _handle is not None
    return _handle


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    global scene
    scene = Scene()
    yield
    scene.gates["on"].set()


@pytest.fixture
def work(registry: ServiceRegistry) -> ServiceHandle:
    global _handle
    _handle = registry.register("work", Work)
    return _handle


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line]


class TestResults:
    def test_they_come_in_the_order_of_the_items(self, work: ServiceHandle) -> None:
        mapped = work.map("square", range(20))
        assert mapped == [x * x for x in range(20)] and scene.done == list(range(20))
        assert mapped.failed == {} and mapped.line == "work.square: 20 ok"
        assert work.status().calls == 20

    def test_keywords_go_to_every_call(self, work: ServiceHandle) -> None:
        assert work.map("square", [1, 2], plus=10) == [11, 14]

    def test_a_task_is_named_by_method_or_type_and_an_unknown_one_refused(self, work: ServiceHandle) -> None:
        assert work.map("square", []) == [] and work.map("square", []).line == "work.square: 0 ok"
        with pytest.raises(TaskNotFound):
            work.map("cube", [1])
        with pytest.raises(ValidationError, match="'keep' or 'raise'"):
            work.map("square", [1], errors="ignore")

    def test_slots_are_used_and_no_more(self, registry: ServiceRegistry) -> None:
        inside = threading.Barrier(3)

        class Meet(ModelService):
            @task
            def meet(self, x: int) -> int:
                inside.wait(10)
                return x

        handle = registry.register("meet", Meet, concurrency=3)
        assert handle.map("meet", range(9)) == list(range(9))

    def test_an_endless_source_is_read_only_as_far_as_needed(self, work: ServiceHandle) -> None:
        taken: list[int] = []

        def source() -> Iterator[int]:
            for x in range(1000):
                taken.append(x)
                yield x

        mapping = start(lambda: work.map("held", source()))
        scene.gates.wait("begun 0")
        until(lambda: work.status().waiting == 1)
        assert len(taken) <= 3
        scene.gates["on"].set()
        assert outcome(mapping) == list(range(1000))

    def test_a_source_that_raises_ends_it_and_leaves_nothing_running(self, work: ServiceHandle) -> None:
        def source() -> Iterator[int]:
            yield from (1, 2)
            raise OSError("disk gone")

        with pytest.raises(OSError, match="disk gone"):
            work.map("square", source())
        until(lambda: not work.status().running and not work.status().waiting)
        assert work.square(3) == 9

    def test_over_its_own_service_inside_a_task_it_ends(self, work: ServiceHandle) -> None:
        assert outcome(start(work.squares, [1, 2, 3, 4, 5])) == [1, 4, 9, 16, 25]
        assert scene.overlap.most == 1

    def test_the_first_item_loads_and_a_failing_load_fails_each(self, registry: ServiceRegistry) -> None:
        class Bad(ModelService):
            def load(self) -> None:
                raise OSError("no weights")

            @task
            def ask(self, x: int) -> int:
                return x

        mapped = registry.register("bad", Bad).map("ask", [1, 2])
        assert mapped == [None, None]
        assert {type(error) for error in mapped.failed.values()} == {LoadFailed}

    def test_it_shows_itself_in_few_lines(self, work: ServiceHandle) -> None:
        scene.bad = {3}
        mapped = work.map("square", [*range(40), "<b>"])
        text, html = repr(mapped), mapped._repr_html_()
        assert "work.square: 39 ok, 2 failed" in text and "21 more" in text and len(text.splitlines()) < 30
        assert "<b>" not in html and "<table" in html


class TestErrors:
    def test_failed_items_are_none_and_explained(self, work: ServiceHandle) -> None:
        scene.bad = {2, 4}
        mapped = work.map("square", range(6))
        assert mapped == [0, 1, None, 9, None, 25] and list(mapped.failed) == [2, 4]
        assert all(isinstance(error, TaskFailed) for error in mapped.failed.values())
        assert all(error.__traceback__ is None for error in mapped.failed.values())
        assert mapped.line == "work.square: 4 ok, 2 failed"

    def test_wrong_arguments_fail_their_item_only(self, work: ServiceHandle) -> None:
        mapped = work.map("square", [1, "two", 3])
        assert mapped == [1, None, 9] and isinstance(mapped.failed[1], ValidationError)

    def test_raise_stops_at_the_first_and_cancels_what_waits(self, work: ServiceHandle) -> None:
        scene.bad = {2}
        with pytest.raises(TaskFailed, match="2 is bad"):
            work.map("square", range(1000), errors="raise")
        until(lambda: not work.status().running and not work.status().waiting)
        assert 3 <= len(scene.done) + 1 <= 6 and work.square(3) == 9

    def test_a_service_that_is_removed_on_the_way_fails_the_rest(
        self, registry: ServiceRegistry, work: ServiceHandle
    ) -> None:
        def source() -> Iterator[int]:
            yield 1
            registry.remove("work")
            yield 2

        work.load()
        mapped = work.map("square", source())
        assert mapped == [1, None] and isinstance(mapped.failed[1], ServiceClosed)


class TestFile:
    def test_every_result_is_a_line_as_soon_as_it_is_there(self, work: ServiceHandle, tmp_path: Path) -> None:
        path = tmp_path / "out.jsonl"
        seen: list[int] = []

        def source() -> Iterator[int]:
            for x in range(5):
                seen.append(len(lines(path)))
                yield x

        work.map("square", source(), save=path)
        assert [entry["result"] for entry in lines(path)] == [0, 1, 4, 9, 16]
        assert seen[-1] >= 2

    def test_a_second_run_computes_nothing_again(self, work: ServiceHandle, tmp_path: Path) -> None:
        path = tmp_path / "out.jsonl"
        first = work.map("square", [3, 1, 2], save=str(path))
        text = path.read_text()
        again = work.map("square", [3, 1, 2], save=str(path))
        assert again == first and again.resumed == 3 and scene.done == [3, 1, 2]
        assert path.read_text() == text and "3 from the file" in again.line

    def test_an_interrupted_run_goes_on_where_it_stopped(self, work: ServiceHandle, tmp_path: Path) -> None:
        path = tmp_path / "out.jsonl"
        scene.stop_at = 6
        with pytest.raises(KeyboardInterrupt):
            work.map("square", range(10), save=path)
        done = len(lines(path))
        assert 3 <= done <= 7 and work.state == "ready"  # what ended meanwhile is kept, too
        scene.stop_at = None
        mapped = work.map("square", range(10), save=path)
        assert mapped == [x * x for x in range(10)] and mapped.resumed == done
        assert len(lines(path)) == 10

    def test_failed_items_are_written_and_tried_again(self, work: ServiceHandle, tmp_path: Path) -> None:
        path = tmp_path / "out.jsonl"
        scene.bad = {2}
        work.map("square", range(4), save=path)
        assert [entry["ok"] for entry in lines(path)] == [True, True, False, True]
        assert "2 is bad" in lines(path)[2]["error"]
        scene.bad = set()
        mapped = work.map("square", range(4), save=path)
        assert mapped == [0, 1, 4, 9] and mapped.resumed == 3 and scene.done == [0, 1, 3, 2]

    def test_a_half_written_last_line_is_computed_again(self, work: ServiceHandle, tmp_path: Path) -> None:
        path = tmp_path / "out.jsonl"
        work.map("square", [1, 2, 3], save=path)
        whole = path.read_text()
        path.write_text(whole[:-9])
        mapped = work.map("square", [1, 2, 3], save=path)
        assert mapped == [1, 4, 9] and mapped.resumed == 2
        assert work.map("square", [1, 2, 3], save=path).resumed == 3

    @settings(max_examples=25, deadline=None)
    @given(cut=st.integers(8, 400), rest=st.binary(max_size=6))
    def test_whatever_a_crash_left_in_the_file_the_results_are_right(self, cut: int, rest: bytes) -> None:
        import tempfile

        with tempfile.TemporaryDirectory() as folder, ServiceRegistry() as registry:
            handle = registry.register("work", Work)
            path = Path(folder) / "out.jsonl"
            handle.map("square", range(5), save=path)
            path.write_bytes(path.read_bytes()[:cut] + rest)
            for _ in range(2):
                assert handle.map("square", range(5), save=path) == [0, 1, 4, 9, 16]

    def test_items_are_known_by_content_and_not_by_place(self, work: ServiceHandle, tmp_path: Path) -> None:
        path = tmp_path / "out.jsonl"
        work.map("square", [1, 2, 2], save=path)
        mapped = work.map("square", [5, 2, 1, 2, 2], save=path)
        assert mapped == [25, 4, 1, 4, 4] and mapped.resumed == 3 and scene.done == [1, 2, 2, 5, 2]

    def test_other_keywords_or_another_task_are_other_results(
        self, work: ServiceHandle, tmp_path: Path
    ) -> None:
        path = tmp_path / "out.jsonl"
        work.map("square", [1, 2], save=path)
        assert work.map("square", [1, 2], save=path, plus=1) == [2, 5]
        assert work.map("point", [1, 2], save=path) == [{"x": 1, "y": -1}, {"x": 2, "y": -2}]
        assert work.map("square", [1, 2], save=path).resumed == 2

    def test_dataclasses_arrays_and_paths_are_kept_as_plain_values(
        self, registry: ServiceRegistry, work: ServiceHandle, tmp_path: Path
    ) -> None:
        import numpy as np

        class Rich(ModelService):
            @task
            def rich(self, x: int) -> dict[str, Any]:
                told: dict[str, Any] = {"a": np.arange(x), "b": np.float32(0.5), "c": Path("p")}
                return told | {"d": Point(1, 2), "e": (1, None)}

        handle = registry.register("rich", Rich)
        path = tmp_path / "out.jsonl"
        first = handle.map("rich", [2], save=path)
        again = handle.map("rich", [2], save=path)
        assert isinstance(handle.map("rich", [2])[0]["a"], np.ndarray)
        assert first == again == [{"a": [0, 1], "b": 0.5, "c": "p", "d": {"x": 1, "y": 2}, "e": [1, None]}]
        assert again.resumed == 1

    def test_changed_code_or_config_is_asked_again(self, registry: ServiceRegistry, tmp_path: Path) -> None:
        """A file from before an edit does not answer for the code after it."""

        def edition(answer: int) -> type[ModelService]:
            class Answers(ModelService):
                def __init__(self, *, more: int = 0) -> None:
                    self.more = more

                @task
                def ask(self, x: int) -> int:
                    return x * answer + self.more

            return Answers

        path = tmp_path / "out.jsonl"
        handle = registry.register("answers", edition(10))
        assert handle.map("ask", [1, 2], save=path) == [10, 20]
        registry.register("answers", edition(100))
        assert handle.map("ask", [1, 2], save=path) == [100, 200]
        handle.configure(more=1)
        assert handle.map("ask", [1, 2], save=path) == [101, 201]
        registry.register("answers", edition(10))
        assert handle.map("ask", [1, 2], save=path).resumed == 2

    def test_a_changed_helper_is_asked_again(self, registry: ServiceRegistry, tmp_path: Path) -> None:
        """What a task calls beside its class is looked up at every call, so a file from before is stale."""
        space: dict[str, Any] = {"ModelService": ModelService, "task": task, "__name__": "__main__"}
        exec(
            "LIMIT = 1\n"
            "def deep(x): return x * LIMIT\n"
            "def helper(x): return deep(x)\n"
            "class Helped(ModelService):\n"
            "    @task\n"
            "    def ask(self, x: int) -> int: return helper(x)\n",
            space,
        )
        path = tmp_path / "out.jsonl"
        handle = registry.register("helped", space["Helped"])
        assert handle.map("ask", [1, 2], save=path) == [1, 2]
        exec("def helper(x): return deep(x) + 100", space)
        asked_anew = handle.map("ask", [1, 2], save=path)
        assert asked_anew == [101, 102] and "none of the 2 in the file fits" in asked_anew.line
        space["LIMIT"] = 2
        assert handle.map("ask", [1, 2], save=path) == [102, 104]
        exec("def helper(x): return deep(x)", space)
        space["LIMIT"] = 1
        assert handle.map("ask", [1, 2], save=path).resumed == 2

    def test_what_changed_in_a_needed_service_is_asked_again(
        self, registry: ServiceRegistry, tmp_path: Path
    ) -> None:
        class Inner(ModelService):
            def __init__(self, *, times: int = 1) -> None:
                self.times = times

            @task
            def scale(self, x: int) -> int:
                return x * self.times

        class Outer(ModelService):
            needs = ("inner", "absent?")

            @task
            def ask(self, x: int) -> int:
                return self.needs.inner.scale(x)

        path = tmp_path / "out.jsonl"
        inner, outer = registry.register("inner", Inner), registry.register("outer", Outer)
        assert outer.map("ask", [1, 2], save=path) == [1, 2]
        inner.configure(times=10)
        assert outer.map("ask", [1, 2], save=path) == [10, 20]
        assert outer.map("ask", [1, 2], save=path).resumed == 2

    @pytest.mark.parametrize(
        "content", ["file,lufs\na.wav,-23\n", '{"files": []}', "\n\n[1, 2]", '{"key": "mine", "value": 3}\n']
    )
    def test_a_file_of_something_else_is_left_as_it_is(
        self, work: ServiceHandle, tmp_path: Path, content: str
    ) -> None:
        path = tmp_path / "mydata.csv"
        path.write_text(content)
        with pytest.raises(StorageError, match="is no file of results, and was left as it is"):
            work.map("square", [1], save=path)
        assert path.read_text() == content and scene.done == []

    @pytest.mark.parametrize("content", [b"", b"\n", b'{"ke', b"\0\0\0", b'{"key": "x", "ok"'])
    def test_what_a_crash_left_of_a_first_line_is_gone_on_with(
        self, work: ServiceHandle, tmp_path: Path, content: bytes
    ) -> None:
        path = tmp_path / "out.jsonl"
        path.write_bytes(content)
        assert work.map("square", [1, 2], save=path) == [1, 4]
        assert work.map("square", [1, 2], save=path).resumed == 2

    def test_a_result_that_cannot_be_kept_says_so(self, work: ServiceHandle, tmp_path: Path) -> None:
        path = tmp_path / "out.jsonl"
        with pytest.raises(StorageError, match=r"cannot be kept in .*out\.jsonl") as caught:
            work.map("strange", [1, 2], save=path)
        assert "leave save= out" in caught.value.hint
        assert lines(path) == [] and work.square(2) == 4
        assert len(work.map("strange", [1, 2])) == 2

    def test_a_file_that_cannot_be_written_is_refused_before_anything_runs(
        self, work: ServiceHandle, tmp_path: Path
    ) -> None:
        with pytest.raises(StorageError, match="cannot be written"):
            work.map("square", [1], save=tmp_path / "no" / "such" / "folder.jsonl")
        for wrong in (tmp_path, "a\0b"):
            with pytest.raises(StorageError):
                work.map("square", [1], save=wrong)
        for wrong in (3, True):
            with pytest.raises(ValidationError, match="save: found"):
                work.map("square", [1], save=wrong)
        assert scene.done == []

    def test_text_that_no_encoding_takes_is_kept(self, registry: ServiceRegistry, tmp_path: Path) -> None:
        class Talk(ModelService):
            @task
            def talk(self, x: int) -> str:
                return "ä\n\ud800\u2028"

        handle = registry.register("talk", Talk)
        path = tmp_path / "out.jsonl"
        assert handle.map("talk", [1, 2], save=path) == handle.map("talk", [1, 2], save=path)
        assert len(lines(path)) == 2

    def test_not_a_number_and_infinity_come_back(self, registry: ServiceRegistry, tmp_path: Path) -> None:
        import math

        class Odd(ModelService):
            @task
            def odd(self, x: int) -> float:
                return -math.inf if x else math.nan

        handle = registry.register("odd", Odd)
        for _ in range(2):
            nan, inf = handle.map("odd", [0, 1], save=tmp_path / "out.jsonl")
            assert math.isnan(nan) and inf == -math.inf


class TestProgress:
    def test_every_item_is_told_and_the_last_one_too(self, work: ServiceHandle) -> None:
        seen: list[tuple[str, int, int | None]] = []

        def show(progress: Progress) -> None:
            seen.append((progress.title, progress.done, progress.total))

        stop = on_progress(show)
        try:
            work.map("square", range(7))
            work.map("square", iter(range(3)))
        finally:
            stop()
        assert ("work.square", 7, 7) in seen and ("work.square", 3, None) in seen


class TestInterrupt:
    def test_ctrl_c_tells_how_far_it_came_and_leaves_the_service_ready(
        self, work: ServiceHandle, tmp_path: Path
    ) -> None:
        def source() -> Iterator[int]:
            yield from range(5)
            raise KeyboardInterrupt

        path = tmp_path / "out.jsonl"
        with pytest.raises(Interrupted) as caught:
            work.map("square", source(), save=path)
        assert "work.square interrupted after" in str(caught.value)
        assert "run it again to go on from" in caught.value.hint and str(path) in caught.value.hint
        until(lambda: not work.status().running and not work.status().waiting)
        assert work.state == "ready" and work.square(2) == 4

    def test_ctrl_c_while_it_waits_for_an_item_cancels_the_rest(self, work: ServiceHandle) -> None:
        """A real signal in the main thread, as a notebook's stop button sends it."""

        def press() -> None:
            scene.gates.wait("begun 0")
            until(lambda: work.status().waiting == 1)
            signal.raise_signal(signal.SIGINT)
            scene.gates["on"].set()

        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
        try:
            pressing = start(press)
            with pytest.raises(Interrupted, match=r"work\.held interrupted after [012] items?; "):
                work.map("held", range(100))
            outcome(pressing)
        finally:
            signal.signal(signal.SIGINT, before)
        until(lambda: not work.status().running and not work.status().waiting)
        assert work.state == "ready" and work.square(2) == 4
