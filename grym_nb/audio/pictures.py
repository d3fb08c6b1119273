"""Pictures of sound as matplotlib figures of their own: no pyplot, no window, no global state.

Each returns a `Figure`, which a notebook shows and ``figure.savefig("x.png")`` keeps; with `axes` it draws
there instead. Spectra are drawn as images, an hour as quickly as a minute.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from grym_nb.audio import features
from grym_nb.audio.features.given import refuse, refuse_no_clip
from grym_nb.clip.files import package
from grym_nb.errors import Problem, says_what_it_takes
from grym_nb.render import brief

if TYPE_CHECKING:
    import numpy.typing as npt

    from grym_nb.clip import Clip

__all__ = ["chroma", "mel", "waveform"]

_WIDE = (8.0, 2.6)  # inches
_COLUMNS = 1600  # of a picture at most: more than a screen has
_SOUND, _BEAT = "#2b87d1", "#35d0ff"
_NOTES = ("C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B")
_RANGE_DB = 80.0


@says_what_it_takes
def waveform(clip: Clip, *, beats: bool = False, axes: Any = None) -> Any:
    """Return a figure of the wave over seconds: the lowest and highest sample of each column, all channels.

    With `beats`, a line at each.
    """

    def draw(axes: Any) -> None:
        samples = np.atleast_2d(clip.samples)
        lanes = len(samples)
        high = max(1.0, float(np.abs(samples).max()))
        starts = np.unique(np.linspace(0, clip.frames, _COLUMNS, endpoint=False).astype(np.intp))
        times = np.append(starts, clip.frames) / clip.rate
        for lane, channel in enumerate(samples):
            centre = -2.0 * lane
            low, top = np.minimum.reduceat(channel, starts), np.maximum.reduceat(channel, starts)
            edges = [np.append(edge, edge[-1]) / high + centre for edge in (low, top)]
            axes.fill_between(times, *edges, step="post", color=_SOUND, linewidth=0.6)
        axes.set_ylim(-2.0 * lanes + 0.95, 1.05)
        if lanes == 1:
            axes.set_yticks([-1, 0, 1], [f"{-high:.2g}", "0", f"{high:.2g}"])
        else:
            at = [-2.0 * lane for lane in range(lanes)]
            axes.set_yticks(at, [f"channel {lane + 1}" for lane in range(lanes)])
        if beats:
            _draw_beats(axes, clip, color="#d1432b")

    return _drawn(clip, "waveform", draw, axes)


@says_what_it_takes
def mel(clip: Clip, *, n_mels: int = 80, axes: Any = None, **parameters: Any) -> Any:
    """Return a figure of the mel spectrogram in dB over seconds, 80 dB down from the loudest.

    `parameters` are those of `features.mel`.
    """

    def draw(axes: Any) -> None:
        db = features.mel(clip, n_mels=n_mels, db=True, **parameters)
        top = float(db.max())
        image = _image(axes, clip, db, top - _RANGE_DB, top, "magma")
        low, high = parameters.get("fmin", 0.0), parameters.get("fmax") or clip.rate / 2
        scale = package("librosa.core.convert", purpose="a picture of mel").mel_frequencies
        centres = scale(n_mels + 2, fmin=low, fmax=high)[1:-1]
        wanted = [hz for hz in (250, 500, 1000, 2000, 4000, 8000, 16_000) if low < hz < centres[-1]]
        at = np.interp(wanted, centres, np.arange(n_mels))
        axes.set_yticks(at, [f"{hz // 1000} kHz" if hz >= 1000 else f"{hz} Hz" for hz in wanted])
        bar = axes.figure.colorbar(image, ax=axes, format="%d dB", pad=0.01)
        bar.ax.tick_params(labelsize=8)

    return _drawn(clip, "mel", draw, axes)


@says_what_it_takes
def chroma(clip: Clip, *, beats: bool = True, axes: Any = None, **parameters: Any) -> Any:
    """Return a figure of the strength of the twelve notes over seconds, with a line at each beat.

    `parameters` are those of `features.chroma`.
    """

    def draw(axes: Any) -> None:
        strength = features.chroma(clip, **parameters)
        _image(axes, clip, strength, 0.0, 1.0, "magma")
        axes.set_yticks(range(12), _NOTES)
        if beats:
            _draw_beats(axes, clip, color=_BEAT)

    return _drawn(clip, "chroma", draw, axes)


def _drawn(clip: Clip, what: str, draw: Callable[[Any], None], axes: Any) -> Any:
    refuse_no_clip(clip, f"a picture of {what}")
    clip.checked(what=f"a picture of {what}")
    if axes is None:
        package("matplotlib", purpose="drawing")
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=_WIDE, dpi=100, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
    elif not hasattr(axes, "imshow"):
        refuse([Problem("axes", brief(axes), "matplotlib axes, such as figure.add_subplot()")])
    draw(axes)
    axes.set_xlim(0, clip.seconds)
    axes.set_xlabel("seconds", fontsize=8)
    axes.tick_params(labelsize=8)
    return axes.figure


def _image(axes: Any, clip: Clip, rows: npt.NDArray[Any], low: float, high: float, colours: str) -> Any:
    """Draw rows, the first at the bottom; of windows that share a column, the strongest."""
    count = rows.shape[1]
    if count > _COLUMNS:
        starts = np.linspace(0, count, _COLUMNS, endpoint=False).astype(np.intp)
        rows = np.maximum.reduceat(rows, starts, axis=1)
    extent = (0.0, clip.seconds, -0.5, len(rows) - 0.5)
    return axes.imshow(
        rows,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=extent,
        vmin=low,
        vmax=high,
        cmap=colours,
    )


def _draw_beats(axes: Any, clip: Clip, *, color: str) -> None:
    low, high = axes.get_ylim()
    if clip.seconds >= 1 and clip.rate >= 4000:  # less has no beat
        axes.vlines(features.beats(clip), low, high, color=color, linewidth=0.8, alpha=0.8)
    axes.set_ylim(low, high)
