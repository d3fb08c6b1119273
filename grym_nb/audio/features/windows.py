"""How features are made of a sound that passes once: windows of it, and what each feature makes of them.

A feature is a *plan*: what to make of a block of windows, and what of all that came of it. Plans with the
same windows share them and their spectra; and as a sound is never needed as a whole, a file of hours is
measured as a clip is, by the same lines.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

import numpy as np

from grym_nb.audio.features.given import refuse_no_clip
from grym_nb.errors import says_what_it_takes
from grym_nb.services.progress import track

if TYPE_CHECKING:
    import numpy.typing as npt

    from grym_nb.clip import Clip

    Array = npt.NDArray[np.float32]
    Exact = npt.NDArray[np.float64]

__all__ = [
    "BLOCK",
    "PLANS",
    "Cutter",
    "Gauge",
    "Need",
    "Plan",
    "Running",
    "Whole",
    "Windows",
    "feature",
    "measured",
    "parts",
    "run",
    "tracked",
]

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

BLOCK = 1 << 20  # samples of a channel that are taken at once
_AT_ONCE = 1 << 21  # samples in all windows that are transformed at once: bounds the memory
#: the plan of each feature that can be made of a sound as it passes, by name
PLANS: dict[str, Callable[..., Any]] = {}


@dataclass(frozen=True, slots=True)
class Need:
    """What a feature needs of a sound; `what` names it in the error."""

    what: str
    min_seconds: float = 0.0
    min_rate: int = 0
    max_channels: int | None = None

    def refuse(self, clip: Clip, *, finite: bool = True) -> None:
        """Raise one AudioError with all that cannot be used of a clip."""
        clip.checked(
            what=self.what,
            min_seconds=self.min_seconds,
            min_rate=self.min_rate,
            max_channels=self.max_channels,
            finite=finite,
        )


class _Kept:
    """What several features ask of one thing is made once."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` makes, made when `key` is first asked for."""
        if key not in self._made:
            self._made[key] = make()
        found: T = self._made[key]
        return found


class Whole(_Kept):
    """The sound that has passed: its rate in Hz, its length in samples and in seconds."""

    __slots__ = ("frames", "rate")

    def __init__(self, rate: int, frames: int) -> None:
        super().__init__()
        self.rate = rate
        self.frames = frames

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return self.frames / self.rate


class Windows(_Kept):
    """Windows of `length` samples at every `hop`-th of a stretch of mono sound."""

    __slots__ = ("hop", "length", "rate", "stretch")

    def __init__(self, stretch: Array, length: int, hop: int, rate: int) -> None:
        super().__init__()
        self.stretch = stretch
        self.length = length
        self.hop = hop
        self.rate = rate

    @property
    def samples(self) -> Array:
        """The samples in each window, ``(windows, length)``; a view."""
        return np.lib.stride_tricks.sliding_window_view(self.stretch, self.length)[:: self.hop]

    @property
    def power(self) -> Exact:
        """The power spectrum of each window under a Hann curve, ``(windows, 1 + length // 2)``."""
        return self.once("power", self._power)

    @property
    def magnitude(self) -> Exact:
        """The root of the power."""
        return self.once("magnitude", lambda: np.sqrt(self.power))

    def _power(self) -> Exact:
        hann = np.sin(np.pi * np.arange(self.length) / self.length) ** 2
        spectrum = np.fft.rfft(self.samples * hann, axis=1)
        return spectrum.real**2 + spectrum.imag**2


def _as_it_is(made: Any, whole: Whole) -> Any:
    return made


@dataclass(frozen=True, slots=True)
class Plan(Generic[T]):
    """A feature of windows centred on every `hop`-th sample, zeros beyond the ends.

    `of` returns for a block of windows an array with them along its last axis, `end` the feature of all
    such arrays in one.
    """

    need: Need
    length: int
    hop: int
    of: Callable[[Windows], npt.NDArray[Any]]
    end: Callable[[npt.NDArray[Any], Whole], T] = field(default=_as_it_is)

    @property
    def is_of_windows(self) -> bool:
        """Whether what is made of the windows is the feature already."""
        return self.end is _as_it_is


class Gauge(Protocol[T_co]):
    """What measures a sound as it passes."""

    def feed(self, block: Array) -> None:
        """Take the next samples, ``(channels, n)``."""

    def end(self, whole: Whole) -> T_co:
        """Return what was measured."""


@dataclass(frozen=True, slots=True)
class Running(Generic[T]):
    """A feature that is made of the samples themselves, all channels of them."""

    need: Need
    start: Callable[[int], Gauge[T]]  # with the number of channels


