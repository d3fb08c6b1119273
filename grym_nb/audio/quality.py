"""Whether a sound that a model has made can be used: numbers, range, silence, clipping, length."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, log10
from typing import TYPE_CHECKING

import numpy as np

from grym_nb.audio.features.given import between, refuse_no_clip, refuse_wrong
from grym_nb.errors import AudioError, Problem, says_what_it_takes
from grym_nb.render import Table, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from grym_nb.clip import Clip

__all__ = ["Quality", "checked", "judged"]

_CLIPPED = 0.999  # of full scale
_RUN = 3  # samples in a row that high are cut off; one or two are a peak
_OFFSET = 0.1  # of full scale, in the mean
_SILENT_DB = -70.0
_ADVICE = {
    "samples": "see what made them: half precision overflows, float32 or bfloat16 does not",
    "range": "clip.samples / abs(clip.samples).max(), or fewer steps of guidance",
    "silence": "another seed or prompt; a vocoder of another checkpoint also makes none",
    "clipping": "make it less loud before it is cut off",
    "offset": "take the mean away: clip.samples - clip.samples.mean()",
    "length": "see what the model was asked for, and its rate",
}


@dataclass(frozen=True, slots=True)
class Quality:
    """What was found in a sound, and what is wrong with it; see `judged`."""

    seconds: float
    rate: int
    strays: int  # samples that are NaN or infinite
    peak: float  # the largest absolute sample that is finite
    level_db: float  # of the mean square, in dB of full scale; -inf for silence
    silent: float  # the share of the sound, 0 to 1, in windows of 50 ms below -70 dB
    clipped: float  # the share of samples in runs of three and more at full scale
    offset: float  # the mean of the samples
    problems: tuple[Problem, ...]

    @property
    def good(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.problems

    def _table(self) -> Table:
        wrong = {problem.path: problem.expected for problem in self.problems}
        found = {
            "samples": f"{self.strays} that are NaN or infinite" if self.strays else "all finite",
            "range": f"peak {self.peak:.3f}",
            "silence": f"{self.silent:.0%} silent, {self.level_db:.1f} dBFS in the mean",
            "clipping": f"{self.clipped:.2%} cut off",
            "offset": f"mean {round(self.offset, 4) + 0.0:+.4f}",
            "length": f"{seconds(self.seconds)} at {self.rate} Hz",
        }
        rows = [
            (name, text, f"expected {wrong[name]}" if name in wrong else "ok") for name, text in found.items()
        ]
        caption = "quality: good" if self.good else f"quality: {len(self.problems)} wrong"
        return Table(caption, ("what", "found", "verdict"), rows)

    def __repr__(self) -> str:
        return self._table().text()

    def _repr_html_(self) -> str:
        return self._table().html()


@says_what_it_takes
def judged(
    clip: Clip,
    *,
    seconds: float | None = None,
    within_s: float = 0.05,
    most_silent: float = 0.9,
    most_clipped: float = 0.001,
    peak: float = 1.0,
) -> Quality:
    """Return the `Quality` of a clip, with all that is wrong with it.

    Wrong is: samples that are NaN or infinite; more than `peak`; more than `most_silent` of it below -70 dB;
    more than `most_clipped` of it cut off at full scale; a mean of more than a tenth of full scale; no
    samples; and, where `seconds` says what was asked for, a length that is not that, give or take `within_s`.
    """
    refuse_no_clip(clip, "judged")
    problems = [*between("within_s", within_s, 0.0, inf), *between("most_silent", most_silent, 0.0, 1.0)]
    problems += [*between("most_clipped", most_clipped, 0.0, 1.0), *between("peak", peak, 0.0, inf)]
    refuse_wrong(problems + ([] if seconds is None else between("seconds", seconds, 0.0, inf)))
    samples = np.atleast_2d(clip.samples)
    finite = np.isfinite(samples)
    sound = np.where(finite, samples, np.float32(0))
    highest = float(np.abs(sound).max(initial=0.0))
    power = float(np.mean(sound.astype(np.float64) ** 2)) if sound.size else 0.0
    found = Quality(
        seconds=clip.seconds,
        rate=clip.rate,
        strays=int(samples.size - np.count_nonzero(finite)),
        peak=highest,
        level_db=10 * log10(power) if power > 0 else -inf,
        silent=_silent(sound, clip.rate),
        clipped=_clipped(sound),
        offset=float(sound.mean(dtype=np.float64)) if sound.size else 0.0,
        problems=(),
    )
    wrong = [
        *_unfit(found, peak, most_silent, most_clipped),
        *([] if seconds is None else _wrong_length(found, seconds, within_s)),
    ]
    return replace(found, problems=tuple(wrong))


@says_what_it_takes
def checked(clip: Clip, *, what: str = "the model's answer", **bounds: float | None) -> Clip:
    """Return the clip, or raise an AudioError that lists all that is wrong with what a model has returned.

    `bounds` are those of `judged`; `details["quality"]` of the error has the whole report.
    """
    refuse_no_clip(clip, "checked")
    found: Quality = judged(clip, **bounds)  # type: ignore[arg-type]
    if found.good:
        return clip
    raise AudioError(
        f"{what} is no sound that can be used: {clip!r}",
        cause="; ".join(map(str, found.problems)),
        hint="; ".join(_ADVICE[problem.path] for problem in found.problems),
        problems=found.problems,
        quality=found,
    )


def _unfit(found: Quality, peak: float, most_silent: float, most_clipped: float) -> Sequence[Problem]:
    problems = []
    if not found.seconds:
        problems.append(Problem("length", "no samples", "some"))
    if found.strays:
        problems.append(Problem("samples", f"{found.strays} that are NaN or infinite", "finite numbers"))
    if found.peak > peak * (1 + 1e-6):
        problems.append(Problem("range", f"a peak of {found.peak:.3g}", f"at most {peak:g}"))
    if found.seconds and found.silent > most_silent:
        problems.append(Problem("silence", f"{found.silent:.0%} silent", f"at most {most_silent:.0%}"))
    if found.clipped > most_clipped:
        problems.append(Problem("clipping", f"{found.clipped:.2%} cut off", f"at most {most_clipped:.2%}"))
    if abs(found.offset) > _OFFSET:
        problems.append(Problem("offset", f"a mean of {found.offset:+.3f}", f"within {_OFFSET:g} of 0"))
    return problems


def _wrong_length(found: Quality, wanted: float, within_s: float) -> Sequence[Problem]:
    if not found.seconds or abs(found.seconds - wanted) <= within_s:
        return []
    return [Problem("length", seconds(found.seconds), f"{seconds(wanted)} ± {seconds(within_s)}")]


def _silent(sound: npt.NDArray[np.float32], rate: int) -> float:
    """Return which share of the windows of 50 ms is silent in all channels."""
    count = sound.shape[1]
    if not count:
        return 1.0
    starts = np.arange(0, count, max(1, round(0.05 * rate)))
    power = np.add.reduceat(sound.astype(np.float64) ** 2, starts, axis=1).max(axis=0)
    lengths = np.diff(np.append(starts, count))
    quiet = power / lengths < 10 ** (_SILENT_DB / 10)
    return float((lengths * quiet).sum() / count)


def _clipped(sound: npt.NDArray[np.float32]) -> float:
    """Return which share of the samples lies in runs that are as high as can be, of one sign."""
    if not sound.size:
        return 0.0
    total = 0
    # A wave that goes beyond full scale is cut off there as soon as it is played.
    for channel in sound:
        for high in (channel >= _CLIPPED, channel <= -_CLIPPED):
            edges = np.flatnonzero(np.diff(high.astype(np.int8), prepend=0, append=0))
            runs = edges[1::2] - edges[::2]
            total += int(runs[runs >= _RUN].sum())
    return total / sound.size
