"""What can be measured of a clip: plain functions, the clip first, everything else by keyword.

They say what they cannot work with (`Clip.checked`) instead of returning a number for it, and need the
extra ``sound``.
"""

from grym_nb.audio.features.bands import mel, mfcc
from grym_nb.audio.features.level import loudness
from grym_nb.audio.features.shape import bandwidth, centroid, flatness, rms, rolloff, zero_crossings
from grym_nb.audio.features.tones import chroma, cqt

__all__ = [
    "bandwidth",
    "centroid",
    "chroma",
    "cqt",
    "flatness",
    "loudness",
    "mel",
    "mfcc",
    "rms",
    "rolloff",
    "zero_crossings",
]
