"""Pictures show what the features say, and leave matplotlib's own state alone."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from grym_nb.audio import features, pictures, synth
from grym_nb.clip import Clip
from grym_nb.errors import AudioError, ValidationError

DRAWN = [pictures.waveform, pictures.mel, pictures.chroma]


@pytest.fixture
def song() -> Clip:
    """A chord and a beat."""
    rate = 22_050
    return Clip(
        0.5 * synth.chord(seconds=6, rate=rate).samples
        + 0.4 * synth.beats(120, seconds=6, rate=rate).samples,
        rate,
    )


def png(figure: Any) -> bytes:
    """The figure as it would be kept."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


@pytest.mark.parametrize("draw", DRAWN)
def test_each_picture_is_a_figure_over_the_whole_clip(draw: Any, song: Clip) -> None:
    """The same bytes every time; seconds along the bottom."""
    figure = draw(song)
    (axes, *_) = figure.axes
    assert isinstance(figure, Figure) and axes.get_xlim() == (0, song.seconds)
    assert axes.get_xlabel() == "seconds"
    picture = png(figure)
    assert picture[:4] == b"\x89PNG" and picture == png(draw(song))


def test_images_are_the_features(song: Clip) -> None:
    """The first row at the bottom; mel 80 dB down from its loudest."""
    (image,) = pictures.mel(song).axes[0].get_images()
    db = features.mel(song, n_mels=80, db=True)
    assert np.array_equal(image.get_array(), db) and image.origin == "lower"
    assert image.get_clim() == pytest.approx((db.max() - 80, db.max()))
    (image,) = pictures.chroma(song, method="cqt").axes[0].get_images()
    assert np.array_equal(image.get_array(), features.chroma(song, method="cqt"))
    assert [label.get_text() for label in pictures.chroma(song).axes[0].get_yticklabels()][:3] == [
        "C",
        "C♯",
        "D",
    ]


@pytest.mark.parametrize("draw", [pictures.waveform, pictures.chroma])
def test_a_line_is_at_each_beat(draw: Any, song: Clip) -> None:
    """Those that the feature finds; none where none are asked for."""
    lines = draw(song, beats=True).axes[0].collections[-1]
    at = [segment[0][0] for segment in lines.get_segments()]
    assert at == pytest.approx(list(features.beats(song)))
    kinds = {type(one).__name__ for one in draw(song, beats=False).axes[0].collections}
    assert "LineCollection" not in kinds


def test_the_wave_reaches_its_highest_and_lowest_sample() -> None:
    """However many samples share a column."""
    sound = np.zeros(500_000)
    sound[123_456], sound[400_001] = 0.9, -0.7
    (area,) = pictures.waveform(Clip(sound, 16_000)).axes[0].collections
    corners = area.get_paths()[0].vertices
    assert (corners[:, 1].max(), corners[:, 1].min()) == pytest.approx((0.9, -0.7))
    stereo = pictures.waveform(Clip([sound, sound], 16_000)).axes[0]
    assert len(stereo.collections) == 2
    assert [label.get_text() for label in stereo.get_yticklabels()] == ["channel 1", "channel 2"]


def test_an_hour_is_drawn_with_as_many_columns_as_a_screen_has() -> None:
    """The strongest of those that share one is seen."""
    sound = np.zeros(20 * 60 * 4000, np.float32)
    sound[2_000_000:2_004_000] = synth.tone(500, seconds=1, rate=4000).samples
    (image,) = pictures.mel(Clip(sound, 4000), n_mels=32).axes[0].get_images()
    shown = image.get_array()
    assert shown.shape == (32, 1600)
    assert shown.max() == features.mel(Clip(sound, 4000), n_mels=32, db=True).max()


def test_a_picture_is_drawn_where_one_says(song: Clip) -> None:
    """In axes of a figure of one's own."""
    figure = Figure()
    first, second = figure.subplots(2)
    assert pictures.waveform(song, axes=first) is figure
    assert pictures.chroma(song, axes=second) is figure
    assert len(figure.axes) == 2 and second.get_images()
    with pytest.raises(ValidationError, match="axes: found 3, expected matplotlib axes"):
        pictures.mel(song, axes=3)


@pytest.mark.parametrize("draw", DRAWN)
def test_what_cannot_be_drawn_is_refused(draw: Any) -> None:
    """Empty, NaN, no clip at all."""
    with pytest.raises(AudioError, match="samples: found none"):
        draw(Clip([], 16_000))
    with pytest.raises(AudioError, match="NaN or infinite"):
        draw(Clip([np.nan] * 5000, 16_000))
    with pytest.raises(AudioError, match="takes a Clip, not 3"):
        draw(3)


def test_pyplot_is_never_imported_and_nothing_is_until_it_is_needed() -> None:
    """A user's own figures and backend stay as they are."""
    code = (
        "import sys\n"
        "from grym_nb.audio import pictures, synth\n"
        "before = 'matplotlib' in sys.modules\n"
        "pictures.chroma(synth.beats(seconds=3)).canvas.draw()\n"
        "print(before, 'matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False"]
