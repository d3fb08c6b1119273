"""Wav2Vec2 on tiny real checkpoints: what transformers computes, in pieces and batches; errors in words."""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch")

from grym_nb.audio import synth  # noqa: E402
from grym_nb.audio.transcript import Transcript  # noqa: E402
from grym_nb.audio.wav2vec2 import Label, Wav2Vec2  # noqa: E402
from grym_nb.clip import Clip  # noqa: E402
from grym_nb.errors import (  # noqa: E402
    AudioError,
    CallCancelled,
    CheckpointError,
    ConfigError,
    GrymError,
    LoadFailed,
    ValidationError,
)
from grym_nb.services import ServiceHandle, ServiceRegistry, Task  # noqa: E402
from grym_nb.services.progress import on_progress  # noqa: E402

CTC, CLASSES, BARE = "Wav2Vec2ForCTC", "Wav2Vec2ForSequenceClassification", "Wav2Vec2Model"
Serve = Callable[..., ServiceHandle]


@pytest.fixture
def serve(checkpoints: Any) -> Iterator[Serve]:
    """Gives ``serve(kind, norm, **config)``: a service with a tiny checkpoint, in a registry of its own."""
    registry = ServiceRegistry()

    def register(kind: str = CTC, norm: str = "layer", name: str = "ears", **config: Any) -> ServiceHandle:
        told = {"model": str(checkpoints(kind, norm)), "device": "cpu", **config}
        return registry.register(name, Wav2Vec2, config=told)

    yield register
    assert registry.close(10.0) == ()


