"""Clips from and to real files: lazily, whole or not at all, and never less than the file says."""

from __future__ import annotations

import os
import pickle
import stat
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from grym_nb.clip import Clip
from grym_nb.errors import AudioError, StorageError

RATE = 16000
FORMATS = ("wav", "flac", "ogg", "mp3")
per_file = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def noise(seconds: float = 1.0, channels: int = 1, seed: int = 0) -> Clip:
    """White noise, hard for every codec."""
    return Clip(np.random.default_rng(seed).uniform(-0.5, 0.5, (channels, int(seconds * RATE))), RATE)


def tone(seconds: float = 1.0) -> Clip:
    """A sine, easy for every codec."""
    return Clip(0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * RATE)) / RATE), RATE)


# There and back


@per_file
@given(
    samples=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(0, 300)),
        elements=st.floats(-3, 3, width=32),
    ),
    rate=st.sampled_from([8000, 11025, 44100, 192000]),
)
def test_wav_gives_back_the_very_same_clip(tmp_path: Path, samples: np.ndarray, rate: int) -> None:
    """Bit for bit, beyond full scale too."""
    clip = Clip(samples, rate)
    assert Clip.read(clip.write(tmp_path / "a.wav")) == clip


@per_file
@given(
    samples=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 300)),
        elements=st.floats(-2, 2, width=32),
    )
)
def test_flac_gives_back_24_bits(tmp_path: Path, samples: np.ndarray) -> None:
    """Within half a step, and clipped at full scale instead of wrapped around."""
    read = Clip.read(Clip(samples, RATE).write(tmp_path / "a.flac"))
    assert read.samples == pytest.approx(np.clip(Clip(samples, RATE).samples, -1, 1), abs=2**-23)


@pytest.mark.parametrize("form", ["ogg", "mp3"])
@pytest.mark.parametrize("channels", [1, 2])
def test_lossy_formats_give_back_the_same_sound(tmp_path: Path, form: str, channels: int) -> None:
    """Same rate, channels and length to the sample, no shift in time, and an error 20 dB below the tone."""
    clip = Clip(np.tile(tone(2).samples, (channels, 1)), RATE)
    read = Clip.read(clip.write(tmp_path / f"a.{form}"))
    assert (read.rate, read.channels, read.frames) == (clip.rate, clip.channels, clip.frames)
    error = read.samples - clip.samples
    assert np.sqrt(np.mean(error**2)) < 0.1 * np.sqrt(np.mean(clip.samples**2))


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_every_subtype_is_read_to_its_own_precision(tmp_path: Path, subtype: str) -> None:
    """Integer files come back on the scale of ±1, as the constructor has it."""
    clip = tone()
    read = Clip.read(clip.write(tmp_path / "a.wav", subtype=subtype))
    step = {"PCM_U8": 2**-7, "PCM_16": 2**-15}.get(subtype, 2**-23)
    assert read.samples == pytest.approx(clip.samples, abs=step)
    assert sf.info(str(tmp_path / "a.wav")).subtype == subtype


def test_long_vorbis_is_written_in_pieces(tmp_path: Path) -> None:
    """In one piece libvorbis overflows its stack and takes the kernel along."""
    clip = Clip(np.zeros(RATE * 600, np.float32), RATE)
    assert Clip.read(clip.write(tmp_path / "a.ogg")).seconds == 600


# Lazy


@pytest.mark.parametrize("form", FORMATS)
def test_read_looks_at_the_header_only(tmp_path: Path, form: str) -> None:
    """With the samples gone from the disk the clip still knows what it is, and only they are missing."""
    path = noise(2, channels=2).write(tmp_path / f"a.{form}")
    clip = Clip.read(path)
    path.unlink()
    assert repr(clip) == "Clip(2.00 s, 16000 Hz, stereo)"
    assert (clip.rate, clip.channels, clip.frames, clip.seconds) == (RATE, 2, 2 * RATE, 2.0)
    assert clip.nbytes == 2 * 2 * RATE * 4
    with pytest.raises(AudioError, match="cannot be opened"):
        _ = clip.samples


def test_samples_are_decoded_once_for_all_threads(tmp_path: Path) -> None:
    """Every thread gets the same array."""
    clip = Clip.read(noise(5).write(tmp_path / "a.flac"))
    with ThreadPoolExecutor(8) as pool:
        arrays = list(pool.map(lambda _: clip.samples, range(32)))
    assert all(array is arrays[0] for array in arrays)


def test_a_failed_decode_is_tried_again(tmp_path: Path) -> None:
    """The clip is as good as its file: when that is back, so are the samples."""
    path = noise().write(tmp_path / "a.wav")
    clip = Clip.read(path)
    aside = path.rename(tmp_path / "b.wav")
    with pytest.raises(AudioError, match=r"Did you mean 'b\.wav'"):
        _ = clip.hash
    aside.rename(path)
    assert clip == noise()