class Cutter:
    """Cuts a sound that passes into windows, and hands them to all plans that want such ones."""

    def __init__(self, rate: int, plans: Mapping[str, Plan[Any]]) -> None:
        first = next(iter(plans.values()))
        self._length, self._hop, self._rate = first.length, first.hop, rate
        self._plans = plans
        self._made: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in plans}
        self._waiting = np.zeros(self._length // 2, np.float32)
        self._skip = 0  # samples between windows that are yet to come
        self._most = max(1, _AT_ONCE // self._length)

    def feed(self, mono: Array) -> None:
        """Take the next samples, ``(n,)``."""
        skipped = min(self._skip, len(mono))
        self._skip -= skipped
        waiting = np.concatenate([self._waiting, mono[skipped:]])
        count = max(0, (len(waiting) - self._length) // self._hop + 1)
        for start in range(0, count, self._most):
            last = min(start + self._most, count) - 1
            self._hand(waiting[start * self._hop : last * self._hop + self._length])
        used = count * self._hop
        self._skip += max(0, used - len(waiting))
        self._waiting = waiting[used:].copy()

    def _hand(self, stretch: Array) -> None:
        windows = Windows(stretch, self._length, self._hop, self._rate)
        for name, plan in self._plans.items():
            self._made[name].append(plan.of(windows))

    def taken(self) -> dict[str, npt.NDArray[Any]]:
        """Return what was made since it was last asked, by name; nothing where no window was full."""
        made = {name: np.concatenate(parts, axis=-1) for name, parts in self._made.items() if parts}
        self._made = {name: [] for name in self._plans}
        return made

    def close(self) -> None:
        """Take the zeros beyond the end."""
        self.feed(np.zeros(self._length // 2, np.float32))


class _Passage:
    """One passage of a sound by all plans."""

    def __init__(self, plans: Mapping[str, Plan[Any] | Running[Any]], rate: int, channels: int) -> None:
        self._plans = plans
        self._rate = rate
        self._frames = 0
        alike: dict[tuple[int, int], dict[str, Plan[Any]]] = {}
        for name, plan in plans.items():
            if isinstance(plan, Plan):
                alike.setdefault((plan.length, plan.hop), {})[name] = plan
        self._cutters = [Cutter(rate, some) for some in alike.values()]
        self._gauges = {n: p.start(channels) for n, p in plans.items() if isinstance(p, Running)}

    def feed(self, block: Array) -> None:
        """Take the next samples, ``(channels, n)``."""
        self._frames += block.shape[1]
        for gauge in self._gauges.values():
            gauge.feed(block)
        if self._cutters:
            mono = block[0] if len(block) == 1 else block.mean(axis=0, dtype=np.float32)
            for cutter in self._cutters:
                cutter.feed(mono)

    def end(self) -> dict[str, Any]:
        """Return the features, in the order of the plans."""
        whole = Whole(self._rate, self._frames)
        made: dict[str, npt.NDArray[Any]] = {}
        for cutter in self._cutters:
            cutter.close()
            made |= cutter.taken()
        answers = {}
        for name, plan in self._plans.items():
            if isinstance(plan, Plan):
                answers[name] = plan.end(made[name], whole)
            else:
                answers[name] = self._gauges[name].end(whole)
        return answers


def run(
    plans: Mapping[str, Plan[Any] | Running[Any]], rate: int, channels: int, blocks: Iterable[Array]
) -> dict[str, Any]:
    """Return the features of a sound that comes in blocks ``(channels, n)``, by the names of the plans."""
    passage = _Passage(plans, rate, channels)
    for block in blocks:
        passage.feed(block)
    return passage.end()


def measured(clip: Clip, plan: Plan[T] | Running[T]) -> T:
    """Return one feature of a clip."""
    plan.need.refuse(clip)
    answer: T = run({"it": plan}, clip.rate, clip.channels, parts(clip))["it"]
    return answer


def parts(clip: Clip) -> Iterable[Array]:
    """Return the samples of a clip in blocks ``(channels, n)``; views."""
    samples = np.atleast_2d(clip.samples)
    blocks = [samples[:, start : start + BLOCK] for start in range(0, clip.frames, BLOCK)]
    return tracked(blocks, len(blocks))


def tracked(blocks: Iterable[T], total: int | None) -> Iterable[T]:
    """Return blocks between which progress is told and a cancel takes hold, where there are several."""
    return blocks if total is not None and total < 2 else track(blocks, total=total)


def feature(
    planned: Callable[Concatenate[int, P], Plan[T] | Running[T]],
) -> Callable[Concatenate[Clip, P], T]:
    """Return the feature that a function plans, which takes a clip where the plan takes its rate."""
    signature = inspect.signature(planned)
    first, *rest = signature.parameters.values()
    shown = [first.replace(name="clip", annotation="Clip"), *rest]
    plan = says_what_it_takes(planned)
    name = planned.__name__

    def measure(clip: Clip, /, *args: P.args, **kwargs: P.kwargs) -> T:
        refuse_no_clip(clip, name)
        return measured(clip, plan(clip.rate, *args, **kwargs))

    told: Any = wraps(planned)(measure)
    answer = str(signature.return_annotation).removeprefix("Plan[").removeprefix("Running[").removesuffix("]")
    told.__signature__ = signature.replace(parameters=shown, return_annotation=answer)
    told.__annotations__ = {p.name: p.annotation for p in shown} | {"return": answer}
    planned.__signature__ = told.__signature__  # type: ignore[attr-defined]
    PLANS[name] = plan
    made: Callable[Concatenate[Clip, P], T] = says_what_it_takes(told)
    return made