def a_sound(seconds: float, seed: int = 0, rate: int = 16_000) -> Clip:
    """Return noise that changes its level each tenth of a second."""
    noise = synth.noise(seconds=seconds, seed=seed, rate=rate).samples
    levels = np.random.default_rng(seed).uniform(0.05, 1.0, 1 + int(seconds * 10))
    return Clip(noise * np.repeat(levels, rate // 10)[: noise.size], rate)


def theirs(folder: Path, clip: Clip, **options: Any) -> Any:
    """Return what the model itself makes of what its own feature extractor makes of a clip."""
    import transformers

    kind = json.loads((folder / "config.json").read_text())["architectures"][0]
    model = getattr(transformers, kind).from_pretrained(folder).eval()
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(folder)
    given = extractor(clip.samples, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        return model(**given, **options)


# -- what it answers -------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_a_transcript_is_what_the_tokenizer_makes_of_the_models_path(
    serve: Serve, checkpoints: Any, norm: str
) -> None:
    """With words in order, within the clip, and probabilities."""
    import transformers

    clip = a_sound(2.0)
    told = serve(CTC, norm).transcribe(clip)
    path = theirs(checkpoints(CTC, norm), clip).logits.argmax(-1)[0]
    tokenizer = transformers.Wav2Vec2CTCTokenizer.from_pretrained(checkpoints(CTC, norm))
    assert told.text == tokenizer.decode(path) != ""
    assert " ".join(word.text for word in told.words) == told.text and told.seconds == 2.0
    times = [time for word in told.words for time in (word.start, word.end)]
    assert times == sorted(times) and times[0] >= 0 and times[-1] <= 2.0
    assert all(0 < word.confidence <= 1 for word in told.words) and 0 < told.confidence <= 1
    assert {type(time) for time in times} == {float}


@pytest.mark.parametrize("layer", [0, 1, 2, -1, -3])
def test_an_embedding_is_a_layer_by_frame_or_its_mean(serve: Serve, checkpoints: Any, layer: int) -> None:
    """As NumPy, float32, and the caller's own."""
    clip = a_sound(1.0)
    ears = serve(BARE)
    wanted = theirs(checkpoints(BARE), clip, output_hidden_states=True).hidden_states[layer][0].numpy()
    frames = ears.embed(clip, layer=layer, per="frame")
    assert frames.dtype == np.float32 and frames.shape == (50, 16) and frames.flags.writeable
    assert np.allclose(frames, wanted, atol=1e-5)
    assert np.allclose(ears.embed(clip, layer=layer), wanted.mean(axis=0), atol=1e-5)


def test_labels_have_the_models_probabilities_the_most_probable_first(serve: Serve, checkpoints: Any) -> None:
    clip = a_sound(1.0)
    ears = serve(CLASSES)
    shares = theirs(checkpoints(CLASSES), clip).logits.softmax(-1)[0].numpy()
    found = ears.classify(clip)
    assert sum(label.probability for label in found) == pytest.approx(1.0)
    names = ["tone", "noise", "click"]
    assert found == tuple(Label(names[at], pytest.approx(shares[at], abs=1e-5)) for at in np.argsort(-shares))
    assert ears.classify(clip, top=1) == found[:1]


@pytest.mark.parametrize("kind", [CTC, CLASSES])
def test_every_kind_of_checkpoint_embeds(serve: Serve, kind: str) -> None:
    assert serve(kind).embed(a_sound(0.5)).shape == (16,)


# -- batches and pieces ----------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_a_batch_answers_what_each_alone_does(serve: Serve, norm: str) -> None:
    """Within 1e-4, of any lengths: padded with a mask where the checkpoint knows it, else never padded."""
    clips = [a_sound(seconds, seed) for seed, seconds in enumerate((1.0, 0.9, 0.97, 1.0, 0.5, 2.3))]
    ears = serve(BARE, norm)
    for per in ("frame", "clip"):
        together = ears.embed_all(clips, per=per)
        alone = [ears.embed(clip, per=per) for clip in clips]
        assert [one.shape for one in together] == [one.shape for one in alone]
        assert max(float(np.abs(a - b).max()) for a, b in zip(together, alone, strict=True)) < 1e-4


def test_transcripts_and_labels_of_a_batch_are_those_of_each_alone(serve: Serve) -> None:
    clips = [a_sound(seconds, seed) for seed, seconds in enumerate((1.0, 0.9, 1.4))]
    ears, judge = serve(CTC), serve(CLASSES, name="judge")
    assert [one.text for one in ears.transcribe_all(clips)] == [ears.transcribe(clip).text for clip in clips]
    for together, clip in zip(judge.classify_all(clips), clips, strict=True):
        alone = judge.classify(clip)
        assert [label.label for label in together] == [label.label for label in alone]
        assert [a.probability for a in together] == pytest.approx([b.probability for b in alone], abs=1e-4)


def passes_of(network: Any) -> list[int]:
    """Return what becomes the list of how many sounds each pass of a network was given."""
    seen: list[int] = []
    network.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    return seen


def test_a_network_runs_once_for_sounds_of_about_one_length(serve: Serve) -> None:
    """Four of them are one pass; where padding would change the answer, two."""
    for norm, wanted in (("layer", [4]), ("group", [2, 2])):
        ears = serve(BARE, norm, name=norm)
        with ears.use() as service:
            seen = passes_of(service.network)
        ears.embed_all([a_sound(1.0), a_sound(0.95, 1), a_sound(1.0, 2), a_sound(0.95, 3)])
        assert seen == wanted


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_a_long_clip_in_pieces_has_the_frames_of_the_whole(serve: Serve, norm: str) -> None:
    """As many, and away from the cuts the same words as transformers' own pipeline has in its chunks."""
    clip = a_sound(11.3)
    whole = serve(CTC, norm, name="whole")
    cut = serve(CTC, norm, name="cut", chunk_s=3.0, stride_s=0.6, batch_size=2)
    frames = [ears.embed(clip, per="frame") for ears in (whole, cut)]
    assert frames[0].shape == frames[1].shape


def test_the_pieces_say_what_the_pipeline_of_transformers_does(serve: Serve, checkpoints: Any) -> None:
    """The same text, decoded once, with the same chunks and strides."""
    import transformers

    clip = a_sound(11.3)
    told = serve(CTC, chunk_s=3.0, stride_s=0.6).transcribe(clip)
    folder = checkpoints(CTC)
    pipeline = transformers.pipeline(
        "automatic-speech-recognition",
        model=transformers.Wav2Vec2ForCTC.from_pretrained(folder),
        tokenizer=transformers.Wav2Vec2CTCTokenizer.from_pretrained(folder),
        feature_extractor=transformers.Wav2Vec2FeatureExtractor.from_pretrained(folder),
    )
    assert told.text == pipeline(clip.samples.copy(), chunk_length_s=3.0, stride_length_s=0.6)["text"]


def test_long_work_tells_how_far_it_is_and_can_be_cancelled(serve: Serve) -> None:
    """It ends between two pieces, and the service stays ready."""
    ears = serve(CTC, chunk_s=1.0, stride_s=0.2, batch_size=1).load()
    entered, go = threading.Event(), threading.Event()
    with ears.use() as service:

        def hold(*_: Any) -> None:
            entered.set()
            assert go.wait(60)

        hook = service.network.register_forward_pre_hook(hold)
    call = ears.transcribe.submit(a_sound(8.0))
    assert entered.wait(60)
    call.cancel()
    go.set()
    with pytest.raises(CallCancelled):
        call.result(60)
    hook.remove()
    with ears.use() as service:
        seen = passes_of(service.network)
    told: list[str] = []
    undo = on_progress(lambda progress: told.append(progress.told))
    try:
        assert isinstance(ears.transcribe(a_sound(8.0)), Transcript) and ears.state == "ready"
    finally:
        undo()
    assert told[-1] == f"{len(seen)}/{len(seen)}" and len(seen) > 10


# -- sound that is given ---------------------------------------------------------------------------


def test_a_sound_of_any_layout_and_rate_is_heard(serve: Serve) -> None:
    """Stereo, another rate, int16 and clipped: mono at the model's rate is made of it."""
    ears = serve(CTC)
    clip = a_sound(1.0)
    text = ears.transcribe(clip).text
    assert ears.transcribe(Clip(np.stack([clip.samples, clip.samples]), 16_000)).text == text
    for other in (
        a_sound(1.0, rate=44_100),
        a_sound(1.0, rate=11_025),
        Clip((clip.samples * 32767).astype(np.int16), 16_000),
        Clip(np.clip(clip.samples * 8, -1, 1), 16_000),
        Clip(clip.samples * 100, 16_000),
    ):
        found = ears.transcribe(other)
        assert found.text and found.seconds == pytest.approx(1.0)
    assert ears.transcribe(Clip(clip.samples * 0.1, 16_000)).text == text


def nan_in(clip: Clip) -> Clip:
    samples = clip.samples.copy()
    samples[100] = np.nan
    return Clip(samples, clip.rate)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (lambda: Clip([], 16_000), "samples: found none, expected some"),
        (lambda: synth.tone(seconds=0.01), "length: found 10 ms (160 samples), expected at least 10.3 ms"),
        (lambda: synth.tone(seconds=0.01, rate=8000), "expected at least"),
        (lambda: nan_in(synth.tone()), "found 1 that are NaN or infinite, expected finite numbers"),
        (lambda: Clip(np.zeros(16_000), 16_000), "samples that are all zero, expected a peak from -70 dBFS"),
        (lambda: synth.tone(level_db=-80), "a peak of -80 dBFS, expected a peak from -70 dBFS on"),
        (lambda: Clip(np.zeros(22_000, np.float32), 1), "length: found 6.1 h, expected at most 6 h"),
    ],
)
def test_a_sound_that_cannot_be_used_is_named(serve: Serve, given: Callable[[], Clip], told: str) -> None:
    """What was found and what is accepted; all tasks say so, and the next call is answered."""
    ears = serve(CTC)
    for ask in (ears.transcribe, ears.embed):
        with pytest.raises(AudioError) as caught:
            ask(given())
        assert told in caught.value.cause
    assert ears.transcribe(a_sound(0.5)).seconds == 0.5 and ears.state == "ready"


