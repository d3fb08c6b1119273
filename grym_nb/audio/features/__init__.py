"""What can be measured of a clip: plain functions, the clip first, everything else by keyword.

They say what they cannot work with (`Clip.checked`) instead of returning a number for it, and need the
extra ``sound``.
"""

from grym_nb.audio.features.bands import mel, mfcc
from grym_nb.audio.features.layers import Layers, hpss
from grym_nb.audio.features.level import loudness
from grym_nb.audio.features.passing import many, stream
from grym_nb.audio.features.pitches import Pitch, pitch
from grym_nb.audio.features.rhythm import Tempo, beats, onsets, tempo
from grym_nb.audio.features.sections import Segment, segments
from grym_nb.audio.features.shape import bandwidth, centroid, flatness, rms, rolloff, zero_crossings
from grym_nb.audio.features.silence import split, trim, voiced
from grym_nb.audio.features.tones import chroma, cqt

__all__ = [
    "Layers",
    "Pitch",
    "Segment",
    "Tempo",
    "bandwidth",
    "beats",
    "centroid",
    "chroma",
    "cqt",
    "flatness",
    "hpss",
    "loudness",
    "many",
    "mel",
    "mfcc",
    "onsets",
    "pitch",
    "rms",
    "rolloff",
    "segments",
    "split",
    "stream",
    "tempo",
    "trim",
    "voiced",
    "zero_crossings",
]
