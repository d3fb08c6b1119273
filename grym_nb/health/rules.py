"""When to tell somebody: rules as data, and what each of them finds in the figures.

>>> Rule("slow", "service.call.seconds", figure="p95", above=2.0, by=("service",)).condition
'p95 of service.call.seconds above 2'
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from grym_nb.errors import Problem, closest, says_what_it_takes
from grym_nb.hardening.policy import Fit, Policy
from grym_nb.health.given import deferred
from grym_nb.render import brief
from grym_nb.render import seconds as in_words

if TYPE_CHECKING:
    from grym_nb.metrics.history import History
    from grym_nb.metrics.window import Figure, Window

__all__ = ["Figures", "Found", "Rule", "Severity", "Tags", "found_by", "idle_for", "looks_back", "unknown"]

Severity = Literal["info", "warning", "critical"]
Tags = tuple[tuple[str, str], ...]
#: f(history, now) -> the figure of each group, by its tags, or one figure
Figures = Callable[["History", float], Mapping[Tags, float] | float]
_FIGURES = ("value", "rate", "count", "mean", "low", "high", "p50", "p95", "p99")
#: which of them make sense for what
_OF_KIND: Mapping[str, tuple[str, ...]] = {
    "counter": ("value", "rate", "count"),
    "gauge": ("value", "mean", "low", "high"),
    "histogram": _FIGURES,
}


def _seconds(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e12


_OF_CALLS = ("service.call.", "service.wait.")  # what is counted as a call ends
_OF_WHAT_CAME = ("value", "rate", "count")  # figures that are the less, the less of their window is known
_MOSTLY = 0.9  # of a window: slots do not end with it
_MOMENT = 1.0  # seconds
_DAY = 86_400.0  # seconds for which figures are kept


def _limit(value: Any) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= sys.float_info.max  # it may be larger than any float
    return value is None or (isinstance(value, float) and value == value)


def _function(value: Any) -> bool:
    return callable(value) and not deferred(value)  # a coroutine is no figure, and nobody awaits it


def _texts(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(one, str) and one for one in value)


def _tags(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(one, str) for pair in value.items() for one in pair)


def _named(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(one, str) for one in value.values())


@says_what_it_takes
@dataclass(frozen=True, slots=True)
class Rule(Policy):
    """One thing that somebody wants to know of.

    `figure` of `metric` over the last `window` seconds, for each group of the tags `by`, is compared;
    "value" is what a gauge is, and how much came of all else. What comes, and its rate, is of the whole
    window: before that is known, it came to so much at least, and no limit `below` is judged. `named`
    says what figures are called, and `tells`, a quick function of a group's tags and its figure, what is
    said of it where it is beyond the limit. It fires when that is `above` or `below` the limit for
    `for_seconds`, and is over once it is on the good side of `clear` (the limit, if that is not given)
    for `clear_seconds`. With `absent` it fires when nothing was counted for so many seconds where there
    was something before; with `within`, when a steady trend reaches the limit in so many seconds.
    `metric` may be a function: f(history, now) -> a number, or numbers by tags, such as {(("service",
    "asr"),): 5.0}. While one of `inhibited_by` fires for the same
    group, or for the kernel, this one is not told of, nor after that for what was meanwhile: it begins anew,
    with figures of a whole `window` since then (what a gauge is at the moment needs none). Of two that name
    each other the one that fires first is told.
    """

    name: str
    metric: str | Figures
    figure: Figure = "value"
    above: float | None = None
    below: float | None = None
    clear: float | None = None
    absent: float | None = None
    within: float | None = None
    window: float = 60.0
    for_seconds: float = 0.0
    clear_seconds: float = 0.0
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    by: tuple[str, ...] = ()
    severity: Severity = "warning"
    inhibited_by: tuple[str, ...] = ()
    suggest: str = ""
    words: str = field(default="", kw_only=True)  # for the condition, where the names say little
    named: Mapping[float, str] = field(default_factory=dict, hash=False, kw_only=True)
    tells: Callable[[Tags, float], str] | None = field(default=None, hash=False, kw_only=True)

    REFUSAL: ClassVar[str] = "this is no rule"
    FITS: ClassVar[Mapping[str, Fit]] = {
        "name": Fit("text", lambda value: isinstance(value, str) and bool(value.strip())),
        "metric": Fit(
            "a metric's name, or a plain function", lambda v: _function(v) or (isinstance(v, str) and bool(v))
        ),
        "figure": Fit(f"one of {', '.join(_FIGURES)}", lambda value: value in _FIGURES),
        "above": Fit("a number", _limit),
        "below": Fit("a number", _limit),
        "clear": Fit("a number", _limit),
        "absent": Fit("seconds above 0", lambda v: v is None or (_seconds(v) and v > 0)),
        "within": Fit("seconds above 0", lambda v: v is None or (_seconds(v) and v > 0)),
        "window": Fit("seconds above 0, up to a day", lambda v: _seconds(v) and 0 < v <= _DAY),
        "for_seconds": Fit("seconds from 0", _seconds),
        "clear_seconds": Fit("seconds from 0", _seconds),
        "severity": Fit("info, warning or critical", lambda v: v in ("info", "warning", "critical")),
        "tags": Fit("a dict of texts, such as {'service': 'asr'}", _tags),
        "by": Fit("names of tags, such as ('service',)", _texts),
        "inhibited_by": Fit("names of rules, such as ('unhealthy',)", _texts),
        "suggest": Fit("a text", lambda value: isinstance(value, str)),
        "words": Fit("a text", lambda value: isinstance(value, str)),
        "tells": Fit("a plain function of tags and a figure", lambda v: v is None or _function(v)),
        "named": Fit("a dict of texts, such as {2.0: 'unhealthy'}", _named),
    }

    def __post_init__(self) -> None:
        for name in ("by", "inhibited_by"):
            given: Any = getattr(self, name)
            if isinstance(given, (str, list)):
                object.__setattr__(self, name, (given,) if isinstance(given, str) else tuple(given))
        Policy.__post_init__(self)

    def discord(self) -> list[Problem]:
        """Return what does not go together."""
        limits = [name for name in ("above", "below") if getattr(self, name) is not None]
        if self.name in self.inhibited_by:
            return [Problem("inhibited_by", f"{self.name!r}, this rule", "others: nobody is told of it else")]
        if self.absent is not None and callable(self.metric):
            return [Problem("absent", "with a function", "the name of a metric, of which something came")]
        if self.absent is not None:
            others = ["a limit"] * bool(limits) + ["within="] * (self.within is not None)
            return [Problem("absent", f"with {other}, too", "one of them") for other in others]
        if len(limits) != 1:
            return [Problem("above", ", ".join(limits) or "no limit", "above=, below= or absent=")]
        if self.clear is not None and self._worse(self.clear, self.limit):
            return [Problem("clear", f"{self.clear:g}", f"on the other side of the limit {self.limit:g}")]
        if self.within is not None and callable(self.metric):
            return [Problem("within", "with a function", "the name of a metric, whose trend is known")]
        return []

    @property
    def limit(self) -> float:
        """The figure beyond which it fires."""
        found = self.absent if self.above is None and self.below is None else self.above
        return float(self.below if found is None else found)  # type: ignore[arg-type]  # one of them is there

    def breached(self, figure: float, *, firing: bool) -> bool:
        """Tell whether a figure is beyond the limit; for one that fires, beyond where it is over."""
        limit = self.clear if firing and self.clear is not None else self.limit
        return self._worse(figure, limit)

    def _worse(self, figure: float, limit: float) -> bool:
        return figure < limit if self.below is not None else figure > limit

    @property
    def condition(self) -> str:
        """When it fires, in words."""
        if self.words:
            return self.words
        what = self.metric if isinstance(self.metric, str) else getattr(self.metric, "__name__", "figure")
        if self.absent is not None:
            return f"nothing of {what} for {in_words(self.absent)}"
        side = "below" if self.below is not None else "above"
        named = what if self.figure == "value" or callable(self.metric) else f"{self.figure} of {what}"
        ahead = f" within {in_words(self.within)}" if self.within is not None else ""
        return f"{named} {side} {self.limit:.6g}{ahead}"


@dataclass(frozen=True, slots=True)
class Found:
    """What a rule found for one group: its figure, whether it is beyond the limit, and that in words."""

    figure: float
    breached: bool
    told: str


def found_by(rule: Rule, history: History, now: float, firing: Callable[[Tags], bool]) -> dict[Tags, Found]:
    """Return what a rule finds now, by the tags of each group."""
    if callable(rule.metric):
        figures = _by_tags(rule.metric(history, now))
        return {tags: _compared(rule, tags, figure, firing(tags)) for tags, figure in figures.items()}
    if rule.absent is None and rule.within is None and len(rule.by) == 1:
        return _at_once(rule, history, firing)
    found = {}
    for tags in _groups(rule, history):
        look = _absent if rule.absent is not None else _ahead if rule.within is not None else _now
        one = look(rule, history, tags, firing(tags))
        if one is not None:
            found[tags] = one
    return found


def _by_tags(given: Any) -> dict[Tags, float]:
    """Return the figures that a rule's function gave; a number alone is one of the kernel."""
    if _figure_given(given):
        return {(): float(given)}
    if isinstance(given, Mapping) and all(_tags_given(k) and _figure_given(v) for k, v in given.items()):
        return {tags: float(figure) for tags, figure in given.items()}
    form = "a number, or numbers by tags, such as {(('service', 'asr'),): 5.0}"
    raise ValueError(f"its function gave {brief(given)}, not {form}")


