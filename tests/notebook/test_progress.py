"""Progress under a cell: only of long work, one display for each piece of it, with a final figure."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from grym_nb.notebook.progress import ProgressDisplays, bundle_of, displays_for
from grym_nb.services.progress import Progress
from grym_nb.testing import FakeClock
from tests.kernel import Kernel


class Page:
    """What a page would show: the text under each display id, in the order of its first showing."""

    def __init__(self) -> None:
        self.shown: dict[str, list[str]] = {}

    def __call__(self, bundle: dict[str, str], id: str, update: bool) -> None:
        assert update == (id in self.shown)
        self.shown.setdefault(id, []).append(bundle["text/plain"])

    @property
    def texts(self) -> list[list[str]]:
        return list(self.shown.values())


@pytest.fixture
def clock() -> FakeClock:
    """Time as the test says."""
    return FakeClock()


@pytest.fixture
def page() -> Page:
    """An empty page."""
    return Page()


@pytest.fixture
def displays(page: Page, clock: FakeClock) -> ProgressDisplays:
    """Displays on that page that wait for two seconds."""
    return ProgressDisplays(page, after=lambda: 2.0, clock=clock)


def test_short_work_is_not_shown(displays: ProgressDisplays, page: Page, clock: FakeClock) -> None:
    """Nothing flickers by."""
    progress = Progress("short", 4, 0.0)
    for progress.done in range(4):
        displays(progress)
        clock.advance(0.25)
    displays.finish()
    assert page.texts == []


def test_long_work_is_one_display_that_moves(
    displays: ProgressDisplays, page: Page, clock: FakeClock
) -> None:
    """From two seconds on, and at the end of the cell with its last figure, whoever forgot to tell it."""
    progress = Progress("long", 10, 0.0)
    for progress.done in range(1, 10):
        displays(progress)
        clock.advance(0.5)
    progress.done = 10
    displays.finish()
    assert page.texts == [
        [
            "long 5/10, 2 s, about 2 s left",
            "long 6/10, 2.5 s, about 1.67 s left",
            "long 7/10, 3 s, about 1.29 s left",
            "long 8/10, 3.5 s, about 875 ms left",
            "long 9/10, 4 s, about 444 ms left",
            "long 10/10, 4.5 s",
        ]
    ]


def test_a_display_is_not_sent_again_without_news(
    displays: ProgressDisplays, page: Page, clock: FakeClock
) -> None:
    """A step may take minutes."""
    progress = Progress("slow", None, 0.0, done=3)
    displays(progress)
    clock.advance(2)
    for _ in range(5):
        displays(progress)
        clock.advance(1)
    displays.finish()
    assert page.texts == [["slow 3, 2 s"]]


def test_each_piece_of_work_has_its_own_display(
    displays: ProgressDisplays, page: Page, clock: FakeClock
) -> None:
    """Nested loops are two; the next cell begins anew, also with the same piece of work."""
    outer, inner = Progress("outer", 2, 0.0), Progress("inner", 2, 0.0)
    for _ in range(2):
        displays(outer)
        displays(inner)
        clock.advance(2)
    assert [texts[0].split()[0] for texts in page.texts] == ["outer", "inner"]
    displays.finish()
    displays(outer)
    clock.advance(2)
    outer.done = 1
    displays(outer)
    assert [texts[0].split()[0] for texts in page.texts] == ["outer", "inner", "outer"]


@pytest.mark.parametrize(
    ("progress", "elapsed", "text", "html"),
    [
        (
            Progress("<b>", 4, 0.0, done=1),
            3.0,
            "<b> 1/4, 3 s, about 9 s left",
            '<p><progress value="1" max="4"></progress> &lt;b&gt; 1/4, 3 s, about 9 s left</p>',
        ),
        (Progress("n", None, 0.0, done=7), 3.0, "n 7, 3 s", "<p>n 7, 3 s</p>"),
        (
            Progress("n", 4, 0.0, done=5),
            3.0,
            "n 5/4, 3 s",
            '<p><progress value="4" max="4"></progress> n 5/4, 3 s</p>',
        ),
        (Progress("n", 0, 0.0), 3.0, "n 0/0, 3 s", "<p>n 0/0, 3 s</p>"),
    ],
)
def test_it_is_text_and_html_that_sanitizers_keep(
    progress: Progress, elapsed: float, text: str, html: str
) -> None:
    """A progress element and words; a wrong total does no harm."""
    assert bundle_of(progress, elapsed) == {"text/plain": text, "text/html": html}


@pytest.mark.parametrize(
    ("kernel", "environ", "shown"),
    [
        (True, {}, True),
        (True, {"GRYM_PROGRESS": "off"}, False),
        (True, {"PYTEST_CURRENT_TEST": "x"}, False),
        (True, {"PYTEST_CURRENT_TEST": "x", "GRYM_PROGRESS": "on"}, True),
        (False, {"GRYM_PROGRESS": "on"}, False),
    ],
)
def test_it_is_silent_where_nobody_looks(kernel: bool, environ: dict[str, str], shown: bool) -> None:
    """In a terminal and under tests, unless it is asked for."""
    shell: Any = SimpleNamespace(kernel=object() if kernel else None, display_pub=None)
    assert (displays_for(shell, environ) is not None) == shown


#: a kernel that shows progress at once
SHOWING = """
%load_ext grym_nb
import threading, time, grym_nb as grym, grym_nb.runtime as r
r._kernel = grym.Runtime(grym.Settings(progress_after_seconds=0))
"""

COUNTS = """
class Slow(grym.ModelService):
    @grym.task
    def count(self, n):
        for i in grym.track(range(n), title='counting'):
            time.sleep(0.02)  # as work would: longer than a tick of 0.25 s in all
        return n
