"""What a prompt became: clips, each with the seed that makes it again and how well it fits the prompt."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass

from grym_nb.clip import Clip, player
from grym_nb.render import Table, brief

__all__ = ["Candidate", "Generated"]

_PLAYED = 4  # candidates with a player of their own: each has up to 300 KB


@dataclass(frozen=True, slots=True)
class Candidate:
    """One clip, the seed that makes it again, and how alike CLAP finds prompt and sound (-1 to 1).

    `score` is None where the checkpoint has no CLAP that hears.
    """

    clip: Clip
    seed: int
    score: float | None = None

    @property
    def told(self) -> str:
        """``"seed 7, score 0.31"``."""
        return f"seed {self.seed}" + ("" if self.score is None else f", score {self.score:.2f}")


@dataclass(frozen=True, slots=True, repr=False)
class Generated:
    """The candidates for a prompt, the best first where they are scored, else in the order of their seeds."""

    prompt: str
    negative_prompt: str | None
    candidates: tuple[Candidate, ...]
    steps: int
    guidance: float
    scheduler: str

    @property
    def clip(self) -> Clip:
        """The best candidate's clip."""
        return self.candidates[0].clip

    @property
    def clips(self) -> tuple[Clip, ...]:
        """The clips of all candidates, the best first."""
        return tuple(one.clip for one in self.candidates)

    @property
    def seed(self) -> int:
        """The best candidate's seed."""
        return self.candidates[0].seed

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self.candidates)

    def __len__(self) -> int:
        return len(self.candidates)

    def __repr__(self) -> str:
        told = "; ".join(f"{one.clip!r}, {one.told}" for one in self.candidates[:_PLAYED])
        more = f"; {len(self) - _PLAYED} more" if len(self) > _PLAYED else ""
        return f"Generated({brief(self.prompt)}: {told}{more})"

    def table(self) -> Table:
        """Return the candidates as a table."""
        scores = ["-" if one.score is None else f"{one.score:.3f}" for one in self.candidates]
        rows = [
            (str(one.seed), score, f"{one.clip.seconds:.2f} s")
            for one, score in zip(self.candidates, scores, strict=True)
        ]
        return Table(f"{self.prompt}: {self._how}", ("seed", "score", "length"), rows)

    @property
    def _how(self) -> str:
        without = f", without {self.negative_prompt!r}" if self.negative_prompt else ""
        return f"{self.steps} steps, guidance {self.guidance:g}, {self.scheduler}{without}"

    def _repr_html_(self) -> str:
        heard = [
            f"{player.html(one.clip)}<p><small>{one.told}</small></p>" for one in self.candidates[:_PLAYED]
        ]
        told = f"<p>{html.escape(self.prompt)} <small>{html.escape(self._how)}</small></p>"
        more = len(self) - _PLAYED
        return "".join([told, *heard, f"<p>{more} more: .candidates has them</p>" if more > 0 else ""])
