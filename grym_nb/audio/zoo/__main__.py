"""`python -m grym_nb.audio.zoo [train NAME --out DIR]`: what is in the zoo, and its models trained anew."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from grym_nb.audio.zoo.catalogue import models
from grym_nb.audio.zoo.recipes import RECIPES
from grym_nb.errors import GrymError, Interrupted
from grym_nb.render import seconds, size

__all__ = ["main"]

_SOUNDS = "sounds"
_NAMES = sorted([*RECIPES, _SOUNDS])


class _Step(Protocol):
    """What the training of any model says of its steps."""

    @property
    def step(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def loss(self) -> float: ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; return its exit status."""
    given = _parser().parse_args(arguments)
    try:
        return _train(given) if given.command == "train" else _list()
    except GrymError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    except Interrupted as stopped:
        sys.stderr.write(f"\n{stopped}\n")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m grym_nb.audio.zoo", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("list", help="what there is, its size and its score (also without a command)")
    train = commands.add_parser("train", help="train a model from nothing; goes on where it was stopped")
    train.add_argument("name", choices=_NAMES, metavar="NAME", help=", ".join(_NAMES))
    train.add_argument("--out", type=Path, required=True, metavar="DIR")
    train.add_argument("--seed", type=int, default=0, metavar="N")
    train.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="how many (default: what the recipe says; of sounds: at most, for each part)",
    )
    return parser


def _list() -> int:
    for model in models():
        kept = "" if model.holds else f", below its floor of {model.floor:.2%}"
        told = f"{model.summary}; {model.measure} {model.score:.2%} at {model.at}{kept}"
        sys.stdout.write(f"{model.name:8} {size(model.bytes):>8}  {told}\n")
    return 0


def _train(given: argparse.Namespace) -> int:
    asked: list[int] = []

    def stop(number: int, frame: object) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the second one ends it at once

    before = signal.signal(signal.SIGINT, stop)
    try:
        figures = (_sounds if given.name == _SOUNDS else _listener)(given, lambda: bool(asked))
    finally:
        signal.signal(signal.SIGINT, before)
    sys.stdout.write(f"\n{given.out}: {figures['measure']} {figures['score']:.2%} at {figures['at']}\n")
    return 0


def _listener(given: argparse.Namespace, stop: Callable[[], bool]) -> dict[str, Any]:
    from grym_nb.audio.zoo.making import make

    told = _told(given.name)
    return make(RECIPES[given.name], given.out, seed=given.seed, steps=given.steps, told=told, stop=stop)


def _sounds(given: argparse.Namespace, stop: Callable[[], bool]) -> dict[str, Any]:
    from grym_nb.audio.zoo import obeying
    from grym_nb.audio.zoo.sounding import STEPS, Progress

    tellers = {part: _told(f"{_SOUNDS}, {part}") for part in STEPS}
    steps = {part: count if given.steps is None else min(count, given.steps) for part, count in STEPS.items()}

    def told(progress: Progress) -> None:
        tellers[progress.part](progress)

    return obeying.train(given.out, seed=given.seed, steps=steps, told=told, stop=stop)


def _told(name: str) -> Callable[[_Step], None]:
    """Return what writes a line every ten steps, over the one before."""
    begun: list[tuple[float, int]] = []

    def told(progress: _Step) -> None:
        begun.append((monotonic(), progress.step)) if not begun else None
        if progress.step % 10 and progress.step != progress.steps:
            return
        (start, first), now = begun[0], monotonic()
        left = (progress.steps - progress.step) * (now - start) / max(1, progress.step - first)
        done = f"{name}: step {progress.step} of {progress.steps}, loss {progress.loss:.3f}"
        sys.stdout.write(f"\r{f'{done}, {seconds(left)} left':<76}")
        sys.stdout.flush()

    return told


if __name__ == "__main__":
    sys.exit(main())
