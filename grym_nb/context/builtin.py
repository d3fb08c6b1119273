"""The adapters that come with the package: audio to listen to, parameters to generate from, text to read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grym_nb.clip import Clip
from grym_nb.context.content import plain_kind
from grym_nb.context.item import ContextItem
from grym_nb.context.summary import summarise
from grym_nb.context.values import dotted, is_array, is_mapping, number_of
from grym_nb.errors import GrymError, Problem, ValidationError
from grym_nb.render import brief

__all__ = ["BUILT_IN", "as_parameters", "as_text", "at_16k"]

# -- audio -----------------------------------------------------------------------------------------

_RATE = 16_000
_SAMPLES = ("samples", "audio", "waveform")
_RATES = ("sampling_rate", "sample_rate", "rate")  # the last may be of something else: the others go first


def at_16k(item: ContextItem) -> Any:
    """Return the content with its audio as 16 kHz mono clips, wherever it is: a clip, samples with a rate.

    The field that had the rate tells the new one. Content without audio is returned as it is.
    """
    problems: list[Problem] = []
    content = _at_16k(item.content, "", problems)
    if problems:
        raise ValidationError("this audio cannot be listened to", problems=problems)
    return content


def _at_16k(value: Any, path: str, problems: list[Problem]) -> Any:
    if isinstance(value, Clip):
        return _converted(path or "content", value, problems)
    if is_mapping(value):
        return _with_audio_at_16k(value, path, problems)
    if isinstance(value, (list, tuple)) and _has_parts(value):
        made = [_at_16k(part, f"{path or 'content'}[{at}]", problems) for at, part in enumerate(value)]
        if all(new is old for new, old in zip(made, value, strict=True)):
            return value
        kind = plain_kind(value)
        return kind._make(made) if hasattr(kind, "_make") else kind(made)
    return value


def _with_audio_at_16k(content: Mapping[Any, Any], path: str, problems: list[Problem]) -> Mapping[Any, Any]:
    named = any(content.get(name) is not None for name in _RATES)
    # A number of samples, or the name of a file, is no audio; an array without a rate may be anything.
    names = (*_SAMPLES, "array") if named else _SAMPLES
    samples = {name: content[name] for name in names if _is_row(content.get(name))}
    clips = {name: value for name, value in content.items() if isinstance(value, Clip)}
    if samples:
        clips |= _clips(samples, content, path, problems)
    made = {name: _converted(dotted(path, name), clip, problems) for name, clip in clips.items()}
    others = {name: value for name, value in content.items() if name not in clips and name not in samples}
    made |= {name: _at_16k(value, dotted(path, name), problems) for name, value in others.items()}
    if all(value is content[name] for name, value in made.items()):
        return content
    before = {clip.rate for clip in clips.values()}
    rates = {name: _RATE for name in _RATES if number_of(content.get(name)) in before}
    return {**content, **made, **rates}


def _is_row(value: Any) -> bool:
    """Tell whether a value may be samples: numbers in rows, and no clips or fields."""
    if isinstance(value, (list, tuple)):
        return not _has_parts(value, Clip, Mapping)
    return is_array(value)


def _has_parts(value: Sequence[Any], *kinds: type) -> bool:
    """Tell whether something of these kinds is in a row, or else anything in which audio may be."""
    return any(issubclass(kind, kinds or (Clip, Mapping, list, tuple)) for kind in set(map(type, value)))


def _clips(
    samples: Mapping[str, Any], content: Mapping[Any, Any], path: str, problems: list[Problem]
) -> dict[str, Clip]:
    named = next((name for name in _RATES if content.get(name) is not None), None)
    rate = number_of(content.get(named))
    if rate is None or rate <= 0 or rate % 1:
        found = "none beside the samples" if named is None else brief(content[named])
        expected = "a whole number of Hz above 0"
        problems.append(Problem(dotted(path, named or "sample_rate"), found, expected))
        rate = _RATE  # whatever it is: what is wrong with the samples is told, too
    clips = {}
    for name, given in samples.items():
        try:
            clips[name] = Clip(given, int(rate))
        except GrymError as error:
            found = f"{brief(given)} ({error.message})"
            problems.append(Problem(dotted(path, name), found, "samples, such as float32"))
    return clips


def _converted(name: str, clip: Clip, problems: list[Problem]) -> Clip:
    if not clip.frames:
        problems.append(Problem(name, "no samples", "some audio"))
        return clip
    try:
        return clip.mono().at(_RATE)
    except GrymError as error:  # not finite, a file that is gone, a package that is missing
        problems.append(Problem(name, " ".join(filter(None, (error.message, error.cause))), error.hint))
        return clip


# -- parameters ------------------------------------------------------------------------------------

#: what is to be said of a generation, when it was not, and what each is called elsewhere
_DEFAULTS: dict[str, float] = {"steps": 25, "guidance": 3.5, "duration": 10.0}
_CALLED = {
    "steps": ("steps", "num_inference_steps"),
    "guidance": ("guidance", "guidance_scale"),
    "duration": ("duration", "audio_length_in_s", "length", "seconds"),
}
_NAMES = frozenset(name for names in _CALLED.values() for name in names)


def as_parameters(item: ContextItem) -> dict[Any, Any]:
    """Return the content as what a generation takes: `steps`, `guidance`, `duration` in seconds, the prompt.

    Text is the prompt; no prompt is made up. Other fields stay as they are.
    """
    content = {"prompt": item.content} if isinstance(item.content, str) else item.content
    if not is_mapping(content):
        expected = "parameters, such as {'prompt': 'rain', 'duration': 5.0}, or the prompt as text"
        raise ValidationError(
            "nothing can be made of this", problems=[Problem("content", brief(content), expected)]
        )
    problems: list[Problem] = []
    numbers = {name: _number(name, content, problems) for name in _DEFAULTS}
    if problems:
        raise ValidationError("nothing can be made with these parameters", problems=problems)
    return {**{name: value for name, value in content.items() if name not in _NAMES}, **numbers}


def _number(name: str, content: Mapping[Any, Any], problems: list[Problem]) -> float:
    """Return a parameter by whatever it is called there; what is not above zero is the default."""
    default = _DEFAULTS[name]
    called = next((other for other in _CALLED[name] if other in content), None)
    if called is None:
        return default
    number = number_of(content[called])
    if number is not None and number <= 0:
        return default
    whole = isinstance(default, int)
    if number is None or (whole and number % 1):
        expected = f"a {'whole ' if whole else ''}number above 0"
        problems.append(Problem(called, brief(content[called]), expected))
        return default
    return type(default)(number)


# -- text ------------------------------------------------------------------------------------------


def as_text(item: ContextItem) -> str:
    """Return the content as text, one field a line."""
    return summarise(item.content, None).text


_READERS = "text* *llm* *llama* gpt* qwen* mistral* mixtral* claude* gemma* gemini* phi* deepseek*".split()
#: by the names of the models that they are for, whatever the type of the item
BUILT_IN: dict[str, Callable[[ContextItem], Any]] = {
    **dict.fromkeys(("wav2vec2*", "gama*"), at_16k),
    **dict.fromkeys(("audioldm*", "musicldm*", "stableaudio*", "stable_audio*"), as_parameters),
    **dict.fromkeys(_READERS, as_text),
}
