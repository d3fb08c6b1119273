"""Several features of a minute of sound in one passage."""

from __future__ import annotations

from collections.abc import Iterator

from grym_nb.audio import synth
from grym_nb.audio.features import many
from grym_nb.clip import Clip

from .frame import Effort, Row, Work, benchmark, installed, missing, side_by_side


@benchmark
def features(effort: Effort) -> Iterator[Row]:
    """Mel, MFCC, chroma, spectral features and tempo of a clip, beside librosa's calls one by one."""
    work = "8 features of 60 s at 22 050 Hz"
    minute = synth.beats(126, seconds=60, rate=22_050).samples + synth.chord(seconds=60, rate=22_050).samples
    clip = Clip(0.5 * minute, 22_050)
    names = ["mel", "mfcc", "chroma", "centroid", "bandwidth", "rolloff", "onsets", "tempo"]
    works: dict[str, Work] = {
        "ours": ("many(clip, names, n_fft=2048, hop=512)", {"many": many, "clip": clip, "names": names})
    }
    if installed("librosa"):
        import librosa

        def naive() -> None:
            of = librosa.feature
            for one in (of.melspectrogram, of.mfcc, of.chroma_stft, of.spectral_centroid):
                one(y=clip.samples, sr=clip.rate)
            of.spectral_bandwidth(y=clip.samples, sr=clip.rate)
            of.spectral_rolloff(y=clip.samples, sr=clip.rate)
            librosa.onset.onset_detect(y=clip.samples, sr=clip.rate)
            librosa.beat.beat_track(y=clip.samples, sr=clip.rate)

        naive()  # it compiles for seconds when it is first called
        works["librosa"] = naive
    figures = side_by_side(works, rounds=effort.rounds, seconds=effort.seconds)
    if "librosa" in figures:
        yield Row(work, figures["ours"], "librosa, call by call", figures["librosa"], "ms", "not slower")
    else:
        yield missing(work, figures["ours"], "librosa, call by call", "ms", "not slower")
