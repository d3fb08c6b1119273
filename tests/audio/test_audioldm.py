"""The AudioLDM family on tiny real pipelines: one task for all, what it promises, and what it refuses."""

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

from grym_nb.audio.audioldm import AudioLDM  # noqa: E402
from grym_nb.audio.generated import Candidate, Generated  # noqa: E402
from grym_nb.audio.pipelines import SCHEDULERS, clap_score  # noqa: E402
from grym_nb.clip import Clip  # noqa: E402
from grym_nb.errors import CallCancelled, ConfigError, LoadFailed, ValidationError  # noqa: E402
from grym_nb.services import ServiceHandle, ServiceRegistry, Task  # noqa: E402
from grym_nb.services.progress import on_progress  # noqa: E402
from tests.audio.tiny import PIPELINES  # noqa: E402

ONE, TWO, MUSIC, STABLE = PIPELINES
Serve = Callable[..., ServiceHandle]

pytestmark = [  # of the libraries' own making
    pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Should have t:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
]


@pytest.fixture
def serve(checkpoints: Any) -> Iterator[Serve]:
    """Gives ``serve(kind, **config)``: a service with a tiny pipeline, in a registry of its own."""
    registry = ServiceRegistry()

    def register(kind: str = ONE, name: str = "maker", **config: Any) -> ServiceHandle:
        told = {"model": str(checkpoints(kind)), "device": "cpu", **config}
        return registry.register(name, AudioLDM, config=told)

    yield register
    assert registry.close(10.0) == ()


@pytest.fixture(scope="module")
def standing(checkpoints: Any) -> Iterator[Callable[[str], ServiceHandle]]:
    """Gives ``standing(kind)``: a loaded service for all tests here that change nothing of it."""
    registry = ServiceRegistry()

    def of(kind: str) -> ServiceHandle:
        told = {"model": str(checkpoints(kind)), "device": "cpu"}
        return registry.register(kind, AudioLDM, config=told).load()

    yield of
    assert registry.close(10.0) == ()


def theirs(folder: Path, **options: Any) -> Any:
    """Return what diffusers makes of a prompt with a pipeline that it has read itself."""
    import diffusers

    kind = json.loads((folder / "model_index.json").read_text())["_class_name"]
    pipeline = getattr(diffusers, kind).from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.Generator().manual_seed(7)
    return pipeline("a bird sings", generator=noise, output_type="np", **options).audios[0]


# -- what it makes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ONE, TWO, STABLE])
def test_a_sound_is_what_the_pipeline_of_diffusers_makes(serve: Serve, checkpoints: Any, kind: str) -> None:
    """Of the same seed, steps, guidance and length; MusicLDM's own cannot be asked."""
    length = {"audio_end_in_s" if kind == STABLE else "audio_length_in_s": 0.3}
    wanted = theirs(checkpoints(kind), num_inference_steps=3, guidance_scale=2.0, **length)
    made = serve(kind).generate("a bird sings", seconds=0.3, steps=3, guidance=2.0, seed=7)
    assert np.allclose(made.clip.samples, wanted, atol=1e-5) and np.abs(wanted).max() > 0.01
    assert made.clip.rate == (8000 if kind == STABLE else 16_000)


@pytest.mark.parametrize("kind", PIPELINES)
def test_candidates_keep_their_seeds_and_each_makes_the_same_sound_again(serve: Serve, kind: str) -> None:
    """Alone as well as among others; the best is the first where the checkpoint hears."""
    maker = serve(kind)
    made = maker.generate("a bird sings", seconds=0.2, steps=2, seed=3, candidates=3)
    assert isinstance(made, Generated) and len(made) == 3
    assert sorted(one.seed for one in made) == [3, 4, 5]
    assert len({one.clip.hash for one in made}) == 3
    scores = [one.score for one in made]
    if kind in (TWO, MUSIC):
        assert scores == sorted(scores, reverse=True) and all(-1 <= score <= 1 for score in scores)
    else:
        assert scores == [None] * 3 and [one.seed for one in made] == [3, 4, 5]
    for one in made:
        again = maker.generate("a bird sings", seconds=0.2, steps=2, seed=one.seed)
        assert (again.clip, again.seed) == (one.clip, one.seed)
        assert again.candidates[0].score == pytest.approx(one.score)


