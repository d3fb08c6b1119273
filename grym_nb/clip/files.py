"""Audio files: what their header says, their samples, and writing them whole or not at all.

libsndfile (through soundfile) does the work. What is caught here and it lets pass: a cut-off wav, ogg or
mp3 reads as a shorter one; MP3 without a length header has its length guessed; Vorbis written in one piece,
or above 200 kHz, crashes the process.
"""

from __future__ import annotations

import importlib
import re
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, NoReturn

from grym_nb.errors import AudioError, MissingExtra, StorageError, closest
from grym_nb.render import brief, seconds, size

if TYPE_CHECKING:
    import os

    import numpy as np
    import numpy.typing as npt

__all__ = ["BLOCK", "AudioFile", "blocks", "decode", "encode", "package", "probe", "refuse_no_path", "write"]

BLOCK = 1 << 14  # frames; libvorbis puts the first block it is given on the stack
_UNKNOWN = 1 << 62  # libsndfile's count for a stream that does not say
_STREAMED = 0x7FFF_0000  # wav writers that cannot seek back leave a size from here up
_TAGS = 4096  # bytes that may follow the last frame of an MP3
_OGG_PAGE = 65_307  # bytes, at most
_SYSTEM_ERROR = 2  # libsndfile's code for what the operating system refused: a full disk, no rights
_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


@dataclass(frozen=True, slots=True)
class _Format:
    name: str
    subtype: str
    most_channels: int
    most_rate: int
    rates: tuple[int, ...] = ()
    empty: bool = True  # whether a file without samples can be read back


_FORMATS = {
    ".wav": _Format("WAV", "FLOAT", 1024, (1 << 31) - 1),
    ".flac": _Format("FLAC", "PCM_24", 8, 655_350, empty=False),
    ".ogg": _Format("OGG", "VORBIS", 255, 200_000),
    ".mp3": _Format("MP3", "MPEG_LAYER_III", 2, 48_000, _MP3_RATES, empty=False),
}


@dataclass(frozen=True, slots=True)
class AudioFile:
    """What the header of a file says; `frames` is None when it does not say (the whole must be decoded)."""

    path: Path
    rate: int
    channels: int
    frames: int | None
    stamp: tuple[int, int]  # the file's time and size: it must be the same file when it is decoded


def package(name: str, *, purpose: str, extra: str = "sound") -> Any:
    """Return an imported package of an extra, or raise the error that says how to install it."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: the C library behind it is not there
        raise MissingExtra.of(name.partition(".")[0], extra=extra, purpose=purpose) from error


def probe(path: str | os.PathLike[str]) -> AudioFile:
    """Return what a file's header says; AudioError when it is missing, foreign, empty or cut off."""
    sf = package("soundfile", purpose="reading an audio file")
    refuse_no_path(path)
    where = Path(path).expanduser().absolute()  # a notebook may change its directory before it decodes
    stamp = _stamp(where)
    try:
        info = sf.info(str(where), verbose=True)
    except sf.SoundFileError as error:
        _refuse_foreign(where, stamp[1], error)
    said: int | None = info.frames
    if info.frames >= _UNKNOWN or (info.format == "MP3" and not _mp3_says_its_length(where)):
        said = None
    if info.format == "OGG" and not _ogg_is_whole(where):
        _cut_off(where, f"it breaks off after {seconds(info.frames / info.samplerate)}")
    _refuse_cut_off(where, info.extra_info)
    return AudioFile(where, info.samplerate, info.channels, said, stamp)


def refuse_no_path(path: object) -> None:
    """Raise for what is no path of a file."""
    if isinstance(path, (str, PathLike)) and str(path):
        return
    raise AudioError(f"{brief(path)} is not the path of a file", hint='Clip.read("song.wav")')


