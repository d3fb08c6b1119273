"""The shape of spectra and waves: what is known of tones and noise, and librosa's own figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from grym_nb.audio import features, synth
from grym_nb.clip import Clip
from grym_nb.errors import AudioError, ValidationError

INNER = slice(4, -4)  # windows without zeros from beyond the ends


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
@pytest.mark.parametrize("hz", [440.0, 1000.0, 2500.0])
def test_a_tone_is_where_it_is(rate: int, hz: float) -> None:
    """All of it: the middle, the end of the spectrum, and what the wave crosses."""
    tone = synth.tone(hz, seconds=1, rate=rate, level_db=0)
    bin_hz = rate / 1024
    assert features.centroid(tone)[INNER] == pytest.approx(hz, abs=bin_hz / 2)
    assert features.rolloff(tone)[INNER] == pytest.approx(hz, abs=2 * bin_hz)
    assert features.bandwidth(tone)[INNER].max() < 6 * bin_hz
    assert features.zero_crossings(tone)[INNER] == pytest.approx(2 * hz / rate, abs=2 / 1024)
    assert features.rms(tone)[INNER] == pytest.approx(0.5**0.5, abs=0.02)
    assert features.flatness(tone)[INNER].max() < 1e-3


def test_noise_is_flat_and_wide() -> None:
    """White noise up to half the rate: means over a second and more, within three per cent."""
    noise = synth.noise(seconds=4, level_db=0)
    assert features.centroid(noise)[INNER].mean() == pytest.approx(4000, rel=0.03)
    assert features.rolloff(noise)[INNER].mean() == pytest.approx(0.85 * 8000, rel=0.03)
    assert features.rolloff(noise, share=0.5)[INNER].mean() == pytest.approx(4000, rel=0.03)
    assert features.bandwidth(noise)[INNER].mean() == pytest.approx(8000 / 12**0.5, rel=0.03)
    assert features.flatness(noise)[INNER].mean() == pytest.approx(np.exp(-0.5772), rel=0.03)
    assert features.zero_crossings(noise)[INNER].mean() == pytest.approx(0.5, rel=0.03)
    assert features.rms(noise)[INNER].mean() == pytest.approx(3**-0.5, rel=0.03)


def test_silence_has_no_shape() -> None:
    """Documented values, and no warning."""
    silence = Clip(np.zeros(8000), 16_000)
    for name in ("centroid", "bandwidth", "rolloff", "zero_crossings", "rms"):
        assert not getattr(features, name)(silence).any()
    assert (features.flatness(silence) == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("centroid", "spectral_centroid"),
        ("bandwidth", "spectral_bandwidth"),
        ("rolloff", "spectral_rolloff"),
        ("flatness", "spectral_flatness"),
    ],
)
def test_spectral_features_are_librosas(ours: str, theirs: str) -> None:
    """Of a chord in noise, within a bin for what is a bin."""
    import librosa

    noise = synth.noise(seconds=1, level_db=-30).samples
    clip = Clip(synth.chord(seconds=1).samples + noise, 16_000)
    measure: Callable[..., Any] = getattr(librosa.feature, theirs)
    rate = {} if ours == "flatness" else {"sr": 16_000}
    expected = measure(y=clip.samples, n_fft=1024, hop_length=256, **rate)[0]
    found = getattr(features, ours)(clip)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.parametrize("name", ["centroid", "rms"])
def test_windows_that_make_no_sense_are_refused(name: str) -> None:
    """As is a clip that does not fill one."""
    length = "n_fft" if name == "centroid" else "length"
    with pytest.raises(ValidationError, match=f"{length}: found 1.*; hop: found 0"):
        getattr(features, name)(synth.tone(), **{length: 1, "hop": 0})
    with pytest.raises(AudioError, match=f"{name} with {length}=1024 cannot use(?s:.*)at least 64 ms"):
        getattr(features, name)(synth.tone(seconds=0.05))
    with pytest.raises(ValidationError, match=r"share: found 1\.5, expected a number from 0 to 1"):
        features.rolloff(synth.tone(), share=1.5)
