"""Training of the model `sounds`: an AudioLDM pipeline, from nothing, one part after the other.

`words` teaches the text encoder beside a small listener, `codes` the auto-encoder of mel spectrograms,
`sound` the vocoder, and `noise` the denoiser. What a step learns from depends on the seed and its number
alone: a training that was stopped goes on from what it kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from grym_nb.audio.zoo.parts import FRAMES, HOP, mels, networks, scheduler, tokenizer, unlike
from grym_nb.audio.zoo.sounds import KINDS, make, wordings
from grym_nb.clip.files import package
from grym_nb.errors import StorageError

__all__ = ["NEEDS", "STEPS", "Progress", "Sounding"]

#: The parts in the order of their training, and the steps of each.
STEPS: Mapping[str, int] = MappingProxyType({"words": 600, "codes": 900, "sound": 1100, "noise": 2200})
#: The parts that must be whole before another begins.
NEEDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"words": (), "codes": (), "sound": (), "noise": ("words", "codes")}
)

_FIRST_SEED = 10_000  # of the sounds that are learned from: the judge and the scores use those below
_RATES = {"words": 2e-3, "codes": 2e-3, "sound": 1.5e-3, "noise": 1.5e-3}
_BATCH = {"words": 40, "codes": 4, "sound": 8, "noise": 16}
_TRAINS = {
    "words": ("text", "ear"),
    "codes": ("vae",),
    "sound": ("vocoder",),
    "noise": ("unet",),
}
_CROP = 64  # frames that the vocoder learns from at once
_FADE = 0.1  # share of the steps at which the denoiser is not told the prompt
_FORGET = 0.15  # share of the words of a prompt that the text encoder does not see


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the training of a part is, and how well it did lately."""

    part: str
    step: int
    steps: int
    loss: float


