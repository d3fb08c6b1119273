"""How a clip looks and sounds in a notebook: a player, a picture of the waveform, a line of facts.

All of it is HTML that JupyterLab's sanitizer keeps, bounded in size, and the same bytes for equal clips, so
that running a notebook again does not change its file.
"""

from __future__ import annotations

import base64
import html as markup
import io
import logging
import zlib
from typing import TYPE_CHECKING, Any

from grym_nb.clip import files
from grym_nb.errors import GrymError, MissingExtra
from grym_nb.render import seconds

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from grym_nb.clip.sound import Clip

    Samples = npt.NDArray[np.float32]

__all__ = ["html"]

_log = logging.getLogger(__name__)

_URI_BYTES = 300_000  # of the player's data URI
_OGG_BYTES = (_URI_BYTES - 64) * 3 // 4  # base64 makes four bytes of three
_PNG_BYTES = 20_000
_WORTH_TRYING = 4_000_000  # samples; sound that is no silence takes 0.4 bits of Vorbis each and more
_PLAYED_RATE = 22_050
# CSS pixels; drawn at twice that for dense screens
_WIDTH, _TOP, _LANE, _GAP, _BOTTOM = 560, 6, 46, 10, 16
# One colour each for both themes: 3.8:1 and 4.0:1 on white, 4.9:1 and 4.8:1 on #111.
_SOUND = "#2b87d1"
_SCALE = "#808080"


def html(clip: Clip) -> str:
    """Return a clip's player, waveform and facts as HTML; an empty string where nothing can be shown."""
    try:
        return _figure(clip)
    except GrymError as error:  # a file that cannot be decoded, said where the player would be
        return f"<p>{_escaped(repr(clip))}: {_escaped(error.message)}</p>"
    except Exception:
        _log.debug("a clip could not be shown", exc_info=True)  # a repr never raises
        return ""


def _figure(clip: Clip) -> str:
    import numpy as np

    facts = [repr(clip)[5:-1]]
    if not clip.frames:
        return f"<p>{_escaped(repr(clip))}: empty, nothing to hear</p>"
    heard = clip.samples
    notes = []
    if strays := heard.size - int(np.count_nonzero(np.isfinite(heard))):
        notes.append(f"{strays} samples are NaN or infinite: silent here")
        heard = np.nan_to_num(heard, nan=0.0, posinf=0.0, neginf=0.0)
    peak = float(max(heard.max(), -heard.min()))
    facts.append(f"peak {round(20 * np.log10(peak), 1) + 0.0:.1f} dBFS" if peak > 0 else "silence")
    if peak > 1:
        notes.append("beyond full scale: clipped in the player")
    parts = []
    for part in (_picture, _player):
        try:
            shown, said = part(clip, heard, ", ".join(facts))
            parts.append(shown)
            notes += said
        except MissingExtra as error:
            notes.append(str(error).replace("\n", " "))
    if not parts:
        return ""
    caption = "; ".join([", ".join(facts), *notes])
    return (
        f'<figure class="grym-clip" style="margin:0">{"<br>".join(parts)}'
        f"<figcaption><small>{_escaped(caption)}</small></figcaption></figure>"
    )


def _escaped(text: str) -> str:
    return markup.escape(" ".join(text.split()), quote=True)


# The player


def _player(clip: Clip, heard: Samples, facts: str) -> tuple[str, list[str]]:
    files.package("soundfile", purpose="playing a clip")
    ogg, notes = _fitting(clip, heard)
    if not ogg:
        return "<em>no player</em>", notes
    uri = base64.b64encode(ogg).decode()
    shown = (
        f'<audio controls preload="metadata" aria-label="{_escaped(facts)}" '
        f'src="data:audio/ogg;base64,{uri}">This front end has no player.</audio>'
    )
    return shown, notes


def _fitting(clip: Clip, heard: Samples) -> tuple[bytes, list[str]]:
    """Return OGG within the limit: the clip as it is, else mono at a lower rate, else its beginning."""
    if clip.channels <= 2 and 8000 <= clip.rate <= 48_000 and heard.size <= _WORTH_TRYING:
        ogg = _ogg(heard, clip.rate)
        if len(ogg) <= _OGG_BYTES:
            return ogg, []
    # Cut before the rate is changed, so that an hour costs what its beginning costs.
    most = round(clip.rate * _WORTH_TRYING / _PLAYED_RATE)
    excerpt = type(clip)(heard[..., :most], clip.rate).mono()
    if not 8000 <= excerpt.rate <= _PLAYED_RATE:
        excerpt = excerpt.at(_PLAYED_RATE)
    while excerpt.frames:
        ogg = _ogg(excerpt.samples, excerpt.rate)
        if len(ogg) <= _OGG_BYTES:
            break
        excerpt = excerpt.cut(0, 0.95 * excerpt.seconds * _OGG_BYTES / len(ogg))
    else:
        return b"", ["too short to play at a rate that a browser knows"]
    changed = [f"{excerpt.rate} Hz"] * (excerpt.rate != clip.rate) + ["mono"] * (clip.channels > 1)
    if clip.seconds - excerpt.seconds > 0.01:
        changed.append(f"only the first {seconds(excerpt.seconds)}")
    return ogg, [f"in the player: {', '.join(changed)}"] if changed else []