def test_the_shortest_sound_has_one_frame(serve: Serve) -> None:
    """One sample less is refused before the network sees it."""
    ears = serve(BARE).load()
    with ears.use() as service:
        shortest = service._shortest
    assert ears.embed(synth.tone(seconds=shortest / 16_000), per="frame").shape == (1, 16)
    with pytest.raises(AudioError, match="expected at least"):
        ears.embed(synth.tone(seconds=(shortest - 1) / 16_000))


def test_what_is_no_clip_is_refused_by_every_task(serve: Serve, tmp_path: Path) -> None:
    """An array, a path and an empty batch are no clips; a text file is no wav."""
    ears = serve(CTC)
    for ask, given in (
        (ears.transcribe, np.zeros(16_000)),
        (ears.embed, "song.wav"),
        (ears.transcribe_all, []),
        (ears.transcribe_all, a_sound(0.5)),
    ):
        with pytest.raises(ValidationError):
            ask(given)
    with pytest.raises(AudioError, match=r"takes clips, not 'song\.wav'"):
        ears.transcribe_all(["song.wav"])
    (tmp_path / "notes.wav").write_text("these are words")
    with pytest.raises(AudioError, match="is no audio that can be read"):
        ears.transcribe(Clip.read(tmp_path / "notes.wav"))
    whole = synth.chord(seconds=3.0).write(tmp_path / "song.mp3").read_bytes()
    (tmp_path / "cut.mp3").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AudioError, match="is cut off or damaged"):
        ears.transcribe(Clip.read(tmp_path / "cut.mp3"))
    assert ears.state in ("registered", "ready")


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda ears, clip: ears.embed(clip, layer=3), "layer: found 3, expected from -3 to 2"),
        (lambda ears, clip: ears.embed(clip, layer=-4), "layer: found -4"),
        (
            lambda ears, clip: ears.embed(clip, per="word"),
            "per: found 'word', expected one of 'clip', 'frame'",
        ),
        (lambda ears, clip: ears.classify(clip, top=0), "top: found 0, expected a whole number from 1"),
    ],
)
def test_parameters_that_do_not_fit_are_named(serve: Serve, ask: Any, told: str) -> None:
    ears = serve(CLASSES)
    with pytest.raises(ValidationError) as caught:
        ask(ears, a_sound(0.5))
    assert told in caught.value.cause


