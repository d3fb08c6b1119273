"""One kind of edit, and the text of a service in which nothing but that edit is of interest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import dedent, indent
from typing import Any, Literal

__all__ = ["Change", "Kind", "kind", "service"]

#: texts in the place of texts, all of a new text, or None where a file is deleted
Change = tuple[tuple[str, str], ...] | str | None

How = Literal["in place", "loaded", "unchanged", "refused"]


@dataclass(frozen=True, slots=True)
class Kind:
    """An edit of modules, the last of which has the service `S`; ``ask()`` answers `before`, then `after`."""

    name: str
    texts: Mapping[str, str]
    changes: Mapping[str, Change]
    before: Any
    after: Any
    how: How = "in place"
    config: Mapping[str, Any] | None = None
    needs: str = ""  # a package without which it is skipped
    #: it is one when all of it is run again in a notebook, too, where `held` is made anew
    cell: bool = True
    told: str = ""  # of what refuses it
    at_once: bool = False  # by the clock of its files it was saved when they were
    then: tuple[Any, ...] = ()  # what it is asked afterwards

    @property
    def module(self) -> str:
        """The module with the service."""
        return [*self.texts][-1]

    def edited(self) -> dict[str, str | None]:
        """Return the texts that are others afterwards, by module; None for what is deleted."""
        found: dict[str, str | None] = {}
        for module, change in self.changes.items():
            if not isinstance(change, tuple):
                found[module] = change if change is None else dedent(change)
                continue
            text = self.texts[module]
            for was, now in change:
                assert text.count(was) == 1, (self.name, was, text.count(was))
                text = text.replace(was, now)
            found[module] = text
        return found


def kind(
    name: str,
    text: str | Mapping[str, str],
    change: tuple[str, str] | list[tuple[str, str]] | Mapping[str, Any],
    before: Any,
    after: Any,
    **more: Any,
) -> Kind:
    """Return a kind: one text is that of the module ``m``, and the change one of that."""
    texts = {"m": text} if isinstance(text, str) else text
    if not isinstance(change, Mapping):
        change = {[*texts][-1]: change}
    changes = {
        module: tuple(one) if isinstance(one, list) else (one,) if isinstance(one, tuple) else one
        for module, one in change.items()
    }
    more.setdefault("cell", len(texts) == 1 and [*changes] == ["m"])
    return Kind(name, {one: dedent(text) for one, text in texts.items()}, changes, before, after, **more)


def service(
    run: str,
    *,
    head: str = "",
    body: str = "",
    load: str = "",
    held: str = "self.weights",
    bases: str = "ModelService",
    takes: str = "self, x=3",
    above: str = "",
    define: str = "def",
) -> str:
    """Return a module's text: its `head`, and a service with a `body`, that answers what `ask` returns.

    `held` is what an edit has to leave as it is, beside the weights.
    """
    parts = [
        "from grym_nb import ModelService, task",
        dedent(head).strip("\n"),
        "",
        f"class S({bases}):",
        "    def load(self):",
        "        self.weights = [object()]",
        indent(dedent(load).strip("\n"), "        "),
        indent(dedent(body).strip("\n"), "    "),
        '    @task("held")',
        "    def held(self):",
        f"        return ({held},)",
        '    @task("ask")',
        indent(above, "    "),
        f"    {define} ask({takes}):",
        indent(dedent(run).strip("\n"), "        "),
    ]
    return "\n".join(part for part in parts if part) + "\n"
