"""How a clip looks and sounds in a notebook: bounded, honest, the same each time, and it never raises."""

from __future__ import annotations

import base64
import html
import io
import re
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from grym_nb.clip import Clip

RATE = 16000


@dataclass
class Page:
    """What a browser would make of the HTML."""

    text: str = ""
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)

    def one(self, tag: str) -> dict[str, str | None]:
        """The attributes of the only element of its kind."""
        (found,) = [attrs for name, attrs in self.tags if name == tag]
        return found


def parsed(clip: Clip) -> Page:
    """The clip's HTML, with every element closed in order."""
    page, open_tags = Page(), []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            page.tags.append((tag, dict(attrs)))
            if tag not in ("img", "br"):
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

        def handle_data(self, data: str) -> None:
            page.text += data

    reader = Reader()
    reader.feed(clip._repr_mimebundle_()["text/html"])
    reader.close()
    assert not open_tags
    return page


def data_of(uri: str | None, kind: str) -> bytes:
    """The bytes in a data URI of that kind."""
    assert uri is not None
    head, _, body = uri.partition(",")
    assert head == f"data:{kind};base64"
    return base64.b64decode(body, validate=True)


def played(clip: Clip) -> tuple[np.ndarray, int]:
    """What a browser would play."""
    return sf.read(io.BytesIO(data_of(parsed(clip).one("audio")["src"], "audio/ogg")), dtype="float32")


def noise(seconds: float, channels: int = 1, rate: int = RATE, peak: float = 1.0) -> Clip:
    """White noise: what Vorbis compresses least."""
    drawn = np.random.default_rng(0).uniform(-peak, peak, (channels, int(seconds * rate)))
    return Clip(drawn, rate)


CLIPS = {
    "mono": noise(1),
    "stereo": noise(1, 2),
    "six channels": noise(1, 6),
    "quiet": noise(1, peak=0.01),
    "too loud": noise(1, peak=2),
    "silence": Clip(np.zeros(RATE), RATE),
    "one sample": Clip([0.5], RATE),
    "one sample in two channels": Clip([[0.5], [-0.5]], RATE),
    "not finite": Clip([0.1, np.nan, np.inf, -np.inf], RATE),
    "nothing but NaN": Clip(np.full((2, 100), np.nan), RATE),
    "1 Hz": Clip([0.0, 1.0, 0.0], 1),
    "100 Hz": noise(5, rate=100),
    "192 kHz": noise(0.5, rate=192_000),
    "odd rate": noise(0.5, rate=12_345),
    "long": noise(60, 2, rate=44_100),
}


@pytest.mark.parametrize("name", CLIPS)
def test_every_clip_is_shown_within_the_limits(name: str) -> None:
    """A player of at most 300 KB, a picture of at most 20 KB with a text for who cannot see it."""
    page = parsed(CLIPS[name])
    audio, image = page.one("audio"), page.one("img")
    assert "controls" in audio
    assert len(audio["src"] or "") <= 300_000
    assert len(data_of(audio["src"], "audio/ogg")) > 1000
    png = data_of(image["src"], "image/png")
    assert len(png) <= 20_000
    assert (image["alt"] or "").startswith("waveform: ")
    width, height = struct.unpack(">II", png[16:24])
    # The picture's own size has the shape of the space it is given.
    assert width / height == pytest.approx(int(image["width"] or 0) / int(image["height"] or 0), rel=0.02)
    assert repr(CLIPS[name])[5:-1] in page.text


def test_an_empty_clip_says_so() -> None:
    """There is nothing to hear and nothing to draw."""
    bundle = Clip([], RATE)._repr_mimebundle_()
    assert bundle == {
        "text/plain": "Clip(0.00 s, 16000 Hz, mono)",
        "text/html": "<p>Clip(0.00 s, 16000 Hz, mono): empty, nothing to hear</p>",
    }


