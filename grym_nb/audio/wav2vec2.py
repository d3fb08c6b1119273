"""Wav2Vec2: what was said, what it sounds like as vectors, and of which kind it is.

The checkpoint says what it can do: with a CTC head it transcribes, with one for sequences it classifies, and
all of them embed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from grym_nb.audio import loading
from grym_nb.audio.checkpoint import Checkpoint, find, read_json
from grym_nb.audio.pieces import Piece, batches, pieces
from grym_nb.audio.transcript import Transcript, posteriors, transcript_of
from grym_nb.clip import Clip
from grym_nb.errors import AudioError, CheckpointError, ConfigError, Problem, ValidationError
from grym_nb.render import brief, count
from grym_nb.services.checks import not_empty
from grym_nb.services.model import ModelService, task
from grym_nb.services.progress import track

__all__ = ["KINDS", "Label", "Wav2Vec2"]

_PREPROCESSOR = "preprocessor_config.json|processor_config.json"
#: what can be loaded, each with the files that it needs beside its weights
KINDS = {
    "Wav2Vec2ForCTC": (_PREPROCESSOR, "vocab.json"),
    "Wav2Vec2ForSequenceClassification": (_PREPROCESSOR,),
    "Wav2Vec2Model": (_PREPROCESSOR,),
    "Wav2Vec2ForPreTraining": (_PREPROCESSOR,),
}
_LONGEST_S = 6 * 3600.0
_LEAST_STRIDE_S = 0.1  # the last frames of a piece are cut off by its end
_EPSILON = 1e-7  # as transformers normalises
# Read when the service is registered: what tasks take is checked by these.
_Array = npt.NDArray[np.float32]
_Clips = Annotated[list[Clip] | tuple[Clip, ...], not_empty()]


@dataclass(frozen=True, slots=True)
class Label:
    """What a sound may be, and how probable that is."""

    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class _Ears:
    """How a checkpoint wants its sound, and how it may be batched."""

    rate: int
    normalize: bool
    pads: bool  # others in its batch may be longer: it knows which samples are none

    @classmethod
    def of(cls, folder: Path, config: Any) -> _Ears:
        for name in _PREPROCESSOR.split("|"):
            if (folder / name).is_file():
                told = read_json(folder / name)
                break
        told = told.get("feature_extractor", told)
        # With "group" norm padding changes the answer, whatever the mask says; the checkpoint says which.
        pads = config.feat_extract_norm == "layer" and bool(told.get("return_attention_mask"))
        return cls(int(told.get("sampling_rate", 16_000)), bool(told.get("do_normalize", True)), pads)


class Wav2Vec2(ModelService):
    """Transcribes, embeds and classifies clips with one checkpoint of the Wav2Vec2 family.

    `model` is a directory, an id of the hub (owner/name@revision) or zoo:NAME; `device` and `dtype` what
    `loading.placement` takes. Clips longer than `chunk_s` are computed in pieces of it with `stride_s` of
    overlap on both sides, at most `batch_size` at once. What is quieter than `silence_db` (peak, in dB of
    full scale) is refused: a model hears words in silence, too.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        chunk_s: float = 20.0,
        stride_s: float = 3.0,
        batch_size: int = 4,
        silence_db: float = -70.0,
    ) -> None:
        problems = []
        if not _LEAST_STRIDE_S <= stride_s < chunk_s / 2:
            found = f"{brief(stride_s)} with chunk_s={brief(chunk_s)}"
            expected = f"seconds from {_LEAST_STRIDE_S} to below half of chunk_s"
            problems.append(Problem("stride_s", found, expected))
        if not batch_size >= 1:
            problems.append(Problem("batch_size", brief(batch_size), "a whole number from 1"))
        if problems:
            raise ConfigError("Wav2Vec2 cannot be made so", problems=problems)
        self.model, self._device, self._dtype = model, device, dtype
        self.chunk_s, self.stride_s, self.batch_size = chunk_s, stride_s, batch_size
        self.silence_db = silence_db

    # -- its life ----------------------------------------------------------------------------------

    def load(self) -> None:
        """Read the checkpoint onto its device; two services with the same one share its weights."""
        self.checkpoint: Checkpoint = find(self.model, KINDS, service="wav2vec2")
        self.placement = loading.placement(self._device, self._dtype, service="wav2vec2")
        self.device = self.placement.device
        self.network = self.shared(loading.shared_key(self.checkpoint, self.placement), self._read)
        self._ears = _Ears.of(self.checkpoint.folder, self.network.config)
        self._tokenizer = self._read_tokenizer() if self.checkpoint.kind == "Wav2Vec2ForCTC" else None

    def _read(self) -> Any:
        checkpoint, placed = self.checkpoint, self.placement

        def build() -> Any:
            transformers = loading.import_transformers("the wav2vec2 service")
            torch = loading.import_torch("the wav2vec2 service")
            steps = track(("weights", placed.device), title=f"{checkpoint.reference}: load")
            next(steps)
            kind = checkpoint.kind.replace("ForPreTraining", "Model")  # its heads are for training alone
            made, said = getattr(transformers, kind).from_pretrained(
                checkpoint.folder,
                dtype=getattr(torch, placed.stored),
                local_files_only=True,
                trust_remote_code=False,
                weights_only=True,
                output_loading_info=True,
            )
            _refuse_missing(checkpoint, said["missing_keys"])
            next(steps)
            network = loading.quantised(made) if placed.dtype == "int8" else made
            network = network.eval().requires_grad_(False).to(placed.device)
            next(steps, None)
            return network

        return loading.load(checkpoint, placed, build, service="wav2vec2")

    def _read_tokenizer(self) -> Any:
        transformers = loading.import_transformers("the wav2vec2 service")

        def build() -> Any:
            return transformers.Wav2Vec2CTCTokenizer.from_pretrained(
                self.checkpoint.folder, local_files_only=True
            )

        return loading.load(self.checkpoint, self.placement, build, service="wav2vec2")

    # -- what it does ------------------------------------------------------------------------------

    @task("audio.transcribe")
    def transcribe(self, clip: Clip) -> Transcript:
        """Return what is said in a clip, with the times of words and how sure the model is of them."""
        return self.transcribe_all([clip])[0]

    @task("audio.transcribe.batch", batch="clips")
    def transcribe_all(self, clips: _Clips) -> list[Transcript]:
        """Return what is said in each of several clips: as one by one, in less time."""
        self._refuse_head("Wav2Vec2ForCTC", "transcribes")
        config, rate = self.network.config, self._ears.rate
        frame_s = self._frame / rate
        parts = self._computed(clips, lambda output, at: output.logits[at])
        return [
            transcript_of(
                np.concatenate(some),
                self._tokenizer,
                blank=config.pad_token_id,
                frame_s=frame_s,
                seconds=clip.seconds,
            )
            for clip, some in zip(clips, parts, strict=True)
        ]

    @task("audio.embed")
    def embed(self, clip: Clip, *, layer: int = -1, per: Literal["clip", "frame"] = "clip") -> _Array:
        """Return what a clip sounds like as float32: one vector, or one for each frame of 20 ms.

        ``(hidden,)``, the mean over the frames, or ``(frames, hidden)``. `layer` 0 is what goes into the
        first layer of the transformer, -1 what comes out of the last.
        """
        return self.embed_all([clip], layer=layer, per=per)[0]

    @task("audio.embed.batch", batch="clips")
    def embed_all(
        self, clips: _Clips, *, layer: int = -1, per: Literal["clip", "frame"] = "clip"
    ) -> list[_Array]:
        """Return what each of several clips sounds like: as one by one, in less time."""
        layers = self.network.config.num_hidden_layers + 1
        if not -layers <= layer < layers:
            problem = Problem("layer", brief(layer), f"from {-layers} to {layers - 1}: {layers} there are")
            raise ValidationError("there is no such layer", problems=[problem])
        parts = self._computed(clips, lambda output, at: output.hidden_states[layer][at], hidden=True)
        frames = [np.concatenate(some) for some in parts]
        return frames if per == "frame" else [one.mean(axis=0) for one in frames]

    @task("audio.classify")
    def classify(self, clip: Clip, *, top: int | None = None) -> tuple[Label, ...]:
        """Return what a clip may be, the most probable first: all that the model knows, or the `top` ones.

        Of a clip longer than `chunk_s` it is the mean over its pieces, by their length.
        """
        return self.classify_all([clip], top=top)[0]

    @task("audio.classify.batch", batch="clips")
    def classify_all(self, clips: _Clips, *, top: int | None = None) -> list[tuple[Label, ...]]:
        """Return what each of several clips may be: as one by one, in less time."""
        self._refuse_head("Wav2Vec2ForSequenceClassification", "classifies")
        if top is not None and top < 1:
            problem = Problem("top", brief(top), "a whole number from 1, or None for all labels")
            raise ValidationError("so many labels cannot be told", problems=[problem])
        heard = [self._heard(clip) for clip in clips]
        plans = [self._pieces(len(one), stride_s=0.0) for one in heard]
        answers = self._answers(heard, plans, lambda output, at: output.logits[at][None])
        names = self.network.config.id2label
        return [
            _labels(np.concatenate(some), [p.stop - p.start for p in plan], names)[:top]
            for some, plan in zip(answers, plans, strict=True)
        ]

    # -- inside ------------------------------------------------------------------------------------

    @property
    def _frame(self) -> int:
        return int(np.prod(self.network.config.conv_stride))

    def _refuse_head(self, kind: str, does: str) -> None:
        if self.checkpoint.kind != kind:
            raise CheckpointError(
                f"{self.checkpoint.reference!r} is a {self.checkpoint.kind}: no such model {does}",
                cause=f"accepted: {kind}",
                hint="load a checkpoint that has that head: configure(model=...)",
            )

    def _heard(self, clip: Clip) -> _Array:
        """Return a clip as the model hears it, mono at its rate; raises for what it cannot use."""
        if not hasattr(clip, "checked"):
            raise AudioError(f"wav2vec2 takes clips, not {brief(clip)}", hint="grym.Clip.read(path)")
        shortest = self._shortest / self._ears.rate
        clip.checked(what="wav2vec2", min_seconds=shortest)
        if clip.seconds > _LONGEST_S:
            problem = Problem("length", f"{clip.seconds / 3600:.1f} h", f"at most {_LONGEST_S / 3600:g} h")
            raise AudioError(f"wav2vec2 cannot use {clip!r}", cause=str(problem), hint="clip.cut(start, end)")
        heard = clip.mono().at(self._ears.rate).samples
        peak = float(np.abs(heard).max())
        if peak < 10 ** (self.silence_db / 20):
            level = f"a peak of {20 * np.log10(peak):.0f} dBFS" if peak else "samples that are all zero"
            raise AudioError(
                f"wav2vec2 cannot use {clip!r}: it is silent",
                cause=str(Problem("samples", level, f"a peak from {self.silence_db:g} dBFS on")),
                hint="make it louder, or configure(silence_db=...)",
            )
        return heard

    @property
    def _shortest(self) -> int:
        """The samples of the shortest sound that has a frame."""
        config, samples = self.network.config, 1
        for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
            samples = (samples - 1) * stride + kernel
        return int(samples)

    def _pieces(self, length: int, *, stride_s: float) -> list[Piece]:
        rate = self._ears.rate
        planned = pieces(
            length, chunk=round(self.chunk_s * rate), stride=round(stride_s * rate), frame=self._frame
        )
        # The rest of a long sound may be too short for a frame: nothing of it was ever kept.
        return [one for one in planned if one.stop - one.start >= self._shortest]

    def _computed(
        self, clips: Sequence[Clip], take: Callable[[Any, int], Any], *, hidden: bool = False
    ) -> list[list[_Array]]:
        """Return of each clip what its frames give, ``(frames, n)`` by piece, without what overlaps."""
        heard = [self._heard(clip) for clip in clips]
        plans = [self._pieces(len(one), stride_s=self.stride_s) for one in heard]
        answers = self._answers(heard, plans, take, hidden=hidden)
        return [
            [frames[piece.first : piece.last] for frames, piece in zip(some, plan, strict=True)]
            for some, plan in zip(answers, plans, strict=True)
        ]

    def _answers(
        self,
        heard: Sequence[_Array],
        plans: Sequence[Sequence[Piece]],
        take: Callable[[Any, int], Any],
        *,
        hidden: bool = False,
    ) -> list[list[_Array]]:
        """Return what all pieces of all sounds give, computed in batches; tells how far it is."""
        places = [(sound, at) for sound, plan in enumerate(plans) for at in range(len(plan))]
        lengths = [plans[sound][at].stop - plans[sound][at].start for sound, at in places]
        answers: list[list[Any]] = [[None] * len(plan) for plan in plans]
        for batch in track(batches(lengths, most=self.batch_size, pad=self._ears.pads)):
            chosen = [places[one] for one in batch]
            sounds = [
                self._normalized(heard[sound][plans[sound][at].start : plans[sound][at].stop])
                for sound, at in chosen
            ]
            for (sound, at), frames in zip(chosen, self._run(sounds, take, hidden=hidden), strict=True):
                answers[sound][at] = frames
        return answers

    def _normalized(self, samples: _Array) -> _Array:
        if not self._ears.normalize:
            return samples
        normal: _Array = (samples - samples.mean()) / np.sqrt(samples.var() + _EPSILON)
        return normal

    def _run(
        self, sounds: Sequence[_Array], take: Callable[[Any, int], Any], *, hidden: bool
    ) -> Iterator[_Array]:
        """Yield what one pass of the network gives for each sound, as float32 and without padding."""
        torch = loading.import_torch("the wav2vec2 service")
        longest = max(map(len, sounds))
        given = np.zeros((len(sounds), longest), np.float32)
        mask = np.zeros((len(sounds), longest), np.int64)
        for at, sound in enumerate(sounds):
            given[at, : len(sound)], mask[at, : len(sound)] = sound, 1
        dtype = getattr(torch, self.placement.stored)
        with torch.no_grad():
            output = self.network(
                torch.from_numpy(given).to(self.device, dtype),
                attention_mask=torch.from_numpy(mask).to(self.device) if self._ears.pads else None,
                output_hidden_states=hidden,
            )
        for at, sound in enumerate(sounds):
            frames = take(output, at).float().cpu().numpy()
            told = int(self.network._get_feat_extract_output_lengths(len(sound)))
            yield frames[:told].copy() if len(frames) > told else frames


def _refuse_missing(checkpoint: Checkpoint, missing: Sequence[str]) -> None:
    """Raise for weights that the files lack: they would be random numbers."""
    # What stands for what is masked in training; wav2vec2-base-960h, for one, comes without.
    names = sorted(name for name in missing if not name.endswith("masked_spec_embed"))
    if names:
        raise CheckpointError(
            f"{checkpoint.reference!r} ({checkpoint.kind}) lacks {count(len(names), 'weight')}",
            cause=f"missing: {', '.join(names[:5])}{' …' if len(names) > 5 else ''}",
            hint="save the model again, with the class that its config names",
        )


def _labels(logits: _Array, lengths: Sequence[int], names: Any) -> tuple[Label, ...]:
    """Return the labels of a sound, the most probable first, from the logits ``(pieces, labels)``."""
    shares = np.average(posteriors(logits), axis=0, weights=lengths)
    return tuple(Label(str(names[int(at)]), float(shares[at])) for at in np.argsort(-shares, kind="stable"))