slow = grym.register('slow', Slow)
"""

WAITS = """
class Slow(grym.ModelService):
    def load(self):
        go.wait(30)
    @grym.task
    def hold(self):
        on.set()
        go.wait(30)
on, go = threading.Event(), threading.Event()
slow = grym.register('slow', Slow)
def soon():
    threading.Timer(0.6, go.set).start()  # longer than two ticks of 0.25 s
def hold():
    global held
    go.set(); slow.load(); go.clear(); on.clear()
    held = slow.hold.submit()
    on.wait(30)
"""


def test_in_a_kernel_a_cell_keeps_one_display_with_the_final_figure() -> None:
    """Inline and on a worker: shown in the cell that waits, and updated in place."""
    with Kernel(env={"GRYM_PROGRESS": "on"}) as kernel:
        kernel.run(SHOWING + COUNTS).checked()
        for call in ("slow.count(30)", "slow.count.submit(30).result()"):
            reply = kernel.run(call).checked()
            [display] = reply.displays
            assert display["text/plain"].startswith("counting 30/30, ")
            assert display["text/html"].startswith('<p><progress value="30" max="30"></progress> ')
            assert [kind for kind, _ in reply.messages].count("update_display_data") >= 1
            assert reply.result_text == "30"
        kernel.run("%unload_ext grym_nb")
        assert kernel.run("slow.count(30)").displays == []


def test_in_a_kernel_a_wait_says_what_it_waits_for() -> None:
    """A cell that only waits is not silent: for a load, for a slot, for running calls; a short wait is."""
    with Kernel(env={"GRYM_PROGRESS": "on"}) as kernel:
        kernel.run(SHOWING + WAITS).checked()
        loading = kernel.run("soon(); slow.hold.with_(timeout=30)()").checked()
        assert loading.displays[-1]["text/plain"].startswith("slow.hold waited for slow, which is loading, ")
        for code, told in {
            "slow.hold()": "slow.hold waited for a slot of slow, held by slow.hold (call ",
            "await slow.hold.submit()": "slow.hold waited for a slot of slow, held by slow.hold (call ",
            "slow.unload()": "unload of slow waited for slow.hold (call ",
        }.items():
            kernel.run("hold()").checked()
            displays = kernel.run(f"soon(); {code}").checked().displays
            assert displays[-1]["text/plain"].startswith(told)
        assert kernel.run("slow.load(); slow.unload()").checked().displays == []