@settings(max_examples=30)
@given(
    samples=hnp.arrays(
        np.float32,
        st.one_of(st.tuples(st.integers(0, 40)), st.tuples(st.integers(1, 4), st.integers(0, 40))),
        elements=st.floats(width=32),
    ),
    rate=st.integers(1, 1_000_000),
)
def test_no_clip_breaks_its_repr(samples: np.ndarray, rate: int) -> None:
    """Whatever the samples and the rate; the HTML is well-formed."""
    clip = Clip(samples, rate)
    assert parsed(clip).text
    assert clip._repr_mimebundle_()["text/plain"] == repr(clip)


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        (noise(1.5), "Clip(1.50 s, 16000 Hz, mono)"),
        (noise(0.25, 2, 44100), "Clip(0.25 s, 44100 Hz, stereo)"),
        (noise(2, 6), "Clip(2.00 s, 16000 Hz, 6 channels)"),
        (Clip([0.0], RATE), "Clip(62.5 us, 16000 Hz, mono)"),
    ],
)
def test_repr_is_one_short_line(clip: Clip, expected: str) -> None:
    """Length, rate and channels."""
    assert repr(clip) == expected


# What is played


def test_the_level_is_never_changed() -> None:
    """A quiet clip plays quietly: normalised sound cannot be compared."""
    samples, rate = played(CLIPS["quiet"])
    assert (rate, samples.size) == (RATE, RATE)
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(0.01 / np.sqrt(3), rel=0.1)


def test_what_is_beyond_full_scale_is_clipped_and_said() -> None:
    """Here the sine would play at twice full scale."""
    t = np.arange(RATE) / RATE
    clip = Clip(2 * np.sin(2 * np.pi * 200 * t), RATE)
    samples, _ = played(clip)
    expected = np.clip(clip.samples, -1, 1)
    assert np.sqrt(np.mean((samples - expected) ** 2)) < 0.05
    assert "peak 6.0 dBFS; beyond full scale: clipped in the player" in parsed(clip).text


def test_what_is_not_finite_is_silent_and_said() -> None:
    """Three samples of four."""
    assert "3 samples are NaN or infinite: silent here" in parsed(CLIPS["not finite"]).text
    samples, _ = played(CLIPS["not finite"])
    assert np.isfinite(samples).all()


def test_both_channels_are_played_as_they_are() -> None:
    """Left stays left."""
    t = np.arange(RATE) / RATE
    samples, rate = played(Clip([0.5 * np.sin(2 * np.pi * 300 * t), np.zeros(RATE)], RATE))
    assert (rate, samples.shape) == (RATE, (RATE, 2))
    assert np.abs(samples[:, 0]).max() > 0.4
    assert np.abs(samples[:, 1]).max() < 0.05


def test_a_long_clip_is_played_in_part_and_the_caption_says_which() -> None:
    """Mono, at a lower rate, its beginning: as much as fits."""
    samples, rate = played(CLIPS["long"])
    length = samples.size / rate
    (said,) = re.findall(
        r"in the player: 22050 Hz, mono, only the first ([\d.]+) s", parsed(CLIPS["long"]).text
    )
    assert float(said) == pytest.approx(length, abs=0.1)
    assert 30 < length < 60


def test_a_rate_that_browsers_do_not_know_is_changed_and_said() -> None:
    """The length stays."""
    samples, rate = played(CLIPS["100 Hz"])
    assert (rate, samples.size / rate) == (22050, pytest.approx(5, abs=0.001))
    assert "in the player: 22050 Hz" in parsed(CLIPS["100 Hz"]).text


# The same each time


@pytest.mark.parametrize("name", ["mono", "stereo", "too loud", "not finite"])
def test_equal_clips_have_the_same_bundle(name: str, tmp_path: Path) -> None:
    """Byte for byte, in other threads and processes too: a notebook that is run again does not change."""
    clip = CLIPS[name]
    bundle = clip._repr_mimebundle_()
    np.save(tmp_path / "samples.npy", clip.samples)
    code = (
        "import sys, zlib, numpy as np\n"
        "from grym_nb.clip import Clip\n"
        "clip = Clip(np.load(sys.argv[1]), int(sys.argv[2]))\n"
        "print(zlib.crc32(clip._repr_mimebundle_()['text/html'].encode()))\n"
    )
    with ThreadPoolExecutor(4) as pool:
        others = list(pool.map(lambda _: Clip(clip.samples, RATE)._repr_mimebundle_(), range(8)))
    assert all(other == bundle for other in others)
    command = [sys.executable, "-c", code, str(tmp_path / "samples.npy"), str(RATE)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) == zlib.crc32(bundle["text/html"].encode())