def _figure_given(value: Any) -> bool:
    single = not hasattr(value, "__len__") or getattr(value, "shape", None) == ()  # an array of no dimension
    return hasattr(value, "__float__") and not isinstance(value, str) and single


def _tags_given(tags: Any) -> bool:
    return isinstance(tags, tuple) and all(
        isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(one, str) for one in pair)
        for pair in tags
    )


def _at_once(rule: Rule, history: History, firing: Callable[[Tags], bool]) -> dict[Tags, Found]:
    """Return what a rule finds now for each value of the one tag that tells its groups apart."""
    from grym_nb.health.vitals import parted

    assert isinstance(rule.metric, str)
    found: dict[Tags, Found] = {}
    there = {tags[0][1] for tags in _groups(rule, history)}
    whole = history.stretch(rule.metric, _MOMENT, **rule.tags)
    if whole.kind != "gauge" or rule.figure != "value":  # what a gauge is needs no look back
        whole = history.stretch(rule.metric, rule.window, **rule.tags)
    # Those of which nothing came, too: that is what a limit below is for.
    for value, stretch in parted(whole, rule.by[0]).items():
        tags = ((rule.by[0], value),)
        figure = _figure(rule, stretch.window(rule.metric)) if value in there else None
        if figure is not None:
            found[tags] = _compared(rule, tags, figure, firing(tags))
    return found


