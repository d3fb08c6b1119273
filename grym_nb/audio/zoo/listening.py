"""Training of the models that listen: a small Wav2Vec2, from nothing, on sounds drawn anew each step.

What a step learns from depends on the seed and its number alone, and the rate of learning on its number and
the last one's: a training that was stopped and goes on ends where it would have ended.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from math import cos, pi
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from grym_nb.audio.zoo import exercises
from grym_nb.audio.zoo.recipes import Recipe
from grym_nb.audio.zoo.signals import RATE
from grym_nb.clip.files import package
from grym_nb.errors import StorageError

__all__ = ["KEPT", "Progress", "Training", "build", "extractor", "tokenizer"]

#: the file of a training that is under way, in the directory of its model
KEPT = "training.pt"

_KERNEL, _STRIDE, _CHANNELS = (256, 8, 4), (32, 5, 2), 64  # 20 ms a frame
_SPACE = "|"  # how Wav2Vec2's tokenizer writes one
_PADDED = 0.3  # how much the loss on frames of padding counts


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training is, and how well it did lately."""

    step: int
    steps: int
    loss: float


class Training:
    """One model while it learns; `steps()` goes on from wherever it is.

    `steps` overrides how many the recipe says, `seed` fixes the weights at the beginning and all sounds;
    `seconds` is the processor's time that it took so far.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        seed: int = 0,
        steps: int | None = None,
        clock: Callable[[], float] = process_time,
    ) -> None:
        torch = _torch()
        self.recipe = recipe
        self.seed = seed
        self.total = recipe.steps if steps is None else steps
        self.course = [(0, self.total)]  # from which step on it was to end at which
        self.step = 0
        self.seconds = 0.0
        self._clock = clock
        self.model = build(recipe, seed=seed)
        self.extractor = extractor()
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.01
        )

    def run(self) -> Iterator[Progress]:
        """Learn, one step for each `Progress`, up to the end."""
        torch = _torch()
        self.model.train()
        while self.step < self.total:
            begun = self._clock()
            for group in self._optimizer.param_groups:
                group["lr"] = self.recipe.rate * self._pace()
            drawn = self._exercises()
            with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.coarse):
                loss = self._loss(drawn)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if bool(torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0).isfinite()):
                self._optimizer.step()  # one step that overflows would undo all before it
            self.step += 1
            self.seconds += self._clock() - begun
            yield Progress(self.step, self.total, float(loss.detach()))
        self.model.eval()

    def _exercises(self) -> list[exercises.Exercise]:
        begin, end = self.recipe.longest
        longest = begin + (end - begin) * min(1.0, self.step / (0.3 * self.total))
        return exercises.training(
            self.recipe.draw, seed=self.seed, step=self.step, count=self.recipe.batch, longest=longest
        )

    def _pace(self) -> float:
        """Return the share of the rate of learning: up quickly, then down along a cosine."""
        warm = max(1, min(200, self.total // 8))
        if self.step < warm:
            return (self.step + 1) / warm
        return 0.5 + 0.5 * cos(pi * (self.step - warm) / max(1, self.total - warm))

    def _loss(self, drawn: list[exercises.Exercise]) -> Any:
        torch = _torch()
        heard = self.extractor(
            [one.samples for one in drawn], sampling_rate=RATE, padding=True, return_tensors="pt"
        )
        if not self.recipe.transcribes:
            labels = torch.tensor([self.recipe.symbols.index(one.truth) for one in drawn])
            return self.model(**heard, labels=labels).loss
        written = [[self.recipe.symbols.index(symbol) + 2 for symbol in one.truth] for one in drawn]
        width = max(1, *map(len, written))
        labels = torch.tensor([row + [-100] * (width - len(row)) for row in written])
        out = self.model(**heard, labels=labels)
        return out.loss + _PADDED * self._blank_on_padding(out.logits, heard["attention_mask"])

    def _blank_on_padding(self, logits: Any, mask: Any) -> Any:
        """Return the loss of writing something on frames that are padding.

        CTC looks at the frames before only; what is written there would hang on to shorter clips of a batch.
        """
        torch = _torch()
        frames = self.model._get_feat_extract_output_lengths(mask.sum(-1))
        padding = torch.arange(logits.shape[1])[None, :] >= frames[:, None]
        if not bool(padding.any()):
            return logits.sum() * 0.0
        blank = torch.zeros(int(padding.sum()), dtype=torch.long)
        return torch.nn.functional.cross_entropy(logits[padding].float(), blank)

    def keep(self, folder: Path) -> None:
        """Write all that it takes to go on; a stop in the middle of it leaves the file before."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "course": self.course,
            "seconds": self.seconds,
            "told": self._told(),
        }
        _torch().save(state, folder / f"{KEPT}.part")
        os.replace(folder / f"{KEPT}.part", folder / KEPT)

    def go_on(self, folder: Path) -> bool:
        """Go on from what was kept in a folder, if anything was; another training's is refused.

        It may be given another end: the rate of learning, and the length of clips, then go by that.
        """
        path = folder / KEPT
        if not path.exists():
            return False
        state = _torch().load(path, weights_only=True)
        if state["told"] != self._told():
            raise StorageError(
                f"{path} is of another training: {_shortly(state['told'])}, not {_shortly(self._told())}",
                hint="give the same --seed to go on, or another --out to begin anew",
            )
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        if state["course"][-1][1] != self.total:
            state["course"].append((self.step, self.total))
        self.course = [(int(begin), int(end)) for begin, end in state["course"]]
        return True

    def _told(self) -> dict[str, Any]:
        sizes = {k: v for k, v in asdict(self.recipe).items() if isinstance(v, (int, float, str))}
        return {**sizes, "seed": self.seed, "steps": 0}


