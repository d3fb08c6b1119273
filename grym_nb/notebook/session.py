"""`%grym session save | restore`: which services there were, how they were set and whether loaded, in a file.

JSON, readable by its owner alone. No model, no code and no secret is in it: a service whose code is in a
module is registered again from there; one of a cell comes back as its cell is run, and is then set as it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grym_nb.errors import CommandError, GrymError, closest
from grym_nb.notebook.sheet import Sheet
from grym_nb.render import Table, brief, count, holds_secret

if TYPE_CHECKING:
    from grym_nb.runtime import Runtime
    from grym_nb.services import ServiceHandle
    from grym_nb.services.spec import ServiceSpec

__all__ = ["FILE", "restore", "save", "session"]

FILE = "grym-session.json"
_FORM = 1
_OPTIONS = ("memory", "ttl", "engine", "concurrency")
_HINT = "%grym session save [FILE], or %grym session restore [FILE]"


def session(runtime: Runtime, words: Sequence[str]) -> Sheet:
    """Do what is typed: save, or restore, with a file or without."""
    what, *rest = words or ("",)
    if what not in ("save", "restore") or len(rest) > 1:
        near = closest(what, ("save", "restore"))
        raise CommandError(
            f"%grym session {' '.join(words)}: save or restore was expected.{near}", hint=_HINT
        )
    path = Path(rest[0] if rest else FILE).expanduser()
    return save(runtime, path) if what == "save" else restore(runtime, path)


# -- into the file ---------------------------------------------------------------------------------


def save(runtime: Runtime, path: Path) -> Sheet:
    """Write down the services of a runtime; return what was left out, and why."""
    registry = runtime.registry
    left: list[tuple[str, str, str]] = []
    kept = [_kept(handle, left) for handle in registry.handles()]
    told = {
        "grym_nb": _FORM,
        "services": kept,
        "memory": dict(runtime.resources.ledger.budgets),
        "watching": "watching" in registry.__dict__ and registry.watching.status().is_on,
    }
    try:
        _write(path, json.dumps(told, indent=1))
    except OSError as error:
        raise CommandError(f"%grym session save: {error.strerror}: {path}", hint=_HINT) from None
    loaded = sum(one["loaded"] for one in kept)
    title = f"{count(len(kept), 'service')}, {loaded} of them loaded, in {path}"
    columns = ("service", "what", "why")
    return Sheet(title, (Table("left out", columns, left),) if left else ())


def _kept(handle: ServiceHandle, left: list[tuple[str, str, str]]) -> dict[str, Any]:
    spec = handle._record.spec
    factory = _place(spec)
    if factory is None:
        left.append((spec.name, "its code", "it is of a notebook: run its cell, then restore"))
    told: dict[str, Any] = {
        "name": spec.name,
        "factory": factory,
        "config": _plain(spec.name, spec.config, left),
        "said": _plain(spec.name, spec.said, left),
        "needs": list(spec.stated_needs),
        "budget": dict(spec.budget),
        "priority": spec.priority,
        "version": spec.label,
        "loaded": handle.state == "ready",
    }
    return {**told, **{name: getattr(spec, name) for name in _OPTIONS}}


def _place(spec: ServiceSpec) -> str | None:
    """Return where the code of a service can be imported from, None where it cannot."""
    factory = spec.factory
    if isinstance(factory, str):
        return factory
    module, name = getattr(factory, "__module__", None), getattr(factory, "__qualname__", "")
    if module in (None, "__main__", "builtins") or not name.isidentifier() or spec.reached is not None:
        return None
    return f"{module}:{name}"


def _plain(service: str, values: Mapping[str, Any], left: list[tuple[str, str, str]]) -> dict[str, Any]:
    """Return the values that a file can hold."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if holds_secret(name, value):
            left.append((service, name, "it is a secret"))
        elif not _fits(value):
            left.append((service, f"{name}={brief(value)}", "no file holds it"))
        else:
            kept[name] = value
    return kept


def _fits(value: object) -> bool:
    """Tell whether JSON gives back what it was given."""
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError, RecursionError):
        return False


def _write(path: Path, text: str) -> None:
    """Put a file in place of the one before, whole, for its owner alone."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


# -- out of it -------------------------------------------------------------------------------------


def restore(runtime: Runtime, path: Path) -> Sheet:
    """Register what was saved, set it as it was and load what was loaded; return what came of each.

    One that cannot be brought back keeps no other from it. A service that is there already keeps its code.
    """
    told = _read(path)
    rows = []
    for one in told["services"]:
        rows.append((one["name"], *_back(runtime, one)))
    more = []
    if told["memory"]:
        runtime.resources.budget(told["memory"])
        more.append("memory budgets are as they were")
    if told["watching"]:
        runtime.registry.watching.on()
        more.append("files are watched")
    back = sum(how != "not restored" for _, how, _ in rows)
    title = f"{back} of {count(len(rows), 'service')} from {path}{''.join(f'; {one}' for one in more)}"
    return Sheet(title, (Table("services", ("service", "how", "why"), rows),))


def _read(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(f"%grym session restore: {error.strerror}: {path}", hint=_HINT) from None
    except ValueError:
        raise CommandError(f"%grym session restore: {path} is no session", hint=_HINT) from None
    if not isinstance(told, dict) or told.get("grym_nb") != _FORM or not _is_whole(told):
        raise CommandError(
            f"%grym session restore: {path} is no session that this version can read", hint=_HINT
        )
    return told


def _is_whole(told: Mapping[str, Any]) -> bool:
    needed = {
        "name",
        "factory",
        "config",
        "said",
        "needs",
        "budget",
        "priority",
        "version",
        "loaded",
        *_OPTIONS,
    }
    services = told.get("services")
    return (
        isinstance(services, list)
        and all(isinstance(one, dict) and needed <= one.keys() for one in services)
        and isinstance(told.get("memory"), dict)
        and isinstance(told.get("watching"), bool)
    )


def _back(runtime: Runtime, one: Mapping[str, Any]) -> tuple[str, str]:
    """Bring one service back; return how it is now, and why it is not as it was."""
    registry, name = runtime.registry, one["name"]
    try:
        if name in registry:
            handle = registry[name]
            now = handle._record.spec.config
            changes = {key: value for key, value in one["config"].items() if now.get(key) != value}
            if changes:
                handle.configure(**changes)
        elif one["factory"] is None:
            return "not restored", "its code is of a notebook: run its cell, then restore again"
        else:
            options = {key: one[key] for key in ("config", "needs", "priority", "version", *_OPTIONS)}
            handle = registry.register(
                name, one["factory"], budget=one["budget"] or None, **options, **one["said"]
            )
        if one["loaded"]:
            handle.load()
    except (GrymError, TypeError) as error:
        said = getattr(error, "message", str(error))
        return "not restored" if name not in registry else "registered", " ".join(str(said).split())[:200]
    return ("loaded" if handle.state == "ready" else handle.state), ""