def decode(file: AudioFile) -> npt.NDArray[np.float32]:
    """Return a file's samples, ``(n,)`` or ``(channels, n)``; AudioError when some are missing."""
    import numpy as np

    samples = np.concatenate([np.empty((0, file.channels), np.float32), *blocks(file)])
    return samples.reshape(-1) if file.channels == 1 else np.ascontiguousarray(samples.T)


def blocks(file: AudioFile, frames: int = 1 << 18) -> Iterator[npt.NDArray[np.float32]]:
    """Yield a file's samples, ``(frames, channels)`` at a time; AudioError when some are missing."""
    sf = package("soundfile", purpose="reading an audio file")
    if _stamp(file.path) != file.stamp:
        raise AudioError(
            f"{str(file.path)!r} has changed since it was opened", hint="open it again: Clip.read(path)"
        )
    count = unread = 0
    try:
        with file.path.open("rb") as raw, sf.SoundFile(raw if file.frames is None else file.path) as opened:
            # Or soundfile seeks after each read, and fails where a FLAC does not know its length.
            opened.seekable = lambda: False
            # In blocks, so that memory is taken for what is there and not for what a header claims.
            while len(block := opened.read(frames, dtype="float32", always_2d=True)):
                count += len(block)
                yield block
            if file.frames is None:
                unread = file.stamp[1] - raw.tell()
    except sf.SoundFileError as error:
        _refuse_broken(file, count, str(error))
    if file.frames is not None and count < file.frames:
        _refuse_broken(file, count, "")
    if unread > _TAGS:
        raise AudioError(
            f"{str(file.path)!r} does not say how long it is, and has {size(unread)} more than can be read",
            hint=f"write its length into it: {_ffmpeg(file.path, '-whole.mp3', '-c copy ')}",
        )


def write(
    path: str | os.PathLike[str],
    samples: npt.NDArray[np.float32],
    rate: int,
    *,
    subtype: str | None = None,
) -> Path:
    """Write finite samples, whole or not at all, in the format that the suffix names; return the path."""
    sf = package("soundfile", purpose="writing an audio file")
    # A link stays a link: what it points to is replaced.
    target = Path(path).expanduser().resolve()
    form = _format(target)
    subtype = subtype or form.subtype
    if not sf.check_format(form.name, subtype):
        known = ", ".join(sorted(sf.available_subtypes(form.name)))
        raise AudioError(f"{form.name} has no subtype {subtype!r}", hint=f"one of {known}")
    _refuse_unfit(form, samples, rate)
    if not target.parent.is_dir():
        raise StorageError(f"there is no directory {str(target.parent)!r}", hint="make it, then write again")
    try:
        # A directory beside it, so that the rename stays on one disk and the file gets the usual rights.
        with tempfile.TemporaryDirectory(prefix=".grym-", dir=target.parent) as beside:
            part = Path(beside) / target.name
            encode(sf, part, samples, rate, form.name, subtype)
            part.replace(target)
    except (sf.SoundFileError, OSError) as error:
        if isinstance(error, OSError) or getattr(error, "code", 0) == _SYSTEM_ERROR:
            raise StorageError(f"{str(target)!r} could not be written", cause=str(error)) from error
        raise AudioError(
            f"{target.name!r} could not be written as {form.name} {subtype}", cause=str(error)
        ) from error
    return target


def encode(sf: Any, file: Any, samples: Any, rate: int, name: str, subtype: str) -> None:
    """Write samples to an open binary file or a path, in blocks."""
    channels = 1 if samples.ndim == 1 else samples.shape[0]
    with sf.SoundFile(file, "w", samplerate=rate, channels=channels, format=name, subtype=subtype) as opened:
        for start in range(0, samples.shape[-1], BLOCK):
            opened.write(samples[..., start : start + BLOCK].T)


def _format(path: Path) -> _Format:
    form = _FORMATS.get(path.suffix.lower())
    if form is None:
        found = f"the suffix {path.suffix!r}" if path.suffix else "no suffix"
        raise AudioError(
            f"{path.name!r} has {found}, which names no format that can be written",
            hint=f"use one of {', '.join(_FORMATS)}",
        )
    return form