@pytest.mark.parametrize(
    ("kind", "task"), [(CLASSES, "transcribe"), (BARE, "transcribe"), (CTC, "classify"), (BARE, "classify")]
)
def test_a_task_that_the_checkpoint_has_no_head_for_says_so(serve: Serve, kind: str, task: str) -> None:
    ears = serve(kind)
    with pytest.raises(CheckpointError, match=f"is a {kind}: no such model {task[:-1]}"):
        ears.run(task, a_sound(0.5))
    assert ears.state == "ready"


# -- loading ---------------------------------------------------------------------------------------


def test_two_services_on_one_checkpoint_share_its_weights(serve: Serve) -> None:
    """In one copy, whatever else their configs say."""
    one, two = serve(CTC, name="one").load(), serve(CTC, name="two", chunk_s=10.0).load()
    with one.use() as first, two.use() as second:
        assert first.network is second.network
    one.unload()
    assert two.transcribe(a_sound(0.5)).seconds == 0.5


def test_where_it_is_and_of_what_it_is_made_is_said(
    serve: Serve, checkpoints: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """On the service, in the provenance of its results, and in the log."""
    caplog.set_level(logging.INFO)
    ears = serve(CTC, device="cuda:7")
    with ears.use() as service:
        assert (service.device, service.placement.dtype) == ("cpu", "float32")
    assert "wav2vec2 computes on the CPU: no cuda:7 is there" in caplog.text
    result = ears.execute(Task("audio.transcribe", a_sound(0.5)))
    assert result.provenance.checkpoint == str(checkpoints(CTC))


@pytest.mark.parametrize(("dtype", "off"), [("float16", 0.01), ("int8", 0.05)])
def test_other_numbers_give_nearly_the_same_vectors(serve: Serve, dtype: str, off: float) -> None:
    """Of float16, and of int8 weights; the answer is float32 all the same."""
    clip = a_sound(1.0)
    exact, rough = serve(BARE, name="exact"), serve(BARE, name="rough", dtype=dtype)
    a, b = (ears.embed(clip, per="frame") for ears in (exact, rough))
    assert b.dtype == np.float32 and not np.array_equal(a, b)
    assert float(np.abs(a - b).max() / np.abs(a).max()) < off


def broken(folder: Path, to: Path, change: Callable[[Path], Any]) -> str:
    shutil.copytree(folder, to)
    change(to)
    return str(to)


def without(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def another_kind(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["HubertForCTC"]}))


