"""`%grym health`, `%grym alerts`, `%grym topology`: how the services do, who was told, who needs whom."""

from __future__ import annotations

from argparse import Namespace
from math import inf
from typing import TYPE_CHECKING

from grym_nb.errors import CommandError
from grym_nb.health import Topology, suggestions, topology
from grym_nb.notebook.figures import alone, lasting
from grym_nb.notebook.pictures import COLOURS, graph_image
from grym_nb.notebook.sheet import Picture, Sheet
from grym_nb.render import Table, count, seconds

if TYPE_CHECKING:
    from grym_nb.health import Alerts
    from grym_nb.runtime import Runtime

__all__ = ["alerts", "health", "topology_of"]

_SHOWN = 20  # changes
_HOUR, _MOST_MINUTES = 60.0, 366 * 24 * 60.0
_SILENCED = "such as %grym alerts --silence failing --minutes 30"
_REASONS = 3  # that fit a line
_VERBS = {"needs": "needs", "optional": "may use", "calls": "calls"}
_LASTS = "better has to last before it is believed"
_GRAVITY = {"unhealthy": 2, "degraded": 1}


def health(runtime: Runtime, given: Namespace) -> Sheet:
    """Return what is thought of all services, or of one, and what could be done better."""
    monitor = runtime.health
    monitor.step()
    now = runtime.registry.ports.clock()
    if given.service is not None:
        return _one(runtime, given.service, now)
    system = monitor.system()
    rows = [
        (
            *(name, own.verdict, told, f"{seconds(now - own.since)}"),
            "; ".join(f"{one.before} → {one.after}" for one in monitor.story(name)[-2:]),
        )
        for name, (own, told) in sorted(
            system.services.items(), key=lambda item: -_GRAVITY.get(item[1][0].verdict, 0)
        )
    ]
    columns = ("service", "health", "reasons", "for", "lately")
    table = Table("services", columns, rows, empty="nothing has been loaded yet, so nobody is judged")
    reasons = system.reasons or ((_LASTS,) if system.verdict in _GRAVITY else ())
    return Sheet(f"all together: {system.verdict}{_reasons(reasons)}", (table, *_better(runtime)))


def _reasons(reasons: tuple[str, ...]) -> str:
    more = f"; and {len(reasons) - _REASONS} more" if len(reasons) > _REASONS else ""
    return f" ({'; '.join(reasons[:_REASONS])}{more})" if reasons else ""


def _better(runtime: Runtime) -> tuple[Table, ...]:
    rows = [(one.service, one.do, one.why) for one in suggestions(runtime.registry)]
    return (Table("what could be better", ("service", "do", "since"), rows),) if rows else ()


def _one(runtime: Runtime, name: str, now: float) -> Sheet:
    own = runtime.health.of(name)
    signs = Table(
        f"{name}: {own.verdict}",
        ("sign", "for"),
        [(sign.told, seconds(now - since)) for sign, since in own.signs],
        empty={"unknown": "it has not been loaded yet", "healthy": "nothing speaks against it"}.get(
            own.verdict, "nothing speaks against it any more"
        ),
    )
    lasting = f"{own.told(now)}; {_LASTS}" if own.over is not None else ""
    story = Table(
        "how that changed",
        ("when", "from", "to", "since"),
        [
            (f"{seconds(now - one.at)} ago", one.before, one.after, one.reason)
            for one in runtime.health.story(name)[: -_SHOWN - 1 : -1]
        ],
        empty="it never did",
    )
    told = (lasting,) if lasting else ()
    return Sheet("", (signs, *told, story, runtime.recovery.table(name)))


