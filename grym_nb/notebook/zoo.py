"""`%grym zoo`: the small models that come with the package, their sizes and their scores."""

from __future__ import annotations

from grym_nb.audio.zoo import Model, find, models
from grym_nb.notebook.sheet import Sheet
from grym_nb.render import Table, size

__all__ = ["zoo"]


def zoo(name: str | None = None) -> Sheet:
    """Return the table of all models, or the card of one; nothing is loaded."""
    if name is not None:
        return Sheet("", (find(name).card,))
    there = models()
    rows = [(f"zoo:{one.name}", one.summary, size(one.bytes), _score(one), _floor(one)) for one in there]
    table = Table("zoo", ("model", "what it does", "size", "score", "floor"), rows)
    more = "%grym zoo NAME shows a model's card: what it is not, and its score at other noise."
    return Sheet("", (table, more) if there else ("There is no model in this installation.",))


def _score(model: Model) -> str:
    return f"{model.measure} {model.score:.1%} at {model.at}"


def _floor(model: Model) -> str:
    bound = "at most" if model.better == "lower" else "at least"
    return f"{bound} {model.floor:.1%}, {'kept' if model.holds else 'NOT reached'}"