def test_what_is_left_out_is_as_the_model_likes_it(serve: Serve) -> None:
    """Its length, steps and guidance; a seed is drawn, kept, and another one each time."""
    maker = serve(ONE)
    one, two = (maker.generate("a bird") for _ in range(2))
    assert (one.steps, one.guidance, one.scheduler) == (10, 2.5, "DDIMScheduler")
    assert one.clip.seconds == 0.64 and one.seed != two.seed and one.clip != two.clip


def test_prompt_negative_prompt_and_guidance_are_heard(serve: Serve) -> None:
    """Each of them changes the sound of a seed."""
    maker = serve(TWO)
    said = [
        ("a bird", {}),
        ("a dog barks", {}),
        ("a bird", {"negative_prompt": "low quality"}),
        ("a bird", {"guidance": 9.0}),
        ("a bird", {"steps": 4}),
    ]
    sounds = {
        maker.generate(text, **{"seconds": 0.2, "steps": 3, "seed": 1} | more).clip for text, more in said
    }
    assert len(sounds) == len(said)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_another_scheduler_serves_one_call_alone(standing: Any, scheduler: str) -> None:
    """Whatever it counts as a step; the next call has the checkpoint's own again."""
    maker = standing(ONE)
    before = maker.generate("a bird", seconds=0.2, steps=4, seed=1)
    other = maker.generate("a bird", seconds=0.2, steps=4, seed=1, scheduler=scheduler)
    assert other.scheduler == SCHEDULERS[scheduler]
    assert np.isfinite(other.clip.samples).all()
    after = maker.generate("a bird", seconds=0.2, steps=4, seed=1)
    assert (after.scheduler, after.clip) == ("DDIMScheduler", before.clip)


@pytest.mark.parametrize(
    ("kind", "seconds"), [(ONE, 0.02), (ONE, 0.237), (TWO, 1.3), (STABLE, 0.1), (STABLE, 0.5)]
)
def test_a_sound_is_as_long_as_was_asked(standing: Any, kind: str, seconds: float) -> None:
    """To the sample, give or take one."""
    clip = standing(kind).generate("a bird", seconds=seconds, steps=1, seed=0).clip
    assert abs(clip.frames - seconds * clip.rate) <= 1


def test_a_score_is_the_cosine_of_what_clap_makes_of_both(serve: Serve, checkpoints: Any) -> None:
    """As its own classes tell; over the parts of a sound that is too long for it. No random state is used."""
    import transformers

    with serve(MUSIC).use() as service:
        pipeline = service.pipeline
    folder = checkpoints(MUSIC)
    clap = transformers.ClapModel.from_pretrained(folder / "text_encoder")
    extractor = transformers.ClapFeatureExtractor.from_pretrained(folder / "feature_extractor")
    tokens = pipeline.tokenizer("a bird", return_tensors="pt")

    def cosine(clip: Clip) -> float:
        heard = extractor(clip.at(48_000).samples, sampling_rate=48_000, return_tensors="pt")
        with torch.no_grad():
            return float(clap(**tokens, **heard).logits_per_text / clap.logit_scale_t.exp())

    rng = np.random.default_rng(0)
    short, long = (Clip(rng.uniform(-1, 1, n), 48_000) for n in (24_000, 72_000))
    state = np.random.get_state()[1].copy()
    assert clap_score(pipeline, "a bird", short) == pytest.approx(cosine(short), abs=1e-5)
    parts = [cosine(long.cut(0, 1)), cosine(long.cut(1, 1.5))]
    assert clap_score(pipeline, "a bird", long) == pytest.approx(np.mean(parts), abs=1e-5)
    assert np.array_equal(np.random.get_state()[1], state)