def _figure(rule: Rule, window: Window) -> float | None:
    """Return the figure that a rule asks for; None where there is none.

    Of a window of which only a part is known so much came at least: enough for a limit above, not for one
    below.
    """
    if window.kind is None or rule.figure not in _OF_KIND[window.kind]:
        return None
    if window.kind != "gauge" and rule.figure in _OF_WHAT_CAME:
        if rule.below is not None and window.seconds < _MOSTLY * rule.window:
            return None
        if rule.above is not None and rule.figure == "rate":
            return window.count / max(window.seconds, rule.window)
    if rule.figure == "value":
        return window.last if window.kind == "gauge" else float(window.count)
    figure = getattr(window, rule.figure)
    return None if figure is None else float(figure)


def _groups(rule: Rule, history: History) -> list[Tags]:
    """Return the groups that there are of a rule's metric, by the tags that tell them apart."""
    if not rule.by:
        return [()]
    assert isinstance(rule.metric, str)
    return history.groups(rule.metric, rule.by, **rule.tags)


def _now(rule: Rule, history: History, tags: Tags, firing: bool) -> Found | None:
    assert isinstance(rule.metric, str)
    window = history.window(rule.metric, rule.window, **_asked(rule, tags))
    figure = _figure(rule, window)
    return None if figure is None else _compared(rule, tags, figure, firing)


def _asked(rule: Rule, tags: Tags) -> dict[str, str]:
    return {**rule.tags, **dict(tags)}


