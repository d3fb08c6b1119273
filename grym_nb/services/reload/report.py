"""What came of a reload, to be read: in a cell as text or HTML, later in the history of the service."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from grym_nb.render import Table, count, seconds, size

__all__ = ["By", "How", "Reload", "noted"]

How = Literal["unchanged", "in place", "loaded", "at load", "refused", "taken back", "split"]

#: who began it: somebody who asked for it, a file that was saved, or a call that failed on new code
By = Literal["asked", "watch", "calls"]

_TOLD = 20  # reloads that are remembered of a service
_WORDS: Mapping[How, str] = {
    "unchanged": "is as it was",
    "in place": "has new code, and its weights as they were",
    "loaded": "has new code, and was loaded anew",
    "at load": "has new code, and is loaded at its next call",
    "refused": "goes on with the code it had",
    "taken back": "has the code of before again",
    "split": "is in force",
}


@dataclass(slots=True, eq=False, repr=False)
class Reload:
    """One reload of a service: what it came to, and why; what ran again, and how long each step took.

    `outside()` counts, by class, the objects of changed classes that no service holds and that are alive as
    it is asked: they keep the code that they had, for a variable cannot be made to be another object. So do
    bound methods of its older models, counted as ``Class.method``.
    """

    service: str
    at: float
    before: str  # the version that served
    after: str  # the one that serves since
    how: How
    why: str = ""
    seconds: dict[str, float] = field(default_factory=dict)  # by step
    ran: Sequence[str] = ()  # the statements that ran again, by file and line
    carried: int = 0  # the statements that did not
    bytes_kept: int = 0  # of weights that stayed where they are
    tried: int = 0  # calls that were made on the new code before it served
    under_way: int = 0  # calls that were running as it came, and end on the code with which they began
    notes: tuple[str, ...] = ()  # what was not tried, what goes on with the old code
    share: float = 1.0  # of the calls, that the new code answers; the version before has the rest
    answered: int = 0  # calls that the new code failed, and the version before has answered
    by: By = "asked"
    numbers: tuple[int, int] = (0, 0)  # of the two versions: a label may stand for many
    sources: Mapping[str, tuple[str, str]] = field(
        default_factory=dict
    )  # by file: the text before, and after
    outside: Callable[[], Mapping[str, int]] = dict

    @property
    def line(self) -> str:
        """Say it in a line."""
        version = self.after if self.before == self.after else f"{self.before} → {self.after}"
        done = self.how not in ("unchanged", "refused", "at load")  # else it took no time to come to that
        took = f" in {seconds(sum(self.seconds.values()))}" if self.seconds and done else ""
        why = f": {self.why}" if self.why else ""
        some = (
            ""
            if self.share >= 1.0 and self.how != "split"
            else f" for {100.0 * self.share:.3g} % of the calls"
        )
        return f"{self.service} {version} {_WORDS[self.how]}{some}{took}{why}"

    def table(self) -> Table:
        """Return all there is to say, as a table."""
        rows = [(step, seconds(took)) for step, took in self.seconds.items()]
        if self.ran or self.carried:
            rows.append(("ran again", f"{count(len(self.ran), 'statement')}, {self.carried} carried over"))
            rows += [("", one) for one in self.ran[:10]]
        if self.bytes_kept:
            rows.append(("weights kept", size(self.bytes_kept)))
        if self.tried:
            rows.append(("tried before", count(self.tried, "call")))
        if self.under_way:
            rows.append(("under way", f"{count(self.under_way, 'call')}, to end on {self.before}"))
        if self.answered:
            rows.append((f"answered by {self.before}", count(self.answered, "call")))
        rows += [("outside", _kept(many, name)) for name, many in self.outside().items()]
        rows += [("note", note) for note in self.notes]
        return Table(self.line, ("", ""), rows)

    def __repr__(self) -> str:
        table = self.table()
        return table.text() if table.rows else self.line

    def _repr_html_(self) -> str:
        table = self.table()
        return table.html() if table.rows else f"<p>{html.escape(self.line)}</p>"


def _kept(many: int, name: str) -> str:
    keep = "keeps" if many == 1 else "keep"
    what = f"{count(many, 'bound method')} {name}" if "." in name else f"{count(many, 'object')} of {name}"
    return f"{what} that no service holds {keep} the code of before"


def noted(reports: tuple[Reload, ...], report: Reload) -> tuple[Reload, ...]:
    """Return a history with a report at its end; where it has a place in it already, that is its place."""
    return reports if report in reports else (*reports, report)[-_TOLD:]
