"""Where there is sound, and where somebody speaks: by the level of windows of 10 ms."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np

from grym_nb.audio.features.given import between, refuse_no_clip, refuse_wrong
from grym_nb.audio.features.windows import PLANS, Need, Plan, Whole, Windows, feature, measured
from grym_nb.errors import says_what_it_takes

if TYPE_CHECKING:
    import numpy.typing as npt

    from grym_nb.clip import Clip

    Exact = npt.NDArray[np.float64]
    Spans = list[tuple[float, float]]

__all__ = ["split", "trim", "voiced"]

_WINDOW_S = 0.01
_FLOOR_DB = -100.0  # no sound at all
_QUIET_DB = -80.0  # the least that counts as the noise of a room
_QUIETEST = 10.0  # per cent of the windows are what lies under a voice


@feature
def split(
    rate: int, *, below_db: float = 40.0, pause_s: float = 0.1, least_s: float = 0.0
) -> Plan[list[tuple[float, float]]]:
    """Return where there is sound, as (start, end) in seconds, ascending; an empty list for silence.

    Silence is what is more than `below_db` below the loudest 10 ms, or below -100 dB. Pauses shorter than
    `pause_s` are part of the sound; sounds shorter than `least_s` are not. To 5 ms, and no sound is cut.
    """
    problems = between("below_db", below_db, 1.0, 100.0)
    problems += between("pause_s", pause_s, 0.0, 3600.0)
    refuse_wrong(problems + between("least_s", least_s, 0.0, 3600.0))

    def end(levels: npt.NDArray[Any], whole: Whole) -> Spans:
        loud = levels > max(_FLOOR_DB, float(levels.max()) - below_db)
        return _lasting(_spans(loud, rate, whole), pause_s, least_s)

    return _plan("split", rate, end)


@says_what_it_takes
def trim(clip: Clip, *, below_db: float = 40.0) -> Clip:
    """Return the clip without the silence before and after it; an empty clip where all is silent.

    Silence is what is more than `below_db` below the loudest 10 ms, or below -100 dB; no sound is cut.
    """
    refuse_no_clip(clip, "trim")
    plan: Plan[Spans] = PLANS["split"](clip.rate, below_db=below_db, pause_s=0.0)
    spans = measured(clip, Plan(Need("trim"), plan.length, plan.hop, plan.of, plan.end))
    return clip.cut(spans[0][0], spans[-1][1]) if spans else clip.cut(0.0, 0.0)


@feature
def voiced(
    rate: int,
    *,
    on_db: float = 12.0,
    off_db: float = 6.0,
    floor_db: float | None = None,
    pause_s: float = 0.2,
    least_s: float = 0.1,
) -> Plan[list[tuple[float, float]]]:
    """Return where somebody speaks, as (start, end) in seconds, ascending, by how loud it is.

    From where it is `on_db` above the noise to where it falls below `off_db` above it. The noise is as loud
    as the quietest tenth of the clip, -80 dB at least, or `floor_db` (dB of full scale, mean square): say it
    for what has no pauses. Pauses shorter than `pause_s` count as speech, speech shorter than `least_s` does
    not. It tells loud from quiet, and not a voice from a door.
    """
    problems = [*between("on_db", on_db, 0.0, 100.0), *between("off_db", off_db, 0.0, on_db)]
    problems += [*between("pause_s", pause_s, 0.0, 3600.0), *between("least_s", least_s, 0.0, 3600.0)]
    refuse_wrong(problems + ([] if floor_db is None else between("floor_db", floor_db, -200.0, 0.0)))

    def end(levels: npt.NDArray[Any], whole: Whole) -> Spans:
        noise = max(_QUIET_DB, float(np.percentile(levels, _QUIETEST))) if floor_db is None else floor_db
        audible = levels > noise + off_db
        begun = np.concatenate([[False], audible])
        run = np.cumsum(audible & ~begun[:-1])  # the number of the stretch that each window is in
        loud = np.zeros(int(run[-1]) + 1, np.bool_)
        loud[run[audible & (levels > noise + on_db)]] = True
        return _lasting(_spans(audible & loud[run], rate, whole), pause_s, least_s)

    return _plan("voiced", rate, end)


def _plan(what: str, rate: int, end: Any) -> Plan[Spans]:
    length = max(2, 2 * round(_WINDOW_S * rate / 2))

    def of(windows: Windows) -> Exact:
        power = np.concatenate([[0.0], np.cumsum(windows.stretch.astype(np.float64) ** 2)])
        starts = np.arange(len(windows.samples)) * windows.hop
        mean = np.maximum(0.0, power[starts + length] - power[starts]) / length
        levels: Exact = 10 * np.log10(np.maximum(mean, 1e-12))
        return levels

    return Plan(Need(what), length, length // 2, of, end)


def _spans(loud: npt.NDArray[np.bool_], rate: int, whole: Whole) -> Spans:
    """Return the stretches of loud windows in seconds, as much of them as may be loud."""
    hop = max(1, round(_WINDOW_S * rate / 2))
    padded = np.concatenate([[False], loud, [False]])
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    # A window that has become loud has sound in its second half; the last loud one, in its first.
    starts = edges[::2] * hop / rate
    ends = (edges[1::2] - 1) * hop / rate
    return [
        (float(max(0.0, start)), float(min(whole.seconds, max(start + hop / rate, end))))
        for start, end in zip(starts, ends, strict=True)
    ]


def _lasting(spans: Spans, pause_s: float, least_s: float) -> Spans:
    """Return the spans with short pauses between them closed, without those that are short then."""
    joined: Spans = []
    last = nan
    for start, end in spans:
        if joined and start - last < pause_s:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
        last = end
    return [(start, end) for start, end in joined if end - start >= least_s]