def idle_for(rule: Rule, history: History) -> str:
    """Return why a rule cannot fire as things are; empty where it can."""
    if callable(rule.metric):
        return ""
    series = [(kind, dict(tags)) for name, kind, tags in history.series() if name == rule.metric]
    if not series:
        from grym_nb.metrics.export import HELP

        known = {*HELP, *[name for name, _, _ in history.series()]}
        near = "" if rule.metric in HELP else closest(rule.metric, known, cutoff=0.7)
        return f"no such series yet.{near}" if near else "no such series yet"
    wanted = rule.tags.items()
    if not any(wanted <= tags.items() and tags.keys() >= set(rule.by) for _, tags in series):
        own = sorted({tag for _, tags in series for tag in tags})
        return f"no series with these tags yet; its tags are {', '.join(own) or 'none'}"
    kind = series[0][0]
    if rule.absent is None and rule.figure not in _OF_KIND[kind]:
        return f"a {kind} has no {rule.figure}: one of {', '.join(_OF_KIND[kind])}"
    return ""


def looks_back(rule: Rule, history: History) -> float:
    """Return over how many seconds it was gathered what a rule finds; 0 for what is of the moment."""
    if rule.absent is not None:
        return 0.0
    if rule.figure == "value" and rule.within is None and isinstance(rule.metric, str):
        kind = history.stretch(rule.metric, _MOMENT, **rule.tags).kind
        return 0.0 if kind == "gauge" else rule.window
    return rule.window


def unknown(rule: Rule, known: Collection[str]) -> list[str]:
    """Return in words which rules one is inhibited by that are none of those `known`."""
    return [
        f"there is no rule {name!r}.{closest(name, known)}" for name in rule.inhibited_by if name not in known
    ]


def _compared(rule: Rule, tags: Tags, figure: float, firing: bool) -> Found:
    breached = rule.breached(figure, firing=firing)
    if breached and rule.tells is not None and (told := rule.tells(tags, figure)):
        return Found(figure, breached, str(told))  # a user's function may give anything
    if figure in rule.named:
        return Found(figure, breached, rule.named[figure])
    side, good = ("below", "above") if rule.below is not None else ("above", "below")
    if rule.breached(figure, firing=False):
        return Found(figure, breached, f"{figure:.4g}, {side} {rule.limit:.4g}")
    ends = rule.limit if rule.clear is None else rule.clear
    told = f"not yet {good} {ends:.4g}" if breached else f"not {side} {ends:.4g}"
    return Found(figure, breached, f"{figure:.4g}, {told}")


def _absent(rule: Rule, history: History, tags: Tags, firing: bool) -> Found | None:
    assert isinstance(rule.metric, str) and rule.absent is not None
    asked = _asked(rule, tags)
    silent = history.silent(rule.metric, **asked)
    if silent is None:
        return None  # there was never anything
    told = f"nothing for {in_words(silent)}"
    if silent >= rule.absent and _is_at_it(rule.metric, history, asked):
        return Found(silent, False, f"{told}, while a call computes")
    return Found(silent, silent >= rule.absent, told)


def _is_at_it(metric: str, history: History, asked: Mapping[str, str]) -> bool:
    """Tell whether nothing comes of calls only since one of them takes long."""
    if not metric.startswith(_OF_CALLS):
        return False
    whose = {tag: value for tag, value in asked.items() if tag == "service"}
    running = history.window("service.running", _MOMENT, **whose).last
    return running is not None and running > 0


def _ahead(rule: Rule, history: History, tags: Tags, firing: bool) -> Found | None:
    from grym_nb.metrics.forecast import time_to

    assert isinstance(rule.metric, str) and rule.within is not None
    points = history.points(rule.metric, rule.window, figure=rule.figure, **_asked(rule, tags))
    if not points:
        return None
    at = points[-1][1]
    if rule.breached(at, firing=firing):
        return Found(at, True, f"{at:.4g} is beyond {rule.limit:.4g} already")
    reach = time_to(points, rule.limit)
    if reach is None:
        return Found(at, False, f"{at:.4g}, and not on its way to {rule.limit:.4g}")
    return Found(reach.likely, reach.likely <= rule.within, f"{rule.limit:.4g} {reach.told}")
