"""Several features in one passage, of a clip or of a file of hours that is never in memory as a whole."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from grym_nb.audio.features.given import refuse, refuse_no_clip
from grym_nb.audio.features.windows import BLOCK, PLANS, Cutter, Need, Plan, Running, parts, run, tracked
from grym_nb.clip import Clip, files
from grym_nb.errors import AudioError, Problem, closest, says_what_it_takes
from grym_nb.render import brief, seconds

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float32]
    Source = Clip | str | os.PathLike[str]

__all__ = ["many", "stream"]


@says_what_it_takes
def many(source: Source, names: Iterable[str], **parameters: Any) -> dict[str, Any]:
    """Return several features of a clip, or of a file by its path, by name and in that order.

    What they share is computed once: windows of one size, their spectra, what begins, the beats. Parameters
    go to all of the features that take them: one `n_fft` and `hop` for all make them share most. A file is
    read in blocks and never held as a whole; the answers are those of its clip. Progress is told, and a
    cancel or deadline takes hold, between blocks.
    """
    asked = _asked(names)
    sound = _sound(source, ", ".join(asked))
    plans = _plans(asked, sound.rate, parameters)
    needs = [plan.need for plan in plans.values()]
    sound.refuse(needs)
    return run(plans, sound.rate, sound.channels, sound.blocks(needs))


@says_what_it_takes
def stream(source: Source, name: str, **parameters: Any) -> Iterator[npt.NDArray[Any]]:
    """Yield a feature of windows in pieces, windows along the last axis; put together they are the feature.

    For what would not fit in memory: the mel spectrogram of ten hours is written piece by piece. Features of
    the whole, such as tempo, cannot be had so; `many` makes them of a file.
    """
    asked = _asked([name])
    sound = _sound(source, asked[0])
    plan = _plans(asked, sound.rate, parameters)[name]
    if not (isinstance(plan, Plan) and plan.is_of_windows):
        pieces = sorted(n for n, p in _probes(sound.rate) if isinstance(p, Plan) and p.is_of_windows)
        expected = "one of " + ", ".join(pieces)
        refuse([Problem("name", f"{name!r}, which is made of the whole", expected)], hint="features.many")
    sound.refuse([plan.need])
    return _pieces(sound, plan)


def _pieces(sound: _Sound, plan: Plan[Any]) -> Iterator[npt.NDArray[Any]]:
    cutter = Cutter(sound.rate, {"it": plan})
    for block in sound.blocks([plan.need]):
        cutter.feed(block[0] if len(block) == 1 else block.mean(axis=0, dtype=np.float32))
        yield from cutter.taken().values()
    cutter.close()
    yield from cutter.taken().values()


def _probes(rate: int) -> Iterator[tuple[str, Plan[Any] | Running[Any]]]:
    return ((name, plan(rate)) for name, plan in PLANS.items())


# -- what is asked for -------------------------------------------------------------------------------


def _asked(names: object) -> list[str]:
    if isinstance(names, str) or not isinstance(names, Iterable):
        refuse([Problem("names", brief(names), 'several names, such as ["mel", "tempo"]')])
    asked = list(dict.fromkeys(names))
    problems = [
        Problem("names", brief(name), f"one of {', '.join(sorted(PLANS))}.{closest(str(name), PLANS)}")
        for name in asked
        if name not in PLANS
    ]
    if not asked:
        problems = [Problem("names", "none", "at least one")]
    if problems:
        refuse(problems)
    return asked


def _plans(names: list[str], rate: int, given: Mapping[str, Any]) -> dict[str, Plan[Any] | Running[Any]]:
    takes = {name: set(list(inspect.signature(PLANS[name]).parameters)[1:]) for name in names}
    known = set().union(*takes.values())
    if strange := [name for name in given if name not in known]:
        refuse(
            [Problem(name, brief(given[name]), f"a parameter of {', '.join(names)}") for name in strange],
            hint=f"they take {', '.join(sorted(known))}",
        )
    return {
        name: PLANS[name](rate, **{one: value for one, value in given.items() if one in takes[name]})
        for name in names
    }


# -- what it is asked of -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Held:
    """A clip in memory."""

    clip: Clip

    @property
    def rate(self) -> int:
        return self.clip.rate

    @property
    def channels(self) -> int:
        return self.clip.channels

    def refuse(self, needs: list[Need]) -> None:
        for need in needs:
            need.refuse(self.clip)

    def blocks(self, needs: list[Need]) -> Iterator[Array]:
        return iter(parts(self.clip))


@dataclass(frozen=True, slots=True)
class _Filed:
    """A file that is read as it is measured."""

    file: files.AudioFile
    what: str

    @property
    def rate(self) -> int:
        return self.file.rate

    @property
    def channels(self) -> int:
        return self.file.channels

    def refuse(self, needs: list[Need]) -> None:
        # By its header: nothing is decoded. Where that does not say how long it is, its end does.
        self._refuse(needs, 3600 * self.rate if self.file.frames is None else self.file.frames)

    def _refuse(self, needs: list[Need], frames: int) -> None:
        for need in needs:
            need.refuse(_Header(self.rate, self.channels, frames), finite=False)

    def blocks(self, needs: list[Need]) -> Iterator[Array]:
        total = None if self.file.frames is None else -(-self.file.frames // BLOCK)
        read = 0
        for block in tracked(files.blocks(self.file, BLOCK), total):
            if strays := block.size - int(np.count_nonzero(np.isfinite(block))):
                self._refuse_strays(strays, read)
            read += len(block)
            yield np.ascontiguousarray(block.T)
        self._refuse(needs, read)

    def _refuse_strays(self, strays: int, read: int) -> None:
        raise AudioError(
            f"{self.what} cannot use {str(self.file.path)!r}",
            cause=f"samples: found {strays} that are NaN or infinite, after {seconds(read / self.rate)}",
            hint="see what made them, or np.nan_to_num(clip.samples)",
        )


class _Header(Clip):
    """What the header of a file says, to be checked as a clip is."""

    __slots__ = ("_channels", "_frames")

    def __init__(self, rate: int, channels: int, frames: int) -> None:
        self._rate, self._channels, self._frames = rate, channels, frames

    @property
    def frames(self) -> int:
        """Samples per channel."""
        return self._frames

    @property
    def channels(self) -> int:
        """The number of channels."""
        return self._channels


_Sound = _Held | _Filed


def _sound(source: object, what: str) -> _Sound:
    if isinstance(source, (str, os.PathLike)):
        return _Filed(files.probe(source), what)
    refuse_no_clip(source, what)
    held: Any = source
    return _Held(held)