def test_the_users_random_numbers_are_left_alone(serve: Serve) -> None:
    maker = serve(MUSIC).load()
    state = torch.random.get_rng_state()
    maker.generate("a bird", seconds=0.2, steps=2)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_seed_and_the_checkpoint_stand_in_the_provenance(serve: Serve, checkpoints: Any) -> None:
    task = Task("audio.generate", "a bird", params={"seconds": 0.1, "steps": 1, "seed": 5})
    provenance = serve(ONE).execute(task).provenance
    assert (provenance.seed, provenance.checkpoint) == (5, str(checkpoints(ONE)))


# -- progress and cancel ---------------------------------------------------------------------------


def test_each_step_is_told_and_a_cancel_leaves_the_pipeline_usable(serve: Serve) -> None:
    """It takes hold at the next step; the same seed makes the same sound afterwards."""
    maker = serve(ONE)
    before = maker.generate("a bird", seconds=0.2, steps=3, seed=1).clip
    entered, go = threading.Event(), threading.Event()
    steps: list[int] = []

    def hold(*_: Any) -> None:
        steps.append(1)
        entered.set()
        assert go.wait(60)

    with maker.use() as service:
        hook = service.pipeline.unet.register_forward_pre_hook(hold)
    call = maker.generate.submit("a bird", seconds=0.2, steps=50, seed=1)
    assert entered.wait(60)
    call.cancel()
    go.set()
    with pytest.raises(CallCancelled):
        call.result(60)
    hook.remove()
    assert len(steps) <= 2 and maker.state == "ready"
    told: list[str] = []
    undo = on_progress(lambda progress: told.append(progress.told))
    try:
        assert maker.generate("a bird", seconds=0.2, steps=3, seed=1).clip == before
    finally:
        undo()
    assert told[-1] == "3/3"


# -- what is refused -------------------------------------------------------------------------------

REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    (ONE, "", {}, "prompt: found '', expected something that is not empty"),
    (ONE, " ", {}, "prompt: found ' ', expected words"),
    (ONE, 7, {}, "prompt: found 7, expected text"),  # type: ignore[list-item]
    (ONE, ["a", "b"], {}, "prompt: found ['a', 'b'], expected text"),  # type: ignore[list-item]
    (ONE, "a" * 40, {}, "prompt: found 42 tokens, expected at most 32"),
    (TWO, "a bird", {"negative_prompt": "b" * 40}, "negative_prompt: found 42 tokens, expected at most 32"),
    (ONE, "a bird", {"negative_prompt": 3}, "negative_prompt: found 3, expected text or None"),
    (ONE, "a bird", {"negative_prompt": "noise", "guidance": 1.0}, "guidance: found 1.0, expected above 1"),
    (ONE, "a bird", {"steps": 0}, "steps: found 0, expected a whole number from 1 to 1000"),
    (ONE, "a bird", {"steps": 1001}, "steps: found 1001"),
    (ONE, "a bird", {"steps": 2.5}, "steps: found 2.5, expected a whole number"),
    (ONE, "a bird", {"seconds": -1.0}, "seconds: found -1.0, expected seconds from 20 ms to 1 min 0 s"),
    (ONE, "a bird", {"seconds": 0}, "seconds: found 0.0"),
    (ONE, "a bird", {"seconds": 61}, "seconds: found 61.0"),
    (ONE, "a bird", {"seconds": float("nan")}, "seconds: found nan"),
    (STABLE, "a bird", {"seconds": 0.6}, "seconds: found 0.6, expected seconds from 125 us to 512 ms"),
    (ONE, "a bird", {"guidance": -1}, "guidance: found -1, expected a number from 0 to 50"),
    (ONE, "a bird", {"guidance": 51.0}, "guidance: found 51.0"),
    (ONE, "a bird", {"seed": -1}, "seed: found -1, expected a whole number from 0"),
    (ONE, "a bird", {"candidates": 0}, "candidates: found 0, expected a number from 1 to 16"),
    (ONE, "a bird", {"candidates": 17}, "candidates: found 17"),
    (
        ONE,
        "a bird",
        {"scheduler": "unipic"},
        "scheduler: found 'unipic', expected one of ddim, dpm",
    ),
    (STABLE, "a bird", {"scheduler": "ddim"}, "expected None: only CosineDPMSolverMultistepScheduler fits"),
]


