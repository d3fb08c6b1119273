"""Where a model's files are, and what they are: read before anything heavy is imported.

A *reference* is a directory, ``"owner/name"`` or ``"owner/name@revision"`` of the hub, or ``"zoo:NAME"``.
Of the hub only configs are fetched until it is known that they are of a kind that is wanted; with
``HF_HUB_OFFLINE=1`` nothing is fetched, and what was before is used.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from grym_nb.clip.files import package
from grym_nb.errors import CheckpointError, GrymError, closest
from grym_nb.hardening.prediction import size_of_files
from grym_nb.render import brief

__all__ = ["Checkpoint", "find", "is_offline", "pipeline_parts", "read_json"]

_log = logging.getLogger(__name__)

_ZOO = "grym_nb.audio.zoo"  # of models that come with the package
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?(?:@[\w./-]+)?")
_CONFIGS = ("*.json", "*.txt", "*.model", "**/*.json", "**/*.txt", "**/*.model")
_SAFE, _PICKLED = ("*.safetensors", "**/*.safetensors"), ("*.bin", "**/*.bin")
_INDEX = "model_index.json"
#: files of weights: the first that is there counts, whole or in shards that its index names
_OF_TRANSFORMERS = ("model.safetensors", "pytorch_model.bin")
_OF_DIFFUSERS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The files of a model: where they are, what they make, and of which commit they are (hub only)."""

    reference: str
    folder: Path
    kind: str  # the class that it makes, such as "Wav2Vec2ForCTC"
    config: Mapping[str, Any] = field(repr=False, hash=False)  # of config.json, or model_index.json
    revision: str | None = None

    def memory(self, dtype: str = "") -> int:
        """Return the bytes that its weights take in memory, as the headers of its files say.

        In a `dtype` ("float16", say), or in those in which they are stored.
        """
        return size_of_files(self.folder, width=_WIDTHS.get(dtype))

    @property
    def stamp(self) -> str:
        """Text that is another one once any of its files is: where weights are shared, it tells which."""
        files = sorted(self.folder.glob("*")) + sorted(self.folder.glob("*/*"))
        told = [(str(file), *_size_and_time(file)) for file in files if file.is_file()]
        return blake2b(repr(told).encode(), digest_size=8).hexdigest()

    def __str__(self) -> str:
        name = self.reference.partition("@")[0]
        return f"{name}@{self.revision}" if self.revision else self.reference