def _ogg(samples: Samples, rate: int) -> bytes:
    sf = files.package("soundfile", purpose="playing a clip")
    file = io.BytesIO()
    files.encode(sf, file, samples.clip(-1, 1), rate, "OGG", "VORBIS")
    return _steady(file.getvalue())


_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _steady(ogg: bytes) -> bytes:
    """Return the same OGG with a serial number that is always the same; libsndfile draws a random one."""
    pages = bytearray(ogg)
    at = 0
    while pages[at : at + 4] == b"OggS":
        lacing = pages[at + 26]
        end = at + 27 + lacing + sum(pages[at + 27 : at + 27 + lacing])
        pages[at + 14 : at + 18] = b"grym"
        pages[at + 22 : at + 26] = bytes(4)
        pages[at + 22 : at + 26] = _ogg_checksum(pages[at:end])
        at = end
    return bytes(pages)


def _ogg_checksum(page: bytearray) -> bytes:
    # OGG's CRC is zlib's with the bits of each byte in the other order, and starts and ends at zero.
    crc = zlib.crc32(page.translate(_REVERSED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return crc.to_bytes(4, "little").translate(_REVERSED)[::-1]


# The picture


def _picture(clip: Clip, heard: Samples, facts: str) -> tuple[str, list[str]]:
    # More channels than two are drawn as one: what lies between their lowest and highest.
    lanes = [heard] if clip.channels == 1 else list(heard) if clip.channels == 2 else [heard.T.reshape(-1)]
    height = _TOP + len(lanes) * (_LANE + _GAP) - _GAP + _BOTTOM
    for dots in (200, 100, 50):
        png = _png(lanes, clip.seconds, height, dots)
        if len(png) <= _PNG_BYTES:
            break
    uri = base64.b64encode(png).decode()
    shown = (
        f'<img alt="waveform: {_escaped(facts)}" width="{_WIDTH}" height="{height}" '
        f'style="max-width:100%;height:auto" src="data:image/png;base64,{uri}">'
    )
    return shown, []


def _png(lanes: list[Samples], length: float, height: int, dots: int) -> bytes:
    # The object API: pyplot would register the figure, and change the user's own state.
    files.package("matplotlib", purpose="drawing a waveform")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH / 100, height / 100), facecolor="none")
    canvas = FigureCanvasAgg(figure)
    peak = max(float(max(lane.max(), -lane.min())) for lane in lanes)
    # Full scale, so that a quiet clip looks quiet; very quiet and too loud ones show their own scale.
    limit = peak if peak > 1 or 0 < peak < 0.1 else 1.0
    for row, lane in enumerate(reversed(lanes)):
        bottom = _BOTTOM + row * (_LANE + _GAP)
        axes = figure.add_axes((0.08, bottom / height, 0.91, _LANE / height), facecolor="none")
        times, low, high = _envelope(lane, length, _WIDTH * dots // 100)
        axes.fill_between(times, low, high, color=_SOUND, linewidth=0.8)
        axes.set(xlim=(0, length), ylim=(-1.05 * limit, 1.05 * limit))
        _scales(axes, limit, length if row == 0 else None)
    file = io.BytesIO()
    canvas.print_figure(file, dpi=dots, format="png", facecolor="none", metadata={"Software": None})
    return file.getvalue()


def _scales(axes: Any, limit: float, length: float | None) -> None:
    """Draw amplitude on the left and, where `length` is given, time below: its beginning, middle and end."""
    axes.spines[:].set_visible(False)
    axes.tick_params(colors=_SCALE, labelsize=7, labelfontfamily="DejaVu Sans", length=2, pad=2)
    axes.set_yticks([-limit, 0, limit], [f"{-limit:.2g}", "0", f"{limit:.2g}"])
    if length is None:
        axes.set_xticks([])
        return
    axes.set_xticks([0, length / 2, length], ["0", seconds(length / 2), seconds(length)])
    for label, side in zip(axes.get_xticklabels(), ("left", "center", "right"), strict=True):
        label.set_horizontalalignment(side)


def _envelope(lane: Samples, length: float, columns: int) -> tuple[Any, Any, Any]:
    """Return times in seconds with the lowest and highest sample around each, at most one per column."""
    import numpy as np

    if lane.size == 1:  # a line has two ends
        lane = np.repeat(lane, 2)
    if lane.size <= columns:
        return np.linspace(0, length, lane.size), lane, lane
    starts = np.linspace(0, lane.size, columns, endpoint=False).astype(np.intp)
    times = np.linspace(0, length, columns)
    return times, np.minimum.reduceat(lane, starts), np.maximum.reduceat(lane, starts)