@pytest.mark.parametrize(("kind", "prompt", "options", "told"), REFUSED, ids=[told for *_, told in REFUSED])
def test_what_cannot_be_made_is_refused_before_anything_runs(
    standing: Any, kind: str, prompt: str, options: dict[str, Any], told: str
) -> None:
    """Everything that is wrong at once, with what is accepted; the service stays ready."""
    maker = standing(kind)
    with maker.use() as service:
        network = service.pipeline.transformer if kind == STABLE else service.pipeline.unet
        ran: list[Any] = []
        hook = network.register_forward_pre_hook(lambda *_: ran.append(1))
    with pytest.raises(ValidationError) as caught:
        maker.generate(prompt, **options)
    hook.remove()
    assert told in caught.value.cause and ran == [] and maker.state == "ready"


def test_all_that_is_wrong_is_told_at_once_and_the_nearest_scheduler(serve: Serve) -> None:
    with pytest.raises(ValidationError) as caught:
        serve(ONE).generate("a bird", steps=0, seconds=-2, scheduler="unipic")
    problems = caught.value.problems
    assert [problem.path for problem in problems] == ["seconds", "steps", "scheduler"]
    assert "Did you mean 'unipc'?" in problems[2].expected


def test_how_long_a_sound_may_be_is_configured(serve: Serve) -> None:
    """In place, without reading the weights again; never below what the model makes by itself."""
    maker = serve(ONE).load()
    assert maker.configure(longest_s=0.1) == "in place"
    assert maker.generate("a bird", seconds=0.64, steps=1).clip.seconds == 0.64
    with pytest.raises(ValidationError, match="to 640 ms"):
        maker.generate("a bird", seconds=0.65)
    with pytest.raises(ConfigError, match="longest_s: found -1"):
        AudioLDM("dir", longest_s=-1)


# -- loading ---------------------------------------------------------------------------------------


def test_a_language_model_that_is_declared_without_its_head_is_read_with_it(
    serve: Serve, checkpoints: Any, tmp_path: Path
) -> None:
    """As released AudioLDM2 checkpoints declare it: the same weights, and the same sound."""
    import transformers

    folder = tmp_path / "declared"
    shutil.copytree(checkpoints(TWO), folder)
    transformers.GPT2Model.from_pretrained(checkpoints(TWO) / "language_model").save_pretrained(
        folder / "language_model"
    )
    index = json.loads((folder / "model_index.json").read_text())
    index["language_model"] = ["transformers", "GPT2Model"]
    (folder / "model_index.json").write_text(json.dumps(index))
    said = {"seconds": 0.2, "steps": 2, "seed": 1}
    one = serve(TWO, name="declared", model=str(folder)).generate("a bird", **said)
    assert one.clip == serve(TWO, name="whole").generate("a bird", **said).clip


def test_two_services_on_one_checkpoint_share_its_weights(serve: Serve) -> None:
    one, two = serve(ONE, name="one").load(), serve(ONE, name="two", longest_s=5.0).load()
    with one.use() as first, two.use() as second:
        assert first.pipeline.unet is second.pipeline.unet


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def with_class(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        index = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": name}))

    return change


def cut_off(folder: Path) -> None:
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:3000])