def test_what_only_training_needs_may_be_missing(serve: Serve, checkpoints: Any, tmp_path: Path) -> None:
    """As of wav2vec2-base-960h."""
    from safetensors.torch import load_file, save_file

    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "mask_time_prob": 0.05}))
        weights = load_file(folder / "model.safetensors")
        weights.pop("wav2vec2.masked_spec_embed", None)
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    clip = a_sound(0.5)
    there = serve(CTC, name="whole").transcribe(clip)
    lacking = serve(CTC, name="lacking", model=broken(checkpoints(CTC), tmp_path / "lacking", change))
    assert lacking.transcribe(clip) == there


def a_head_that_is_not_there(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": [CLASSES]}))


def cut_off(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without("model.safetensors"), "missing: model.safetensors or pytorch_model.bin"),
        (
            without("preprocessor_config.json", "vocab.json"),
            "missing: preprocessor_config.json or proc",
        ),
        (without("config.json"), "found model.safetensors"),
        (another_kind, f"accepted: {CTC}, {CLASSES}"),
        (a_head_that_is_not_there, "missing: classifier.bias, classifier.weight, projector.bias"),
        (cut_off, "SafetensorError"),
    ],
    ids=["weights", "tokens", "config", "kind", "head", "cut"],
)
def test_a_checkpoint_that_cannot_be_used_is_named_by_the_load(
    serve: Serve, checkpoints: Any, tmp_path: Path, change: Any, told: str
) -> None:
    """With what was found and what is accepted; with a whole one the same service loads."""
    bad = broken(checkpoints(CTC), tmp_path / "bad", change)
    ears = serve(CTC, model=bad)
    with pytest.raises(LoadFailed) as caught:
        ears.load()
    assert told in caught.value.cause and caught.value.hint and not caught.value.can_change
    ears.configure(model=str(checkpoints(CTC)))
    assert ears.transcribe(a_sound(0.5)).seconds == 0.5


def test_without_a_model_the_load_says_how_to_name_one(serve: Serve) -> None:
    with pytest.raises(LoadFailed, match="no model is configured") as caught:
        serve(CTC, model=None).load()
    assert "%grym load wav2vec2 --model DIR" in caught.value.hint


def test_a_config_that_could_never_work_is_refused(serve: Serve) -> None:
    with pytest.raises(ConfigError) as caught:
        Wav2Vec2("dir", chunk_s=1.0, stride_s=0.5, batch_size=0)
    assert [problem.path for problem in caught.value.problems] == ["stride_s", "batch_size"]
    assert isinstance(caught.value, GrymError)


def test_pickled_weights_are_read_without_running_what_is_in_them(
    serve: Serve, checkpoints: Any, tmp_path: Path
) -> None:
    """A file of tensors loads; one that would run code is refused."""
    folder = Path(broken(checkpoints(CTC), tmp_path / "pickled", lambda _: None))
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    clip = a_sound(0.5)
    assert serve(CTC, model=str(folder), name="a").transcribe(clip) == serve(CTC, name="b").transcribe(clip)

    class Evil:
        def __reduce__(self) -> Any:
            return exec, ("raise SystemExit('it ran')",)

    torch.save({**weights, "lm_head.bias": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(LoadFailed, match="could not be read"):
        serve(CTC, model=str(folder), name="c").load()


def test_a_load_tells_how_far_it_is(serve: Serve) -> None:
    """Its parts, one after the other, to whoever shows progress."""
    told: list[str] = []
    undo = on_progress(lambda progress: told.append(f"{progress.title.rpartition(' ')[2]} {progress.told}"))
    try:
        serve(CTC).load()
    finally:
        undo()
    assert "load 2/2" in told


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "off"), [("float16", 0.02), ("bfloat16", 0.15)])
def test_on_an_accelerator_the_vectors_are_those_of_the_cpu(serve: Serve, dtype: str, off: float) -> None:
    """Within what the numbers can hold, and its memory for each second of sound is bounded."""
    clip = a_sound(5.0)
    exact, there = serve(BARE, name="exact"), serve(BARE, name="there", device="auto", dtype=dtype)
    a, b = (ears.embed(clip, layer=1, per="frame") for ears in (exact, there))
    assert float(np.abs(a - b).max() / np.abs(a).max()) < off
    with there.use() as service:
        assert service.device != "cpu"
        if service.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            service.embed(clip)
            assert 0 < (torch.cuda.max_memory_allocated() - before) / clip.seconds < 20e6