def _size_and_time(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def find(reference: object, accepts: Mapping[str, Sequence[str]], *, service: str) -> Checkpoint:
    """Return the checkpoint that a reference names, whole and of a kind that is accepted.

    `accepts` has the kinds, each with the files that it needs beside its weights; ``"a|b"`` is either. What
    is wrong is a `CheckpointError` that says what was found and what is accepted.
    """
    if isinstance(reference, os.PathLike):
        reference = os.fspath(reference)
    if not isinstance(reference, str) or not reference.strip():
        _refuse_nothing(reference, service)
    if reference.startswith("zoo:"):
        folder, revision = _in_zoo(reference), None
    elif Path(reference).expanduser().is_dir():
        folder, revision = Path(reference).expanduser().absolute(), None
    elif _HUB_ID.fullmatch(reference) and not Path(reference).exists():
        return _of_hub(reference, accepts)
    else:
        _refuse_path(reference)
    return _checked(reference, folder, revision, accepts)


def _refuse_nothing(reference: object, service: str) -> NoReturn:
    found = "no model is configured" if reference is None else f"{brief(reference)} names no model"
    raise CheckpointError(
        f"{service}: {found}",
        cause="a directory, an id of the hub (owner/name@revision) or zoo:NAME is needed",
        hint=f'%grym load {service} --model DIR, or grym.get("{service}").configure(model="DIR")',
    )


def _refuse_path(reference: str) -> NoReturn:
    path = Path(reference).expanduser()
    found = "a file" if path.is_file() else "not there"
    siblings = islice(path.parent.iterdir(), 1000) if path.parent.is_dir() else ()
    near = "" if path.is_file() else closest(path.name, (one.name for one in siblings if one.is_dir()))
    raise CheckpointError(
        f"{reference!r} is {found}: the directory of a checkpoint is needed.{near}",
        hint="a directory with config.json or model_index.json in it, owner/name of the hub, or zoo:NAME",
    )


def _in_zoo(reference: str) -> Path:
    name = reference.removeprefix("zoo:")
    try:
        zoo = import_module(_ZOO)
    except ModuleNotFoundError as error:
        if error.name != _ZOO:
            raise
        raise CheckpointError(
            f"there is no {reference!r}: this installation has no models of its own",
            hint="give the directory of a checkpoint, or owner/name of the hub",
        ) from None
    try:
        return Path(zoo.find(name).folder)
    except GrymError:
        raise
    except (KeyError, LookupError) as error:
        raise CheckpointError(f"there is no {reference!r}", cause=str(error), hint="%grym zoo") from None


# -- the hub ---------------------------------------------------------------------------------------


def is_offline(environ: Mapping[str, str] | None = None) -> bool:
    """Tell whether nothing may be fetched: ``HF_HUB_OFFLINE`` or ``TRANSFORMERS_OFFLINE`` says so."""
    given = os.environ if environ is None else environ
    said = (given.get(name, "").upper() for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return any(word in ("1", "ON", "YES", "TRUE") for word in said)


def _of_hub(reference: str, accepts: Mapping[str, Sequence[str]]) -> Checkpoint:
    name, _, revision = reference.partition("@")
    folder = _fetched(reference, name, revision, _CONFIGS)
    # A snapshot's directory bears the commit: what is fetched from here on is of that one, and no other.
    commit = folder.name
    _kind_of(folder, reference, accepts)
    for patterns in (_SAFE, _PICKLED):
        folder = _fetched(reference, name, commit, (*_CONFIGS, *patterns))
        if size_of_files(folder):
            break
    if revision != commit:
        _log.info("%s is %s@%s: say so to have the same files the next time", reference, name, commit)
    return _checked(reference, folder, commit, accepts)


def _fetched(reference: str, name: str, revision: str, patterns: Sequence[str]) -> Path:
    hub = package("huggingface_hub", purpose="a model of the hub", extra="audio")
    offline = is_offline()
    try:
        return Path(
            hub.snapshot_download(
                name, revision=revision or None, allow_patterns=list(patterns), local_files_only=offline
            )
        )
    except (OSError, ValueError) as error:  # its own errors are among these, for no network as for no such id
        said = str(error).strip().partition("\n")[0]
        raise CheckpointError(
            f"{reference!r} is no directory here, and cannot be had from the hub"
            + (" (HF_HUB_OFFLINE is set, and it was not fetched before)" if offline else ""),
            cause=f"{type(error).__name__}: {said}",
            hint="the directory of a checkpoint, owner/name@revision of the hub, or zoo:NAME",
        ) from None


# -- what is in a directory ------------------------------------------------------------------------


def _checked(
    reference: str, folder: Path, revision: str | None, accepts: Mapping[str, Sequence[str]]
) -> Checkpoint:
    kind, config = _kind_of(folder, reference, accepts)
    if missing := list(_missing(folder, config, accepts[kind])):
        raise CheckpointError(
            f"{reference!r} ({kind}) is not whole: {len(missing)} of its files are not there",
            cause=f"missing: {', '.join(missing)}",
            hint="copy them there, or save the model again: save_pretrained writes all of them",
            missing=tuple(missing),
        )
    return Checkpoint(reference, folder, kind, config, revision)


def _kind_of(
    folder: Path, reference: str, accepts: Mapping[str, Sequence[str]]
) -> tuple[str, dict[str, Any]]:
    """Return what a directory makes, and the config that says so; raises for what is not accepted."""
    path = next((folder / name for name in (_INDEX, "config.json") if (folder / name).is_file()), None)
    accepted = ", ".join(accepts)
    if path is None:
        there = sorted(one.name for one in islice(folder.iterdir(), 1000))
        raise CheckpointError(
            f"{reference!r} holds no checkpoint: it has neither config.json nor model_index.json",
            cause=f"found {', '.join(there[:8]) or 'nothing'}{' …' if len(there) > 8 else ''}",
            hint=f"the directory of one of {accepted}",
        )
    config = read_json(path)
    named = [config.get("_class_name")] if path.name == _INDEX else config.get("architectures") or []
    kinds = [str(name) for name in named if name] if isinstance(named, list) else []
    if kind := next((name for name in kinds if name in accepts), None):
        return kind, config
    found = ", ".join(kinds) or f"a model of type {config.get('model_type', 'unknown')!r}, without a class"
    raise CheckpointError(
        f"{reference!r} is of another kind: {path.name} says {found}",
        cause=f"accepted: {accepted}",
        hint="see which service it is for: config.json or model_index.json names its class",
        found=tuple(kinds),
    )


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file of a checkpoint; a `CheckpointError` where there is none."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read as JSON", cause=str(error)) from None
    if not isinstance(told, dict):
        raise CheckpointError(f"{str(path)!r} holds {brief(told)}, and no JSON object")
    return told


def _missing(folder: Path, config: Mapping[str, Any], needed: Sequence[str]) -> Iterator[str]:
    """Yield the files that are not there, by what they are called; of several that would do, all."""
    for either in needed:
        if not any((folder / name).is_file() for name in either.split("|")):
            yield either.replace("|", " or ")
    parts = pipeline_parts(config)
    if not parts:
        yield from _missing_weights(folder, _OF_TRANSFORMERS)
    for part, (library, made) in parts.items():
        inner = folder / part
        if not inner.is_dir():
            yield f"{part}/"
        elif made.endswith("Scheduler"):
            yield from _missing_config(inner, "scheduler_config.json")
        elif "Tokenizer" in made:
            yield from _missing_config(inner, "tokenizer_config.json")
        elif "FeatureExtractor" in made or "Processor" in made:
            yield from _missing_config(inner, "preprocessor_config.json")
        else:
            yield from _missing_config(inner, "config.json")
            names = _OF_TRANSFORMERS if library == "transformers" else _OF_DIFFUSERS
            yield from (f"{part}/{name}" for name in _missing_weights(inner, names))


def _missing_config(folder: Path, name: str) -> Iterator[str]:
    if not (folder / name).is_file():
        yield f"{folder.name}/{name}"


def _missing_weights(folder: Path, names: Sequence[str]) -> Iterator[str]:
    either = [one for name in names for one in (name, f"{name}.index.json")]
    there = next((name for name in either if (folder / name).is_file()), None)
    if there is None:
        yield " or ".join(names)
    elif there.endswith(".index.json"):
        shards = set(read_json(folder / there).get("weight_map", {}).values())
        yield from (shard for shard in sorted(map(str, shards)) if not (folder / shard).is_file())


def pipeline_parts(config: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the parts of a pipeline, each with the library and the class that its index names."""
    pairs = {
        name: value
        for name, value in config.items()
        if not name.startswith("_") and isinstance(value, list) and len(value) == 2
    }
    if "_class_name" not in config:
        return {}
    return {name: (str(home), str(made)) for name, (home, made) in pairs.items() if home and made}