def lacking(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "vocoder/model.safetensors")
    del weights["conv_post.weight"]
    save_file(weights, folder / "vocoder/model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            without("unet/diffusion_pytorch_model.safetensors"),
            "missing: unet/diffusion_pytorch_model.safetensors",
        ),
        (without("vocoder/config.json"), "missing: vocoder/config.json"),
        (with_class("StableDiffusionPipeline"), f"accepted: {', '.join(PIPELINES)}"),
        (lacking, "missing: conv_post.weight"),
        (cut_off, "Error"),
    ],
    ids=["weights", "config", "kind", "lacking", "cut"],
)
def test_a_pipeline_that_cannot_be_used_is_named_by_the_load(
    serve: Serve, checkpoints: Any, tmp_path: Path, change: Any, told: str
) -> None:
    """With what was found and what is accepted; with a whole one the same service loads."""
    shutil.copytree(checkpoints(ONE), tmp_path / "bad")
    change(tmp_path / "bad")
    maker = serve(ONE, model=str(tmp_path / "bad"))
    with pytest.raises(LoadFailed) as caught:
        maker.load()
    assert told in caught.value.cause and caught.value.hint and not caught.value.can_change
    maker.configure(model=str(checkpoints(ONE)))
    assert maker.generate("a bird", seconds=0.1, steps=1).clip.frames == 1600


def test_a_checkpoint_for_another_service_and_none_at_all_are_told(serve: Serve, checkpoints: Any) -> None:
    with pytest.raises(LoadFailed, match=r"config\.json says Wav2Vec2ForCTC"):
        serve(ONE, model=str(checkpoints("Wav2Vec2ForCTC"))).load()
    with pytest.raises(LoadFailed, match="no model is configured") as caught:
        serve(ONE, name="none", model=None).load()
    assert "%grym load audioldm --model DIR" in caught.value.hint
    with pytest.raises(LoadFailed, match="the model cannot be placed so") as caught:
        serve(ONE, name="int8", dtype="int8").load()
    assert "expected auto, float32, float16, bfloat16" in caught.value.cause


def test_a_load_tells_how_far_it_is(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Part by part; and in the log what was read, of which size and where to."""
    caplog.set_level(logging.INFO)
    told: list[str] = []
    undo = on_progress(lambda progress: told.append(progress.told))
    try:
        serve(ONE).load()
    finally:
        undo()
    assert told[-1] == "6/6"
    assert "audioldm: cpu, float32 (as asked for)" in caplog.text


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "off"), [("float16", 0.05), ("bfloat16", 0.3)])
def test_on_an_accelerator_the_sound_is_that_of_the_cpu(serve: Serve, dtype: str, off: float) -> None:
    """Of the same seed, within what the numbers can hold."""
    said = {"seconds": 0.3, "steps": 2, "seed": 1}
    exact = serve(TWO, name="exact").generate("a bird", **said).clip.samples
    there = serve(TWO, name="there", device="auto", dtype=dtype)
    rough = there.generate("a bird", **said).clip.samples
    with there.use() as service:
        assert service.device != "cpu"
    assert float(np.abs(exact - rough).max() / np.abs(exact).max()) < off


def test_candidates_are_shown_with_their_players() -> None:
    """Four at most; all of them are in the table."""
    tone = Clip(np.sin(np.arange(8000) / 9) / 2, 8000)
    made = Generated("a <bird>", "noise", tuple(Candidate(tone, at, 0.5) for at in range(6)), 9, 2.5, "DDIM")
    page = made._repr_html_()
    assert page.count("<audio") == 4 and "2 more: .candidates" in page and "a &lt;bird&gt;" in page
    assert "seed 0, score 0.50" in repr(made) and "2 more" in repr(made)
    assert (made.clip, made.seed, len(made.clips)) == (tone, 0, 6)
    assert "9 steps, guidance 2.5, DDIM, without 'noise'" in made.table().text()
    plain = Generated("a", None, (Candidate(tone, 1),), 9, 2.5, "DDIM")
    assert "score" not in repr(plain) and [one.seed for one in plain] == [1]