def _shortly(told: dict[str, Any]) -> str:
    return f"{told['name']} with seed {told['seed']}"


def build(recipe: Recipe, *, seed: int) -> Any:
    """Return an untrained model: its first filters listen to single frequencies, the rest is drawn."""
    torch, transformers = _torch(), package("transformers", purpose="a model of the zoo")
    writes = recipe.transcribes
    kinds: dict[bool, Any] = {
        True: transformers.Wav2Vec2ForCTC,
        False: transformers.Wav2Vec2ForSequenceClassification,
    }
    config = transformers.Wav2Vec2Config(
        **({"vocab_size": len(_vocabulary(recipe)), "pad_token_id": 0} if writes else _labels(recipe)),
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=4,
        intermediate_size=2 * recipe.hidden,
        conv_dim=(_CHANNELS,) * len(_KERNEL),
        conv_kernel=_KERNEL,
        conv_stride=_STRIDE,
        conv_bias=True,
        num_feat_extract_layers=len(_KERNEL),
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_conv_pos_embeddings=recipe.reach,
        num_conv_pos_embedding_groups=8,
        classifier_proj_size=64,
        ctc_loss_reduction="mean",
        ctc_zero_infinity=True,
        apply_spec_augment=False,
        mask_time_prob=0.0,
        mask_feature_prob=0.0,
        layerdrop=0.0,
        **dict.fromkeys(
            "hidden_dropout attention_dropout activation_dropout feat_proj_dropout final_dropout".split(), 0.0
        ),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kinds[writes]._from_config(config, attn_implementation="eager")  # trains faster so small
        first = model.wav2vec2.feature_extractor.conv_layers[0].conv
        with torch.no_grad():
            first.weight.copy_(torch.from_numpy(_filters(recipe))[:, None, :])
            if recipe.constant_q:
                first.bias.normal_(0.0, 2.0)
    return model


def _filters(recipe: Recipe) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the first filters, (channels, taps): a cosine and a sine in a window, for each frequency."""
    taps = _KERNEL[0]
    hz = np.geomspace(*recipe.ears, _CHANNELS // 2)
    wide = np.clip(8 * RATE / hz, 16, taps) if recipe.constant_q else np.full(len(hz), float(taps))
    at = np.arange(taps) - (taps - 1) / 2
    window = np.where(
        np.abs(at) <= wide[:, None] / 2, 0.5 + 0.5 * np.cos(2 * np.pi * at / wide[:, None]), 0.0
    )
    turns = 2 * np.pi * hz[:, None] * at / RATE
    filters = np.concatenate([np.cos(turns) * window, np.sin(turns) * window])
    filters /= np.sqrt((filters**2).sum(1, keepdims=True))
    return np.asarray(filters, np.float32)


def _labels(recipe: Recipe) -> dict[str, Any]:
    return {
        "num_labels": len(recipe.symbols),
        "id2label": dict(enumerate(recipe.symbols)),
        "label2id": {label: number for number, label in enumerate(recipe.symbols)},
    }


def _vocabulary(recipe: Recipe) -> dict[str, int]:
    """Return the tokens: the blank, the unknown, then what the model can write."""
    tokens = ("<pad>", "<unk>", *(_SPACE if symbol == " " else symbol for symbol in recipe.symbols))
    return {token: number for number, token in enumerate(tokens)}


def extractor() -> Any:
    """Return what makes samples ready: each clip to mean 0 and variance 1, padding masked."""
    transformers = package("transformers", purpose="a model of the zoo")
    return transformers.Wav2Vec2FeatureExtractor(
        feature_size=1, sampling_rate=RATE, padding_value=0.0, do_normalize=True, return_attention_mask=True
    )


def tokenizer(recipe: Recipe, folder: Path) -> Any:
    """Return the tokenizer of a model that writes; its vocabulary is written into `folder`."""
    import json

    transformers = package("transformers", purpose="a model of the zoo")
    path = folder / "vocab.json"
    path.write_text(json.dumps(_vocabulary(recipe), indent=1), encoding="utf-8")
    return transformers.Wav2Vec2CTCTokenizer(
        str(path),
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token=None,
        eos_token=None,
        word_delimiter_token=_SPACE,
        do_lower_case=False,
    )


def _torch() -> Any:
    return package("torch", purpose="training a model of the zoo")