def test_a_file_that_changed_since_it_was_opened_is_refused(tmp_path: Path) -> None:
    """A clip never turns into another one."""
    path = noise(seed=1).write(tmp_path / "a.wav")
    clip = Clip.read(path)
    noise(2, seed=2).write(path)
    with pytest.raises(AudioError, match="has changed since"):
        _ = clip.samples
    assert Clip.read(path) == noise(2, seed=2)


def test_a_clip_finds_its_file_after_the_directory_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`%cd` in the next cell does not lose it."""
    noise().write(tmp_path / "a.wav")
    monkeypatch.chdir(tmp_path)
    clip = Clip.read("a.wav")
    monkeypatch.chdir("/")
    assert clip == noise()


def test_a_pickled_clip_needs_no_file(tmp_path: Path) -> None:
    """The samples travel, so another process or machine can use it."""
    path = noise().write(tmp_path / "a.wav")
    clip = pickle.loads(pickle.dumps(Clip.read(path)))
    path.unlink()
    assert clip == noise()


# What cannot be read


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    """A slip in the name is the usual reason."""
    noise().write(tmp_path / "speech.wav")
    with pytest.raises(AudioError, match=r"(?s)Did you mean 'speech\.wav'\?.*No such file"):
        Clip.read(tmp_path / "spech.wav")
    with pytest.raises(AudioError, match="cannot be opened"):
        Clip.read(tmp_path / "no such directory" / "a.wav")


def test_what_is_no_audio_file_is_refused_at_once(tmp_path: Path) -> None:
    """A directory, an empty file, a text that is called .wav, and a pipe, which would wait for ever."""
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text file.wav").write_text("RIFF? No, only words.")
    os.mkfifo(tmp_path / "pipe.wav")
    for name, says in (
        (".", "is a directory: an audio file is needed"),
        ("empty.wav", "has 0 bytes"),
        ("text file.wav", r"(?s)\(21 B\) is no audio.*ffmpeg -i 'text file\.wav'"),
        ("pipe.wav", "not a regular file"),
    ):
        with pytest.raises(AudioError, match=says):
            Clip.read(tmp_path / name)


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.9, 0.99])
@pytest.mark.parametrize("form", FORMATS)
def test_a_truncated_file_never_reads_as_a_shorter_clip(tmp_path: Path, form: str, kept: float) -> None:
    """An interrupted download is said when it is opened or decoded, whatever the format."""
    whole = noise(5).write(tmp_path / f"whole.{form}").read_bytes()
    path = tmp_path / f"part.{form}"
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(AudioError, match=r"cut off or damaged|no audio that can be read"):
        _ = Clip.read(path).samples


def test_the_error_of_a_truncated_file_says_how_much_is_there(tmp_path: Path) -> None:
    """And how to keep that much."""
    path = noise(2).write(tmp_path / "a.wav", subtype="PCM_16")
    path.write_bytes(path.read_bytes()[:40_044])
    with pytest.raises(AudioError) as caught:
        Clip.read(path)
    assert "64.0 KB of samples, 40.0 KB are there" in caught.value.cause
    assert caught.value.hint.endswith("ffmpeg -i a.wav a-part.wav")


def test_damage_in_the_middle_of_a_flac_is_found(tmp_path: Path) -> None:
    """Its frames carry checksums."""
    path = noise(5).write(tmp_path / "a.flac")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4000] = bytes(4000)
    path.write_bytes(content)
    with pytest.raises(AudioError, match="cut off or damaged"):
        _ = Clip.read(path).samples


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_from_a_pipe_is_no_truncated_one(tmp_path: Path, size: int) -> None:
    """ffmpeg and sox cannot go back to write the size; what is there is the clip."""
    path = tone().write(tmp_path / "a.wav", subtype="PCM_16")
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(content)
    assert Clip.read(path).frames == RATE


def test_a_flac_from_a_pipe_is_decoded_to_tell_its_length(tmp_path: Path) -> None:
    """Its header leaves the number of samples open."""
    path = tone().write(tmp_path / "a.flac")
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert (Clip.read(path).frames, Clip.read(path).samples.size) == (RATE, RATE)


def test_a_header_that_claims_terabytes_takes_no_memory(tmp_path: Path) -> None:
    """Memory is taken for what is decoded."""
    path = tone().write(tmp_path / "a.flac")
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4
    path.write_bytes(content)
    with pytest.raises(AudioError, match="cut off or damaged"):
        _ = Clip.read(path).samples


@pytest.mark.parametrize("tag", [b"", b"ID3\x04\x00\x00\x00\x00\x27\x10" + bytes(0x27 * 128 + 0x10)])
def test_an_mp3_without_a_length_is_decoded_to_tell_it(tmp_path: Path, tag: bytes) -> None:
    """libsndfile guesses one from the size of the file, tags included; here are 200 frames of 128 kbit/s."""
    path = tmp_path / "a.mp3"
    path.write_bytes(tag + (b"\xff\xfb\x94\xc4" + bytes(380)) * 200)
    clip = Clip.read(path)
    path.unlink()
    assert clip.samples.size == clip.frames == 200 * 1152


def test_an_mp3_that_would_be_read_in_part_is_refused(tmp_path: Path) -> None:
    """Of a variable bit rate the guess is wrong, and libsndfile stops there without a word."""
    path = noise(60).write(tmp_path / "a.mp3")
    content = path.read_bytes()
    path.write_bytes(content[content.index(content[:2], 100) :])
    with pytest.raises(AudioError, match=r"(?s)more than can be read.*ffmpeg -i a\.mp3 -c copy a-whole\.mp3"):
        Clip.read(path)


# Writing


@pytest.mark.parametrize("name", ["a.m4a", "a", "a.wav.bak", ".wav"])
def test_a_suffix_that_names_no_format_is_refused(tmp_path: Path, name: str) -> None:
    """With those that do; the suffix is read in any case of letters."""
    with pytest.raises(AudioError, match=r"(?s)names no format.*\.wav, \.flac, \.ogg, \.mp3"):
        tone().write(tmp_path / name)
    assert tone().write(tmp_path / "A.WAV") == tmp_path / "A.WAV"
    assert os.listdir(tmp_path) == ["A.WAV"]


@pytest.mark.parametrize(
    ("clip", "name", "says"),
    [
        (noise(0.1, channels=3), "a.mp3", "MP3 holds at most 2 channels"),
        (noise(0.1, channels=9), "a.flac", "FLAC holds at most 8 channels"),
        (Clip(np.zeros(10), 96000), "a.mp3", r"(?s)MP3 cannot hold 96000 Hz.*clip\.at\(48000\)"),
        (Clip(np.zeros(10), 17000), "a.mp3", r"clip\.at\(16000\)"),
        (Clip(np.zeros(10), 384000), "a.ogg", r"(?s)OGG cannot hold 384000 Hz.*clip\.at\(200000\)"),
        (Clip([], RATE), "a.flac", "empty"),
        (Clip([], RATE), "a.mp3", "empty"),
        (Clip([0, np.nan, np.inf], RATE), "a.wav", "a file cannot use.*\n.*2 that are NaN or infinite"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(tmp_path: Path, clip: Clip, name: str, says: str) -> None:
    """Before anything is written; some of it would crash the process."""
    with pytest.raises(AudioError, match=says):
        clip.write(tmp_path / name)
    assert not os.listdir(tmp_path)


def test_a_subtype_the_format_lacks_is_refused_with_those_it_has(tmp_path: Path) -> None:
    """They are soundfile's names."""
    with pytest.raises(AudioError, match=r"(?s)FLAC has no subtype 'FLOAT'.*PCM_16, PCM_24"):
        tone().write(tmp_path / "a.flac", subtype="FLOAT")


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    """Whole or not at all: here the disk is full in the middle."""
    path = tone().write(tmp_path / "a.wav")
    code = (
        "import resource, signal, sys\n"
        "import numpy as np\n"
        "from grym_nb.clip import Clip\n"
        "from grym_nb.errors import StorageError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        "try: Clip(np.random.default_rng(0).uniform(-1, 1, 90000), 16000).write(sys.argv[1])\n"
        "except StorageError as error: print(error)\n"
    )
    for form in FORMATS:
        target = path if form == "wav" else tmp_path / f"b.{form}"
        done = subprocess.run(
            [sys.executable, "-c", code, str(target)], capture_output=True, text=True, check=True
        )
        assert done.stdout.startswith(f"{str(target)!r} could not be written"), done
    assert os.listdir(tmp_path) == ["a.wav"]
    assert Clip.read(path) == tone()


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """It is not made silently: most often the name is wrong."""
    with pytest.raises(StorageError, match="there is no directory"):
        tone().write(tmp_path / "no" / "a.wav")
    (tmp_path / "a.wav").mkdir()
    with pytest.raises(StorageError, match="could not be written"):
        tone().write(tmp_path / "a.wav")


def test_a_written_file_has_the_usual_rights_and_a_link_stays_one(tmp_path: Path) -> None:
    """As if `open` had made it; what a link points to is replaced."""
    (tmp_path / "plain").touch()
    path = tone().write(tmp_path / "a.wav")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    link = tmp_path / "link.wav"
    link.symlink_to(path)
    assert noise().write(link) == path
    assert link.is_symlink()
    assert Clip.read(path) == noise()
