"""One step after another over a clip: trimmed, measured, taken apart, with a look at each answer between."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from grym_nb.audio import features
from grym_nb.audio.features.given import refuse, refuse_no_clip
from grym_nb.errors import (
    AudioError,
    CallCancelled,
    CallTimeout,
    GrymError,
    Problem,
    closest,
    says_what_it_takes,
)
from grym_nb.render import Table, brief
from grym_nb.services.progress import track

if TYPE_CHECKING:
    from grym_nb.clip import Clip

    Step = str | Sequence[str] | Callable[[Clip], Any]

__all__ = ["Processed", "process"]


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Processed(Mapping[str, Any]):
    """What came of each step, by name: a mapping of the answers, as far as it went.

    `failed` names the step that ended it, empty where none did; `error` says why; `skipped` are those after
    it; `seconds` is what each step took.
    """

    answers: Mapping[str, Any]
    failed: str = ""
    error: GrymError | None = None
    skipped: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether all steps have run."""
        return not self.failed

    def __getitem__(self, name: str) -> Any:
        if name in self.answers:
            return self.answers[name]
        if name == self.failed or name in self.skipped:
            assert self.error is not None
            raise AudioError(
                f"there is no {name!r}: the step {self.failed!r} failed",
                cause=" ".join(self.error.lines()[:2]),
                hint=self.error.hint,
            )
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.answers)

    def __len__(self) -> int:
        return len(self.answers)

    def _table(self) -> Table:
        rows = [(name, "done", brief(answer)) for name, answer in self.answers.items()]
        if self.error is not None:
            rows.append((self.failed, "failed", self.error.message))
        rows += [(name, "not run", "") for name in self.skipped]
        caption = f"{len(self.answers)} of {len(rows)} steps done"
        return Table(caption, ("step", "state", "answer"), rows)

    def __repr__(self) -> str:
        return self._table().text()

    def _repr_html_(self) -> str:
        return self._table().html()


@says_what_it_takes
def process(
    clip: Clip,
    steps: Mapping[str, Step] | Sequence[str],
    *,
    healthy: Callable[[], object] | None = None,
    into: MutableMapping[str, Any] | None = None,
) -> Processed:
    """Return what came of the steps over a clip, one after the other, as `Processed`.

    A step is a feature by its name, several of them as a list (made in one passage), or any function of a
    clip. One that returns a clip hands it on to the steps after it. Each answer is looked at before the next
    step: a clip without samples, or with such that are NaN or infinite, and an array with infinite numbers
    end it, as does `healthy`, a check such as a service's `ping`, when it raises or returns False. What was
    done by then is kept. Between steps progress is told, and a cancel takes hold; `into` has then what was
    done.
    """
    refuse_no_clip(clip, "process")
    chosen = _chosen(steps)
    answers: MutableMapping[str, Any] = {} if into is None else into
    done: dict[str, Any] = {}
    took: dict[str, float] = {}
    for at, (name, step) in enumerate(track(list(chosen.items()))):
        began = time.perf_counter()
        try:
            if healthy is not None and healthy() is False:
                raise AudioError("the check between two steps says no", hint="see what it looks at")
            answer = _answer(clip, step)
            _refuse_unfit(name, answer)
        except (CallCancelled, CallTimeout):
            raise
        except Exception as error:
            skipped = tuple(chosen)[at + 1 :]
            return Processed(done, name, _told(name, error), skipped, took)
        took[name] = time.perf_counter() - began
        done[name] = answers[name] = answer
        if hasattr(answer, "checked"):
            clip = answer
    return Processed(done, seconds=took)


def _chosen(steps: object) -> Mapping[str, Step]:
    if isinstance(steps, Sequence) and not isinstance(steps, str):
        steps = {str(name): name for name in steps}
    if not (isinstance(steps, Mapping) and steps):
        refuse([Problem("steps", brief(steps), 'steps, such as ["trim", "tempo"] or {"mel": features.mel}')])
    known = sorted(name for name in features.__all__ if name.islower() and name not in ("many", "stream"))
    problems = []
    for name, step in steps.items():
        inside = [step] if isinstance(step, str) else step
        if callable(step):
            continue
        if not isinstance(inside, Sequence):
            problems.append(Problem(f"steps.{name}", brief(step), "a feature, or a function of a clip"))
            continue
        allowed = known if isinstance(step, str) else [one for one in known if one not in ("trim", "hpss")]
        problems += [
            Problem(f"steps.{name}", brief(one), f"one of {', '.join(allowed)}.{closest(str(one), allowed)}")
            for one in inside
            if one not in allowed
        ]
    if problems:
        refuse(problems)
    return steps


def _answer(clip: Clip, step: Step) -> Any:
    if callable(step):
        return step(clip)
    if isinstance(step, str):
        return getattr(features, step)(clip)
    return features.many(clip, step)


def _refuse_unfit(name: str, answer: Any) -> None:
    """Raise for an answer that nothing after it could use."""
    if hasattr(answer, "checked"):
        answer.checked(what=f"what comes after {name}")
    elif isinstance(answer, np.ndarray) and answer.dtype.kind in "fc" and np.isinf(answer).any():
        found = int(np.count_nonzero(np.isinf(answer)))
        raise AudioError(f"{name} answers with {found} infinite numbers", hint="see what it was given")
    elif isinstance(answer, Mapping):
        for inner, value in answer.items():
            _refuse_unfit(f"{name}.{inner}", value)


def _told(name: str, error: Exception) -> GrymError:
    """Return the error as text that holds no frames."""
    if isinstance(error, GrymError):
        kept = error.again()
        kept.__cause__ = kept.__context__ = None
        return kept
    return AudioError(
        f"the step {name!r} raised", cause=f"{type(error).__name__}: {error}", hint="see what the step does"
    )