class Sounding:
    """All parts of the model while they learn; what they learned is kept in `folder`.

    `seed` fixes the weights at the beginning and all that is drawn; `clips` is how many sounds of each kind
    there are to learn from; `steps` overrides `STEPS`; a part is kept after every `keep_every` steps.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seed: int = 0,
        clips: int = 120,
        steps: Mapping[str, int] = STEPS,
        keep_every: int = 100,
    ) -> None:
        self.folder = folder
        self.seed = seed
        self.clips = clips
        self.steps = dict(steps)
        self.keep_every = keep_every
        self.tokenizer = tokenizer()
        self.modules = networks(seed, len(self.tokenizer))
        self.scheduler = scheduler()
        self.done = dict.fromkeys(STEPS, 0)

    def run(self, part: str) -> Iterator[Progress]:
        """Teach a part from where it was kept, one step for each `Progress`, and keep it."""
        torch = _torch()
        self._recall(*NEEDS[part])
        trained = torch.nn.ModuleDict({name: self.modules[name] for name in _TRAINS[part]})
        for module in self.modules.values():
            module.requires_grad_(False)
        trained.requires_grad_(True).train()
        optimizer = torch.optim.AdamW(trained.parameters(), lr=_RATES[part], betas=(0.9, 0.98))
        # What is shipped is the mean over the last steps, which is calmer than the last of them.
        mean = _Mean(trained)
        self._go_on(part, trained, optimizer, mean)
        loss_of: Callable[[np.random.Generator], Any] = getattr(self, f"_{part}")
        total = self.steps[part]
        while self.done[part] < total:
            step = self.done[part]
            rng = np.random.default_rng((self.seed, list(STEPS).index(part), step))
            torch.manual_seed(int(rng.integers(2**31)))
            for group in optimizer.param_groups:
                group["lr"] = _RATES[part] * _pace(step, total)
            loss = loss_of(rng)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
            optimizer.step()
            mean.take(trained)
            self.done[part] = step + 1
            if self.done[part] % self.keep_every == 0 or self.done[part] == total:
                self._keep(part, trained, optimizer, mean)
            yield Progress(part, self.done[part], total, float(loss.detach()))
        trained.load_state_dict(mean.state)
        trained.eval()

    def pipeline(self) -> Any:
        """Return the AudioLDM pipeline of what was kept of all parts."""
        diffusers = package("diffusers", purpose="a model of the zoo")
        self._recall(*STEPS)
        self.modules["vae"].register_to_config(scaling_factor=self._scaling)
        pipe = diffusers.AudioLDMPipeline(
            vae=self.modules["vae"],
            text_encoder=self.modules["text"],
            tokenizer=self.tokenizer,
            unet=self.modules["unet"],
            scheduler=self.scheduler,
            vocoder=self.modules["vocoder"],
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def save(self, out: Path) -> None:
        """Write the pipeline in float16, as `diffusers.AudioLDMPipeline.from_pretrained` opens it."""
        torch = _torch()
        self.pipeline().to(dtype=torch.float16).save_pretrained(out)
        for module in self.modules.values():
            module.float()

    # What each part learns from, and how wrong it is.

    def _words(self, rng: np.random.Generator) -> Any:
        torch = _torch()
        kinds = rng.integers(len(KINDS), size=_BATCH["words"])
        heard = self.modules["ear"](self._mels[self._some(rng, kinds)][:, None])
        heard = torch.nn.functional.normalize(heard, dim=-1)
        alike = 10 * self._embedded(self._prompts(rng, kinds)) @ heard.T
        same = torch.from_numpy(kinds[:, None] == kinds[None]).float()
        goal = same / same.sum(1, keepdim=True)
        cross_entropy = torch.nn.functional.cross_entropy
        return cross_entropy(alike, goal) + cross_entropy(alike.T, goal)

    def _codes(self, rng: np.random.Generator) -> Any:
        vae = self.modules["vae"]
        mel = _upright(self._mels[self._some(rng, rng.integers(len(KINDS), size=_BATCH["codes"]))])
        drawn = vae.encode(mel).latent_dist
        away = vae.decode(drawn.sample()).sample - mel
        spread = (drawn.mean**2 + drawn.var - 1 - drawn.logvar).mean() / 2
        return away.abs().mean() + (away**2).mean() + 2e-3 * spread

    def _sound(self, rng: np.random.Generator) -> Any:
        """Return how far what the vocoder makes of a part of each mel is from that part of its sound."""
        torch = _torch()
        chosen = self._some(rng, rng.integers(len(KINDS), size=_BATCH["sound"]))
        at = rng.integers(FRAMES - _CROP + 1, size=len(chosen))
        drawn = zip(self._mels[chosen], self._sounds[chosen].float(), at, strict=True)
        parts = [(mel[:, a : a + _CROP].T, one[a * HOP : (a + _CROP) * HOP]) for mel, one, a in drawn]
        mel, true = (torch.stack(some) for some in zip(*parts, strict=True))
        return unlike(self.modules["vocoder"](mel), true)

    def _noise(self, rng: np.random.Generator) -> Any:
        torch = _torch()
        kinds = rng.integers(len(KINDS), size=_BATCH["noise"])
        codes = self._coded[self._some(rng, kinds)]
        prompts = ["" if rng.random() < _FADE else prompt for prompt in self._prompts(rng, kinds)]
        times = torch.from_numpy(rng.integers(self.scheduler.config.num_train_timesteps, size=len(kinds)))
        noise = torch.from_numpy(rng.standard_normal(codes.shape, dtype=np.float32))
        noisy = self.scheduler.add_noise(codes, noise, times)
        with torch.no_grad():
            told = self._embedded(prompts)
        said = self.modules["unet"](noisy, times, encoder_hidden_states=None, class_labels=told).sample
        return ((said - self.scheduler.get_velocity(codes, noise, times)) ** 2).mean()

    def _some(self, rng: np.random.Generator, kinds: Any) -> Any:
        return _torch().from_numpy(kinds * self.clips + rng.integers(self.clips, size=len(kinds)))

    def _prompts(self, rng: np.random.Generator, kinds: Any) -> list[str]:
        """Return a taught wording of each kind, without some of its words; some begin with a capital."""
        taught = wordings("taught")
        said = [taught[kind * 12 + rng.integers(12)].prompt for kind in kinds]
        said = [" ".join(w for w in prompt.split() if rng.random() > _FORGET) or prompt for prompt in said]
        return [prompt.capitalize() if rng.random() < 0.2 else prompt for prompt in said]

    def _embedded(self, prompts: Sequence[str]) -> Any:
        told = self.tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="pt")
        said = self.modules["text"](told.input_ids, attention_mask=told.attention_mask).text_embeds
        return _torch().nn.functional.normalize(said, dim=-1)

    @cached_property
    def _sounds(self) -> Any:
        torch = _torch()
        made = (make(kind, _FIRST_SEED + n) for kind in KINDS for n in range(self.clips))
        return torch.from_numpy(np.stack([one.astype(np.float16) for one in made]))

    @cached_property
    def _mels(self) -> Any:
        torch = _torch()
        return torch.cat([mels(some.float()) for some in self._sounds.split(50)])

    @cached_property
    def _means(self) -> Any:
        torch = _torch()
        with torch.no_grad():
            some = (_upright(part) for part in self._mels.split(20))
            return torch.cat([self.modules["vae"].encode(mel).latent_dist.mean for mel in some])

    @cached_property
    def _scaling(self) -> float:
        return 1 / float(self._means.std())

    @cached_property
    def _coded(self) -> Any:
        return self._means * self._scaling

    # What was learned, on disk.

    def _path(self, part: str) -> Path:
        return self.folder / f"{part}.pt"

    def _keep(self, part: str, trained: Any, optimizer: Any, mean: _Mean) -> None:
        """Write all that it takes to go on; a stop in the middle of it leaves the file before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "step": self.done[part],
            "told": self._told(part),
            "trained": trained.state_dict(),
            "mean": mean.state,
            "optimizer": optimizer.state_dict(),
        }
        path = self._path(part)
        _torch().save(state, path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)

    def _kept(self, part: str) -> dict[str, Any] | None:
        path = self._path(part)
        if not path.exists():
            return None
        state: dict[str, Any] = _torch().load(path, weights_only=True)
        if state["told"] != self._told(part):
            raise StorageError(
                f"{path} is of another training: {state['told']}, and this is {self._told(part)}",
                hint="give the same seed and steps to go on, or another folder to begin anew",
            )
        return state

    def _told(self, part: str) -> dict[str, int]:
        return {"seed": self.seed, "clips": self.clips, "steps": self.steps[part]}

    def _go_on(self, part: str, trained: Any, optimizer: Any, mean: _Mean) -> None:
        state = self._kept(part)
        if state is None:
            return
        trained.load_state_dict(state["trained"])
        optimizer.load_state_dict(state["optimizer"])
        mean.state = state["mean"]
        self.done[part] = mean.taken = state["step"]

    def _recall(self, *parts: str) -> None:
        torch = _torch()
        for part in parts:
            state = self._kept(part)
            if state is None or state["step"] < self.steps[part]:
                raise StorageError(
                    f"the part {part} is not trained: {self._path(part)} is "
                    + ("missing" if state is None else f"at step {state['step']} of {self.steps[part]}"),
                    hint=f"train the parts in this order: {', '.join(STEPS)}",
                )
            trained = torch.nn.ModuleDict({name: self.modules[name] for name in _TRAINS[part]})
            trained.load_state_dict(state["mean"])
            trained.eval()


class _Mean:
    """The weights, averaged over the latest steps."""

    def __init__(self, trained: Any) -> None:
        self.state = {name: value.detach().clone() for name, value in trained.state_dict().items()}
        self.taken = 0

    def take(self, trained: Any) -> None:
        torch = _torch()
        self.taken += 1
        share = 1 - min(0.997, self.taken / (self.taken + 9))
        with torch.no_grad():
            for name, value in trained.state_dict().items():
                if value.is_floating_point():
                    self.state[name].lerp_(value, share)
                else:
                    self.state[name].copy_(value)


def _pace(step: int, total: int) -> float:
    """Return the share of the rate of learning: up quickly, as it is for long, and down over the last third.

    So that a training can be lengthened, or cut short, before it goes down.
    """
    warm, down = max(1, min(100, total // 8)), max(1, total // 3)
    return min(1.0, (step + 1) / warm, 0.02 + 0.98 * (total - step) / down)


def _upright(mel: Any) -> Any:
    """Return mels as the auto-encoder takes them, ``(n, 1, 256, 64)``; another layout is ten times slower."""
    return mel[:, None].transpose(2, 3).contiguous()


def _torch() -> Any:
    return package("torch", purpose="training a model of the zoo")