def alerts(runtime: Runtime, given: Namespace) -> Sheet:
    """Return what fires and what has fired; or silence something, or end that."""
    told = runtime.alerts
    typed = {name: getattr(given, name) is not None for name in ("silence", "unsilence", "minutes")}
    typed["rules"] = given.rules
    alone("alerts", {**typed, "minutes": False} if typed["silence"] else typed, "silence", "unsilence")
    if given.silence is not None:
        rule, minutes = _rule_of(told, given.silence), _minutes(given.minutes)
        told.silence(minutes * 60.0, rule=rule, why="%grym alerts --silence")
        return Sheet(f"nobody is told of {rule or 'all'} for {lasting(minutes * 60.0)}")
    if given.minutes is not None:
        raise CommandError("%grym alerts --minutes: of which rule?", hint=_SILENCED)
    if given.unsilence is not None:
        rule = _rule_of(told, given.unsilence)
        ended = count(told.unsilence(rule), "silence")
        left = [one for one in told.silences if not one.tags and one.rule is None]
        if left:  # a silence of all goes on, of which this rule is one
            return Sheet(
                f"{ended} ended: nobody is told of {rule} yet: all is silenced, %grym alerts shows it"
            )
        return Sheet(f"{ended} ended: whoever listens is told of {rule or 'all'} again")
    told.step()
    now = told.wall()
    story = Table(
        "told lately",
        ("when", "what"),
        [(f"{seconds(now - one.at)} ago", one.text) for one in told.story[: -_SHOWN - 1 : -1]],
        empty="nobody was told of anything",
    )
    parts: list[Table | str] = [told.table(), story]
    if given.rules:
        rows = [
            (
                *(one.name, str(one.severity), one.condition, lasting(one.for_seconds) or "at once"),
                *(told.state_of(one), one.suggest),
            )
            for one in told.rules
        ]
        parts.append(Table("rules", ("rule", "severity", "fires when", "for", "now", "what to do"), rows))
    if silences := told.silences:
        moment = runtime.registry.ports.clock()
        quiet = [(one.what, lasting(one.until - moment), one.why) for one in silences]
        parts.append(Table("silenced", ("rule", "for another", "why"), quiet))
    return Sheet("", tuple(parts))


def _minutes(given: float | None) -> float:
    """Return for how many minutes something is silenced."""
    minutes = _HOUR if given is None else given
    if not (0 < minutes <= _MOST_MINUTES or minutes == inf):
        raise CommandError(f"--minutes {minutes:g}: up to a year was expected, or inf", hint=_SILENCED)
    return minutes


def _rule_of(alerts: Alerts, words: list[str]) -> str | None:
    """Return the rule that is named, None for all."""
    rule = " ".join(words)
    known = [one.name for one in alerts.rules]
    if rule not in known and rule != "all":
        raise CommandError(f"there is no rule {rule!r}", hint=f"one of: {', '.join(known)}, or all")
    return None if rule == "all" else rule


def topology_of(runtime: Runtime, given: Namespace) -> Sheet:
    """Return the services and what is between them, as a table and a picture; or what fails with one."""
    seen = topology(runtime.registry)
    if given.service is not None:
        impact = seen.impact(given.service)
        fails, suffers = ", ".join(impact.fails), ", ".join(impact.suffers)
        told = f"if {given.service} fails: {fails or 'nobody'} fails with it; {suffers or 'nobody'} suffers"
        return Sheet(told)
    return Sheet("", (seen.table(), *_picture(seen)))


def _picture(seen: Topology) -> tuple[Picture, ...]:
    linked = {name for edge in seen.edges for name in (edge.source, edge.target)}
    nodes = {
        node.name: (f"{node.state}, {node.health}", COLOURS.get(node.health, COLOURS["unknown"]))
        for node in seen.nodes
        if node.name in linked or node.state != "registered"
    }
    pairs: dict[tuple[str, str], set[str]] = {}
    for edge in seen.edges:
        pairs.setdefault((edge.source, edge.target), set()).add(_VERBS[edge.kind])
    edges = [(*pair, "dashed" if kinds == {"calls"} else "solid") for pair, kinds in pairs.items()]
    words = "; ".join(
        f"{source} {' and '.join(sorted(kinds, reverse=True))} {target}"
        for (source, target), kinds in pairs.items()
    )
    return (Picture(words, graph_image(nodes, edges, words)),) if words else ()