def _refuse_unfit(form: _Format, samples: npt.NDArray[np.float32], rate: int) -> None:
    channels = 1 if samples.ndim == 1 else samples.shape[0]
    if channels > form.most_channels:
        raise AudioError(
            f"{form.name} holds at most {form.most_channels} channels, the clip has {channels}",
            hint="clip.mono(), or write .wav",
        )
    if rate > form.most_rate or (form.rates and rate not in form.rates):
        fit = ", ".join(map(str, form.rates)) if form.rates else f"at most {form.most_rate}"
        near = min(form.rates or (form.most_rate,), key=lambda r: abs(r - rate))
        raise AudioError(
            f"{form.name} cannot hold {rate} Hz; it takes {fit}", hint=f"clip.at({near}), or write .wav"
        )
    if not samples.size and not form.empty:
        raise AudioError(f"the clip is empty: as {form.name} it could not be read back", hint="write .wav")


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        near = closest(path.name, (p.name for p in islice(_siblings(path), 1000)))
        raise AudioError(
            f"{str(path)!r} cannot be opened.{near}",
            cause=str(error.strerror),
            hint="name a wav, flac, mp3 or ogg file that is there",
        ) from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise AudioError(f"{str(path)!r} is {kind}: an audio file is needed", hint="wav, flac, mp3 or ogg")
    return status.st_mtime_ns, status.st_size


def _siblings(path: Path) -> Any:
    return path.parent.iterdir() if path.parent.is_dir() else iter(())


def _mp3_says_its_length(path: Path) -> bool:
    """Tell whether the first frame is a Xing or Info header: without it the length is a guess."""
    with path.open("rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3":
            # The tag's size: four bytes of seven bits.
            length = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
            file.seek(10 + length)
            head = b""
        head += file.read(4096)
    return b"Xing" in head or b"Info" in head


def _ogg_is_whole(path: Path) -> bool:
    """Tell whether the last page is all there and marked as the last of its stream."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _OGG_PAGE))
        tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    return len(page) > 27 and bool(page[5] & 4) and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])


def _refuse_foreign(path: Path, length: int, error: Exception) -> NoReturn:
    if length == 0:
        raise AudioError(f"{str(path)!r} has 0 bytes", hint="see what should have written it") from error
    raise AudioError(
        f"{str(path)!r} ({size(length)}) is no audio that can be read",
        cause=str(error),
        hint=f"wav, flac, mp3 or ogg is needed: {_ffmpeg(path, '-converted.wav')}",
    ) from error


def _refuse_cut_off(path: Path, log: str) -> None:
    """Raise when libsndfile's log says that a wav's end is missing: it shortens the clip without a word."""
    if sizes := re.search(r"^data : (\d+) \(should be (\d+)\)", log, re.MULTILINE):
        said, there = int(sizes[1]), int(sizes[2])
        if there + 8 < said < _STREAMED:  # writers disagree about a byte of padding
            _cut_off(path, f"its header says {size(said)} of samples, {size(there)} are there")


def _refuse_broken(file: AudioFile, decoded: int, why: str) -> NoReturn:
    said = "" if file.frames is None else f"its header says {seconds(file.frames / file.rate)}, "
    came = seconds(decoded / file.rate) if decoded else "nothing"
    _cut_off(file.path, f"{said}{came} could be decoded" + (f" ({why})" if why else ""))


def _cut_off(path: Path, cause: str) -> NoReturn:
    raise AudioError(
        f"{str(path)!r} is cut off or damaged",
        cause=cause,
        hint=f"fetch it again, or keep what is there: {_ffmpeg(path, '-part.wav')}",
    )


def _ffmpeg(path: Path, ending: str, options: str = "") -> str:
    return f"ffmpeg -i {quote(path.name)} {options}{quote(path.stem + ending)}"