def test_showing_a_clip_leaves_pyplot_alone() -> None:
    """No figure is registered, no back-end chosen, no setting of the user's changed."""
    code = (
        "import sys, matplotlib\n"
        "def state(): return {k: matplotlib.rcParams[k] for k in matplotlib.rcParams if k != 'backend'}\n"
        "before = state()\n"
        "from grym_nb.clip import Clip\n"
        "assert 'text/html' in Clip([0.0, 0.5], 16000)._repr_mimebundle_()\n"
        "print('matplotlib.pyplot' in sys.modules, state() == before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize(
    ("include", "exclude", "kinds"),
    [
        (None, None, {"text/plain", "text/html"}),
        (["text/plain"], None, {"text/plain"}),
        (["image/png"], None, set()),
        (None, ["text/html"], {"text/plain"}),
        ([], [], {"text/plain", "text/html"}),
    ],
)
def test_only_what_is_asked_for_is_made(
    include: list[str] | None, exclude: list[str] | None, kinds: set[str]
) -> None:
    """IPython's include and exclude."""
    assert set(CLIPS["one sample"]._repr_mimebundle_(include, exclude)) == kinds


# What cannot be shown


def test_a_file_that_cannot_be_decoded_says_why_instead(tmp_path: Path) -> None:
    """Nothing that a file's name holds reaches the page unescaped, and a good file's name not at all."""
    path = noise(1).write(tmp_path / "<img src=x onerror=alert(1)>.flac")
    page = Clip.read(path)._repr_mimebundle_()["text/html"]
    assert "onerror" not in page
    assert html.escape(str(tmp_path)) not in page
    clip = Clip.read(path)
    path.unlink()
    bundle = clip._repr_mimebundle_()
    assert bundle["text/plain"] == "Clip(1.00 s, 16000 Hz, mono)"
    assert "<img" not in bundle["text/html"]
    assert "&lt;img src=x onerror=alert(1)&gt;.flac&#x27; cannot be opened" in bundle["text/html"]


@pytest.mark.parametrize(
    ("missing", "kinds", "tags", "said"),
    [
        ("matplotlib", ["text/html", "text/plain"], ["audio"], "drawing a waveform needs matplotlib"),
        ("soundfile", ["text/html", "text/plain"], ["img"], "playing a clip needs soundfile"),
        ("matplotlib soundfile", ["text/plain"], [], ""),
    ],
)
def test_what_is_not_installed_is_left_out_and_said(
    missing: str, kinds: list[str], tags: list[str], said: str
) -> None:
    """The rest is shown; with neither there is the text alone."""
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({missing.split()}))\n"
        "from grym_nb.clip import Clip\n"
        "bundle = Clip([0.0, 0.5], 16000)._repr_mimebundle_()\n"
        "page = bundle.get('text/html', '')\n"
        "print(sorted(bundle)); print([tag for tag in ('img', 'audio') if '<' + tag in page]); print(page)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kinds_line, tags_line, page = done.stdout.split("\n", 2)
    assert (kinds_line, tags_line) == (str(kinds), str(tags))
    assert said in page
    assert ("grym-nb[sound]" in page) == bool(said)


def test_reading_without_soundfile_says_what_to_install() -> None:
    """The error is an ImportError with the line to run."""
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['soundfile', 'soxr']))\n"
        "from grym_nb.clip import Clip\n"
        "for use in (lambda: Clip.read('a.wav'), lambda: Clip([0.0], 8000).at(16000)):\n"
        "    try: use()\n"
        "    except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "reading an audio file needs soundfile, which is not installed",
        '→ pip install "grym-nb[sound]"',
        "resampling needs soxr, which is not installed",
        '→ pip install "grym-nb[sound]"',
    ]
