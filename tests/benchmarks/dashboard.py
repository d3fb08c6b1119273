"""What the dashboard costs: to find what is new, and send it, when one of a hundred services was called."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from grym_nb.notebook.panels import VIEWS, Snapshot, take
from grym_nb.notebook.panels.news import news_of
from grym_nb.runtime import Runtime
from grym_nb.services import ServiceHandle
from grym_nb.settings import Settings

from .calls import Noop
from .frame import Effort, Row, benchmark, side_by_side

_SERVICES = 100


class _Page:
    """What a publisher does at each look, without a page."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._before: Snapshot | None = None
        self._views: Mapping[str, Any] = {}

    def look(self) -> dict[str, Any]:
        self._before = take(self._runtime, before=self._before)
        return {name: view(self._before) for name, view in VIEWS.items()}

    def news(self) -> dict[str, Any]:
        views = self.look()
        new = news_of(self._views, views)
        self._views = views
        return new

    def whole(self) -> str:
        return json.dumps(self.look())


@benchmark
def dashboard(effort: Effort) -> Iterator[Row]:
    """An update of a hundred loaded services, of which one was called, beside all of it each time."""
    with Runtime(Settings(health_seconds=0)) as runtime:  # nothing moves by itself
        handles = [runtime.registry.register(f"noop-{n:02}", Noop) for n in range(_SERVICES)]
        for handle in handles:
            handle.run("noop")
        page, everything = _Page(runtime), _Page(runtime)
        page.news()
        works = {
            "news": lambda: (_call(handles[3]), page.news()),
            "whole": lambda: (_call(handles[3]), everything.whole()),
        }
        figures = side_by_side(works, rounds=effort.slow_rounds, seconds=effort.seconds)
        page.news()
        _call(handles[3])
        sent = len(json.dumps(page.news(), default=bytes.hex))
        whole = len(everything.whole())
        rest = page.news()
    work = f"an update of the dashboard, one of {_SERVICES} services called"
    yield Row(work, figures["news"], "all of it as JSON", figures["whole"], "ms")
    yield Row(f"{work}: over the wire", float(sent), "all of it as JSON", float(whole), "B")
    at_rest = float(len(json.dumps(rest, default=bytes.hex))) if rest else 0.0
    yield Row("the same at rest: over the wire", at_rest, "all of it as JSON", float(whole), "B", "0")


def _call(handle: ServiceHandle) -> None:
    handle.run("noop")
