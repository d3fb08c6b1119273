"""Traces of use replayed through the eviction policies: what each would have cost in seconds of loading.

``python -m grym_nb.hardening.replay [TRACE.jsonl] [--budget 8GB 16GB]`` prints a table; without a file, of
made-up days. `%grym mem --trace TRACE.jsonl` writes what this kernel did: a line of a trace is
``{"at": 12.5, "service": "asr", "bytes": 3200000000, "load_seconds": 4}``.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from grym_nb.errors import ConfigError, GrymError, Problem
from grym_nb.hardening.eviction import POLICIES, SPELL_SECONDS, Candidate, Heat, Policy, choose
from grym_nb.render import Table, brief
from grym_nb.sizes import parse_size

__all__ = ["Use", "by_name", "clairvoyant", "days", "main", "read", "replay", "table", "write"]

_BUDGETS = ("8GB", "16GB", "20GB", "24GB")
_GB = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Use:
    """One call: when, of what, and what that takes and costs to load."""

    at: float
    service: str
    bytes: int
    load_seconds: float


# -- traces ----------------------------------------------------------------------------------------


def read(path: Path) -> list[Use]:
    """Return the trace in a file; a line that is none is told by its number."""
    uses = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if line.strip():
            try:
                uses.append(_checked(Use(**json.loads(line))))
            except (ValueError, TypeError, RecursionError) as error:
                problem = Problem(f"line {number}", brief(line), "at, service, bytes and load_seconds")
                raise ConfigError(f"{path} is no trace: {error}", problems=[problem]) from None
    return sorted(uses, key=lambda use: use.at)


def _checked(use: Use) -> Use:
    """Return a use whose fields are what they should be."""
    numbers = (use.at, use.bytes, use.load_seconds)
    if not all(type(one) in (int, float) and -1e15 < one < 1e18 for one in numbers):
        raise ValueError("times and sizes are numbers")
    if not isinstance(use.service, str) or use.bytes <= 0 or use.load_seconds < 0:
        raise ValueError("a service is named, and has a size")
    return use


def write(path: Path, uses: Sequence[Use]) -> None:
    """Write a trace that `read` reads."""
    path.write_text("".join(f"{json.dumps(asdict(use))}\n" for use in uses), encoding="utf-8")


def days(seed: int, *, calls: int = 2500, models: int = 14) -> list[Use]:
    """Return a made-up trace: somebody works with a few models for a while, then with others."""
    rng = random.Random(seed)
    sizes = [
        int(rng.choice((0.4, 0.8, 1.2, 1.6, 2.5, 3.3, 4.2, 6.0, 7.5)) * rng.uniform(0.8, 1.0) * _GB)
        for _ in range(models)
    ]
    loads = [1.5 + size / _GB * rng.choice((0.6, 1.0, 2.5)) for size in sizes]
    liked = [rng.paretovariate(1.1) for _ in range(models)]
    uses: list[Use] = []
    at, work = 0.0, [0]
    while len(uses) < calls:
        if not uses or rng.random() < 0.01:
            work = rng.choices(range(models), liked, k=rng.randint(2, 5))
            at += rng.expovariate(1 / 300)
        chosen = rng.choice(work) if rng.random() < 0.92 else rng.choices(range(models), liked)[0]
        for _ in range(1 + int(rng.expovariate(1 / 2))):
            uses.append(Use(at, f"model-{chosen}", sizes[chosen], loads[chosen]))
            at += rng.expovariate(1 / 8)
        at += rng.expovariate(1 / 40)
    return uses


# -- replayed --------------------------------------------------------------------------------------


def replay(uses: Sequence[Use], budget: int, policy: Policy) -> float:
    """Return how many seconds of loading a trace costs within a budget; what can never fit is left out."""
    there: dict[str, Use] = {}
    heats: dict[str, Heat] = {}
    last: dict[str, float] = {}
    cost, taken = 0.0, 0
    for use in (use for use in uses if use.bytes <= budget):
        name = use.service
        heat = heats.setdefault(name, Heat())
        if name not in last or use.at - last[name] > SPELL_SECONDS:
            heat.spell(use.at)
        last[name] = use.at
        if name in there:
            continue
        cost += use.load_seconds
        short = taken + use.bytes - budget
        if short > 0:
            candidates = [_candidate(one, last[one.service], heats[one.service]) for one in there.values()]
            for gone in choose(policy, candidates, need=short, now=use.at):
                taken -= there.pop(gone.name).bytes
        there[name] = use
        taken += use.bytes
    return cost


def _candidate(use: Use, last_used: float, heat: Heat) -> Candidate:
    return Candidate(
        use.service,
        use.bytes,
        last_used=last_used,
        load_seconds=use.load_seconds,
        spells=heat.spells,
        heat=heat.value,
        heat_at=heat.at,
    )


def clairvoyant(uses: Sequence[Use]) -> Policy:
    """Return a policy that knows the trace: what it lets go of is needed latest, or costs least."""
    times: dict[str, list[float]] = {}
    for use in uses:
        times.setdefault(use.service, []).append(use.at)

    def knows(candidate: Candidate, now: float) -> float:
        later = times[candidate.name]
        at = bisect_right(later, now)
        if at == len(later):
            return 0.0
        return candidate.load_seconds / (later[at] - now + 1e-3) / candidate.bytes

    return knows


def by_name(candidate: Candidate, now: float) -> float:
    """Those that are kept alive for equally long go in the order of their names."""
    return float(int.from_bytes(candidate.name.encode()[-6:], "big"))


#: what others do, beside our own
_PEERS: dict[str, Policy] = {**POLICIES, "keep-alive": by_name}


def table(traces: Sequence[Sequence[Use]], budgets: Sequence[str]) -> Table:
    """Return the seconds of loading that each policy costs within each budget, and beside a clairvoyant."""
    rows = []
    for budget in budgets:
        size = parse_size(budget)
        known = sum(replay(uses, size, clairvoyant(uses)) for uses in traces)
        row = [budget, f"{known:.0f} s"]
        for policy in _PEERS.values():
            cost = sum(replay(uses, size, policy) for uses in traces)
            row.append(f"{cost:.0f} s ({cost / known:.2f})" if known else "-")
        rows.append(tuple(row))
    return Table("seconds of loading, and beside a clairvoyant", ("budget", "clairvoyant", *_PEERS), rows)


def main(arguments: Sequence[str] | None = None, *, say: Callable[[str], object] = print) -> int:
    """Print the table; the exit status is 2 when the trace cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m grym_nb.hardening.replay", description=__doc__)
    parser.add_argument("trace", nargs="*", type=Path, metavar="TRACE.jsonl")
    parser.add_argument("--budget", nargs="+", default=_BUDGETS, metavar="8GB")
    parser.add_argument("--days", type=int, default=12, metavar="N", help="of made-up work (12)")
    asked = parser.parse_args(arguments)
    try:
        traces = [*map(read, asked.trace)] or [*_made_up(asked.days)]
        say(table(traces, asked.budget).text())
    except (OSError, GrymError) as error:
        say(str(error))
        return 2
    return 0


def _made_up(count: int) -> Iterator[list[Use]]:
    for seed in range(count):
        yield days(seed)


if __name__ == "__main__":
    sys.exit(main())
