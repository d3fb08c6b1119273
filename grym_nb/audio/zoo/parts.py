"""The networks that the model `sounds` consists of, and what their training compares: a small AudioLDM."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from grym_nb.audio.zoo.sounds import RATE, wordings
from grym_nb.clip.files import package

__all__ = ["FRAMES", "HOP", "mels", "networks", "scheduler", "tokenizer", "unlike"]

#: frames of a mel spectrogram of a sound, and the samples from one to the next
FRAMES, HOP = 256, 160

_MELS, _N_FFT = 64, 1024
_MOST_TOKENS = 32  # also the width of a text's embedding: the pipeline pads its empty prompt to that
_WIDTH = 32


def mels(sounds: Any) -> Any:
    """Return the mel spectrograms ``(n, 64, 256)`` of a tensor of sounds ``(n, 40960)``, about -1 to 1."""
    torch = _torch()
    window = torch.hann_window(_N_FFT)
    spectra = torch.stft(sounds, _N_FFT, HOP, window=window, return_complex=True).abs()
    heard = _bands(_N_FFT) @ spectra[..., : sounds.shape[-1] // HOP]
    return (torch.log(heard.clamp_min(1e-4)) + 4.5) / 4.5


@cache
def _bands(n_fft: int) -> Any:
    librosa = package("librosa.filters", purpose="training a model of the zoo")
    return _torch().from_numpy(librosa.mel(sr=RATE, n_fft=n_fft, n_mels=_MELS))


def unlike(made: Any, true: Any) -> Any:
    """Return how unlike sounds are by their magnitudes in windows of three lengths, and by their mels."""
    torch = _torch()
    total = 0.0
    for n_fft in (256, 1024, 2048):
        window = torch.hann_window(n_fft)
        of_made, of_true = (
            torch.stft(one, n_fft, n_fft // 4, window=window, return_complex=True).abs().clamp_min(1e-5)
            for one in (made, true)
        )
        size = (of_true**2).sum((1, 2)).sqrt() + 0.05 * n_fft**0.5
        total = total + (((of_made - of_true) ** 2).sum((1, 2)).sqrt() / size).mean()
        total = total + (of_made**0.4 - of_true**0.4).abs().mean()
        if n_fft == 1024:
            logs = [torch.log((_bands(n_fft) @ one).clamp_min(1e-4)) for one in (of_made, of_true)]
            # Most of a sound's bands are floor: counted in full, they would make silence the best guess.
            counts = torch.where(logs[1] > -6, 1.0, 0.1)
            total = total + ((logs[0] - logs[1]).abs() * counts).sum() / counts.sum()
    return total


def networks(seed: int, tokens: int) -> dict[str, Any]:
    """Return the untrained networks by name: those of the pipeline, and the `ear` that is trained beside."""
    torch = _torch()
    made = {}
    with torch.random.fork_rng(devices=[]):
        for name, build in _BUILDS.items():
            torch.manual_seed(seed)  # for each, so that none depends on the sizes of the others
            made[name] = build(tokens)
    return made


def _text(tokens: int) -> Any:
    transformers = package("transformers", purpose="a model of the zoo")
    return transformers.ClapTextModelWithProjection(
        transformers.ClapTextConfig(
            vocab_size=tokens,
            hidden_size=48,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=96,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            max_position_embeddings=_MOST_TOKENS + 2,
            projection_dim=_WIDTH,
            bos_token_id=0,
            pad_token_id=1,
            eos_token_id=2,
        )
    )


def _ear(_tokens: int) -> Any:
    nn = _torch().nn
    layers: list[Any] = []
    for came, go in ((1, 8), (8, 16), (16, 32), (32, 48)):
        layers += [nn.Conv2d(came, go, 5, stride=2, padding=2), nn.GroupNorm(4, go), nn.GELU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d((2, 4)), nn.Flatten(), nn.Linear(48 * 8, _WIDTH))


def _vae(_tokens: int) -> Any:
    diffusers = package("diffusers", purpose="a model of the zoo")
    return diffusers.AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 24, 32),
        latent_channels=4,
        norm_num_groups=8,
        sample_size=_MELS,
        mid_block_add_attention=False,
    )


def _vocoder(_tokens: int) -> Any:
    transformers = package("transformers", purpose="a model of the zoo")
    return transformers.SpeechT5HifiGan(
        transformers.SpeechT5HifiGanConfig(
            model_in_dim=_MELS,
            sampling_rate=RATE,
            upsample_initial_channel=128,
            upsample_rates=[5, 4, 4, 2],
            upsample_kernel_sizes=[11, 8, 8, 4],
            resblock_kernel_sizes=[3, 7],
            resblock_dilation_sizes=[[1, 3, 5]] * 2,
            normalize_before=False,
        )
    )


def _unet(_tokens: int) -> Any:
    diffusers = package("diffusers", purpose="a model of the zoo")
    return diffusers.UNet2DConditionModel(
        sample_size=FRAMES // 4,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        mid_block_type=None,
        block_out_channels=(32, 48, 64),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=16,
        class_embed_type="simple_projection",
        projection_class_embeddings_input_dim=_WIDTH,
        class_embeddings_concat=True,
    )


_BUILDS: Mapping[str, Callable[[int], Any]] = MappingProxyType(
    {"text": _text, "ear": _ear, "vae": _vae, "vocoder": _vocoder, "unet": _unet}
)


def scheduler() -> Any:
    """Return the noise schedule; the denoiser tells the velocity, which keeps the level of quiet sounds."""
    diffusers = package("diffusers", purpose="a model of the zoo")
    return diffusers.DDIMScheduler(
        beta_start=0.0015,
        beta_end=0.0195,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=0,
        timestep_spacing="trailing",
        prediction_type="v_prediction",
    )


def tokenizer() -> Any:
    """Return the tokenizer: a token for each word that is taught, also with a capital; letters for others.

    All merges begin with the space before a word, so that a word is put together from its first letter on.
    """
    transformers = package("transformers", purpose="a model of the zoo")
    words = {word for taught in wordings("taught") for word in taught.prompt.split()}
    words |= {word.capitalize() for word in words}
    starts = sorted({f"Ġ{word[:n]}" for word in words for n in range(1, len(word) + 1)})
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *letters, *starts]
    return transformers.RobertaTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)},
        merges=[(piece[:-1], piece[-1]) for piece in starts],
        add_prefix_space=True,
        model_max_length=_MOST_TOKENS,
    )


def _torch() -> Any:
    return package("torch", purpose="a model of the zoo")
