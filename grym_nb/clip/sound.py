"""Clip: immutable audio, samples and a rate. A file is decoded when its samples are first asked for.

>>> tone = Clip([0.0, 0.5, 0.0, -0.5], rate=8000)
>>> tone, tone.frames, tone.channels
(Clip(500 us, 8000 Hz, mono), 4, 1)

What may be given to it is in `arrays`, how files are read and written in `files`, how a clip looks and
sounds in a notebook in `player`.
"""

from __future__ import annotations

import hashlib
import threading
from numbers import Real
from typing import TYPE_CHECKING, Any

from grym_nb.clip import arrays, files, player
from grym_nb.errors import AudioError, Problem, says_what_it_takes
from grym_nb.render import brief, seconds

if TYPE_CHECKING:
    import os
    from collections.abc import Container
    from pathlib import Path

    import numpy.typing as npt

    from grym_nb.clip.arrays import Samples

__all__ = ["Clip"]


class Clip:
    """Immutable audio: float32 samples, full scale at ±1, ``(n,)`` or ``(channels, n)``, and a rate in Hz.

    Integer PCM (uint8, int16, int32) is scaled to [-1, 1]; floats are taken as they are, beyond full scale,
    NaN and infinity included: what cannot work with those says so where it is used (`checked`). A single
    channel is always ``(n,)``. What is given is copied. Clips with equal content
    are equal and have the same `hash`.
    """

    __slots__ = ("__weakref__", "_file", "_hash", "_lock", "_rate", "_samples", "_strays")

    _samples: Samples | None
    _file: files.AudioFile | None
    _hash: str | None
    _strays: int | None

    @says_what_it_takes
    def __init__(self, samples: npt.ArrayLike, rate: int) -> None:
        self._set(arrays.as_samples(samples), arrays.as_rate(rate), None)

    def _set(self, samples: Samples | None, rate: int, file: files.AudioFile | None) -> None:
        self._rate = rate
        self._file = file
        self._lock = threading.Lock() if samples is None else None
        self._samples = None if samples is None else arrays.read_only(samples)
        self._hash = None
        self._strays = None

    @classmethod
    def _of(cls, samples: Samples, rate: int) -> Clip:
        """Return a clip of an array that is ours alone and has the right shape already."""
        clip = cls.__new__(cls)
        clip._set(samples, rate, None)
        return clip

    @classmethod
    @says_what_it_takes
    def read(cls, path: str | os.PathLike[str]) -> Clip:
        """Return the clip in a wav, flac, mp3 or ogg file; only its header is read now.

        The samples are decoded once, when they are first asked for, whatever the number of threads. A file
        that is missing, foreign or cut off raises AudioError: now where the header tells, else when it is
        decoded. A file that does not say how long it is, is decoded at once.
        """
        file = files.probe(path)
        clip = cls.__new__(cls)
        clip._set(None, file.rate, file)
        if file.frames is None:
            _ = clip.samples
        return clip

    @says_what_it_takes
    def write(self, path: str | os.PathLike[str], *, subtype: str | None = None) -> Path:
        """Write the file, whole or not at all, and return its path; the suffix names the format.

        ``.wav`` keeps the samples exactly (32-bit float), ``.flac`` to 24 bits; ``.ogg`` (Vorbis) and
        ``.mp3`` lose what is hard to hear. Beyond full scale only wav goes. `subtype` is one of
        soundfile's, such as ``"PCM_16"``.
        """
        files.refuse_no_path(path)
        clip = self.checked(what="a file", nonempty=False)
        return files.write(path, clip.samples, clip.rate, subtype=subtype)

    # What it is: none of these but `samples` and `hash` decodes a file.

    @property
    def rate(self) -> int:
        """Samples per second."""
        return self._rate

    @property
    def frames(self) -> int:
        """Samples per channel."""
        if self._samples is not None:
            return int(self._samples.shape[-1])
        assert self._file is not None and self._file.frames is not None
        return self._file.frames

    @property
    def channels(self) -> int:
        """The number of channels: 1 is mono, 2 is stereo (left, right)."""
        if self._samples is None:
            assert self._file is not None
            return self._file.channels
        return 1 if self._samples.ndim == 1 else int(self._samples.shape[0])

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return self.frames / self._rate

    @property
    def nbytes(self) -> int:
        """What the samples take in memory, decoded."""
        return self.frames * self.channels * 4

    @property
    def samples(self) -> Samples:
        """The samples, read-only float32: ``(n,)`` for mono, else ``(channels, n)``."""
        if self._samples is None:
            assert self._lock is not None and self._file is not None
            with self._lock:
                if self._samples is None:
                    self._samples = arrays.read_only(files.decode(self._file))
        return self._samples

    @property
    def hash(self) -> str:
        """32 hex digits of the content: equal clips have equal ones, in every process and session."""
        if self._hash is None:
            samples = self.samples
            digest = hashlib.blake2b(samples.data, digest_size=16)
            digest.update(f"{samples.dtype} {samples.shape} {self._rate}".encode())
            self._hash = digest.hexdigest()
        return self._hash

    # What can be made of it.

    @says_what_it_takes
    def mono(self) -> Clip:
        """Return the mean of the channels, ``(n,)``; a mono clip itself."""
        if self.channels == 1:
            return self
        import numpy as np

        with np.errstate(invalid="ignore"):  # infinities of both signs make a NaN, found where it matters
            return self._of(self.samples.mean(axis=0, dtype=np.float32), self._rate)

    @says_what_it_takes
    def at(self, rate: int) -> Clip:
        """Return the clip at `rate` Hz, band-limited (soxr, high quality); itself at its own rate."""
        rate = arrays.as_rate(rate)
        if rate == self._rate:
            return self
        soxr = files.package("soxr", purpose="resampling")
        clip = self.checked(what="resampling", nonempty=False)
        samples: Samples = soxr.resample(clip.samples.T, self._rate, rate).T
        return self._of(samples.copy("C"), rate)

    @says_what_it_takes
    def cut(self, start: float, end: float | None = None) -> Clip:
        """Return what lies between `start` and `end` seconds; an `end` beyond the clip means its end.

        Both are rounded to the nearest sample, so cuts that meet in time meet in samples.
        """
        ends: dict[str, Any] = {"start": start, "end": end}
        for name, given in ends.items():
            if type(given) is bool or not (isinstance(given, Real) or (given is None and name == "end")):
                raise AudioError(
                    f"the cut has {name}={brief(given)}: seconds are needed", hint="clip.cut(0.5, 2.0)"
                )
        if not (start >= 0 and start * self._rate <= self.frames + 0.5):
            raise AudioError(
                f"the cut starts at {start:g} s, outside {self!r}",
                hint=f"start from 0 to {self.seconds:g}; from the end: clip.cut(clip.seconds - x)",
            )
        if end is not None and not end >= start:
            raise AudioError(
                f"the cut starts at {start:g} s and ends at {end:g} s",
                hint="clip.cut(start, end), both in seconds from the beginning",
            )
        first = min(round(start * self._rate), self.frames)
        stop = self.frames if end is None or end >= self.seconds else round(end * self._rate)
        if (first, stop) == (0, self.frames):
            return self
        # A copy: a view of a second would keep the hour it was cut from in memory.
        return self._of(self.samples[..., first:stop].copy(), self._rate)

    @says_what_it_takes
    def checked(
        self,
        *,
        what: str = "this",
        rate: int | None = None,
        min_rate: int = 0,
        mono: bool = False,
        max_channels: int | None = None,
        min_seconds: float = 0.0,
        finite: bool = True,
        nonempty: bool = True,
    ) -> Clip:
        """Return the clip, or raise one AudioError that lists everything `what` cannot work with.

        Nothing is repaired silently: the error says what was found, what is needed and how to get it.
        """
        wrong: list[tuple[Problem, str]] = []

        def need(name: str, found: str, expected: str, advice: str) -> None:
            wrong.append((Problem(name, found, expected), advice))

        if rate is not None and self._rate != rate:
            need("rate", f"{self._rate} Hz", f"{rate} Hz", f"clip.at({rate})")
        if self._rate < min_rate:
            need("rate", f"{self._rate} Hz", f"at least {min_rate} Hz", f"clip.at({min_rate})")
        most = 1 if mono else max_channels
        if most is not None and self.channels > most:
            need("channels", str(self.channels), "mono" if most == 1 else f"at most {most}", "clip.mono()")
        if self.frames == 0 and (nonempty or min_seconds > 0):
            need("samples", "none", "some", "see what made the clip: it is empty")
        elif self.seconds < min_seconds:
            found = f"{seconds(self.seconds)} ({self.frames} samples)"
            need("length", found, f"at least {seconds(min_seconds)}", "give it a longer clip")
        if finite and (strays := self._not_finite()):
            found = f"{strays} that are NaN or infinite"
            need("samples", found, "finite numbers", "see what made them, or np.nan_to_num(clip.samples)")
        if wrong:
            raise AudioError(
                f"{what} cannot use {self!r}",
                cause="; ".join(str(problem) for problem, _ in wrong),
                hint="; ".join(advice for _, advice in wrong),
                problems=tuple(problem for problem, _ in wrong),
            )
        return self

    def _not_finite(self) -> int:
        if self._strays is None:  # counted once: the samples never change
            import numpy as np

            samples = self.samples
            self._strays = samples.size - int(np.count_nonzero(np.isfinite(samples)))
        return self._strays

    # How it behaves.

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Return the samples, so that ``np.asarray(clip)`` is what it looks like."""
        import numpy as np

        samples = self.samples
        if dtype is not None and np.dtype(dtype) != samples.dtype:
            if copy is False:
                raise ValueError(f"a Clip is float32: as {np.dtype(dtype)} it has to be copied")
            return samples.astype(dtype)
        return samples.copy() if copy else samples

    def __eq__(self, other: object) -> bool:
        """Tell whether the other is a clip with the same rate and samples, bit for bit."""
        if not isinstance(other, Clip):
            return NotImplemented
        if self is other:
            return True
        mine, theirs = ((clip.rate, clip.channels, clip.frames) for clip in (self, other))
        return mine == theirs and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    def __copy__(self) -> Clip:
        return self

    def __deepcopy__(self, memo: object) -> Clip:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # The samples travel, not the path: another machine does not have the file. What arrives is not ours
        # alone: a pickle may lie in buffers of whoever reads it.
        return Clip, (self.samples, self._rate)

    def __repr__(self) -> str:
        length = seconds(self.seconds) if 0 < self.seconds < 0.01 else f"{self.seconds:.2f} s"
        layout = {1: "mono", 2: "stereo"}.get(self.channels, f"{self.channels} channels")
        return f"Clip({length}, {self._rate} Hz, {layout})"

    def _repr_mimebundle_(
        self, include: Container[str] | None = None, exclude: Container[str] | None = None
    ) -> dict[str, str]:
        """Return the repr as text, and a player with a picture of the waveform as HTML."""
        wanted = {
            kind
            for kind in ("text/plain", "text/html")
            if (not include or kind in include) and (not exclude or kind not in exclude)
        }
        bundle = {"text/plain": repr(self)} if "text/plain" in wanted else {}
        if "text/html" in wanted and (page := player.html(self)):
            bundle["text/html"] = page
        return bundle
