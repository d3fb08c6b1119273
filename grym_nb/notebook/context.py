"""`%grym context ...`: what models share, as a table, read, put, taken out and watched."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grym_nb.errors import CommandError, ItemNotFound, closest
from grym_nb.notebook.calling import out_of
from grym_nb.notebook.sheet import Sheet
from grym_nb.notebook.typed import keyword, refers, text_of, value_of
from grym_nb.priority import priority_of
from grym_nb.render import brief

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from grym_nb.context import ContextItem, ContextStore

__all__ = ["ACTIONS", "Action", "act"]

_FILTERS = ("type", "key", "tags", "any_tags", "source", "min_priority", "workflow", "task")
_PUT = ("key", "ttl", "priority", "tags", "source", "workflow", "task", "metadata", "pinned", "durable")
_TEXTS = ("type", "key", "source", "workflow", "task")
_SEVERAL = ("tags", "any_tags", "kinds")
_OPENING = ("{", "[", "(")
_QUOTED = """quotes around all of it: '{"bpm": 120.0}'; or $name; as text: '"[x"'"""
_JSON = ("true", "false", "null")  # as a type, a word is a text; as a value, these are no texts
_YES_OR_NO = {"true": True, "yes": True, "false": False, "no": False}


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was asked for: the words that have no name, those that have one, and where the answer goes."""

    shell: InteractiveShell
    action: str
    words: list[str]
    named: dict[str, str]
    out: str | None
    everything: bool

    @property
    def line(self) -> str:
        """The beginning of the line, for errors."""
        return f"%grym context {self.action}"

    @property
    def store(self) -> ContextStore:
        """The store of this kernel."""
        from grym_nb.runtime import current

        return current().context

    def values(self) -> dict[str, Any]:
        """Return the value of what has a name; None is as good as not said."""
        told = {name: self._value(name, word) for name, word in self.named.items()}
        return {name: value for name, value in told.items() if value is not None or name == "ttl"}

    def _value(self, name: str, word: str) -> Any:
        if name in _TEXTS:
            return text_of(word, self.shell.user_ns)
        value = value_of(word, self.shell.user_ns)
        if name in _SEVERAL:
            return _several(word, value)
        if name == "metadata":
            return _content(self, word)
        if name == "ttl" and value in ("never", "none", "None"):
            return None
        if name in ("pinned", "durable") and isinstance(value, str):
            if value.lower() not in _YES_OR_NO:
                raise CommandError(f"{self.line}: {name} is true or false, not {word!r}", hint=f"{name}=true")
            return _YES_OR_NO[value.lower()]
        return value

    def filters(self) -> dict[str, Any]:
        """Return the filters; an unknown one is told with the closest."""
        from grym_nb.context.query import wanted_of

        if self.words:
            raise CommandError(
                f"{self.line} does not take {self.words[0]!r}",
                hint=f"a filter has a name: type={self.words[0]}",
            )
        told = self.values()
        wanted_of({name: value for name, value in told.items() if name != "kinds"}, also=("order",))
        return told

    def refused(self, message: str, hint: str = "") -> CommandError:
        """Return the error for a line that does not say enough, or too much."""
        return CommandError(f"{self.line}: {message}", hint=hint or f"usage: {ACTIONS[self.action].line}")

    def kept(self, value: object, shown: object) -> object:
        """Return what is shown, or put the value where `-o` says."""
        if self.out is None:
            return shown
        self.shell.user_ns[self.out] = value
        return None


def _several(word: str, value: Any) -> Any:
    """Return what is said of several texts: ``a,b``, a list of texts, or an object that is one."""
    if isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(part, str) for part in value):
        return tuple(value)
    if value is None or (refers(word) and not isinstance(value, str)):
        return value
    text = value if isinstance(value, str) else word
    return tuple(part for part in text.split(",") if part)


# -- what can be done ------------------------------------------------------------------------------


def act(shell: InteractiveShell, words: Sequence[str]) -> object:
    """Do what the words after ``%grym context`` ask for; none, or a filter, are a wish for the table."""
    if not words or keyword(words[0]) or words[0].startswith("-"):
        words = ["list", *words]
    name, rest = words[0], list(words[1:])
    action = ACTIONS.get(name)
    if action is None:
        raise CommandError(
            f"%grym context does not know {name!r}.{closest(name, ACTIONS)}",
            hint=f"it knows {', '.join(ACTIONS)}",
        )
    everything = "--all" in action.flags and "--all" in rest
    rest, out = out_of([word for word in rest if not everything or word != "--all"], command=action.start)
    asked = _Asked(shell, name, [], {}, out, everything)
    if out is not None and "-o" not in action.flags:
        raise asked.refused("there is nothing to keep with -o")
    for word in rest:
        pair = keyword(word)
        if pair is None:
            asked.words.append(word)
        elif pair[0] in asked.named:
            raise asked.refused(f"{pair[0]} is given twice", hint="say it once")
        else:
            asked.named[pair[0]] = pair[1]
    return action.do(asked)


def _list(asked: _Asked) -> Sheet:
    store, limit = asked.store, asked.named.pop("limit", "50")
    if not limit.isdecimal():
        raise asked.refused(f"limit is a number of lines, not {limit!r}", hint="limit=10")
    return Sheet("", (store.table(limit=int(limit), **asked.filters()), repr(store)))


def _open(asked: _Asked) -> object:
    from grym_nb.runtime import current

    _refuse_strangers(asked, ())
    if len(asked.words) != 1:
        raise asked.refused("which file?" if not asked.words else "one file")
    store = current().open_context(text_of(asked.words[0], asked.shell.user_ns))
    told = "grym.current().context is this one from now on: a variable with the one before has to be set anew"
    return Sheet("", (store.table(), repr(store), told))


def _get(asked: _Asked) -> object:
    item = _found(asked)
    return asked.kept(item.content, item)


def _found(asked: _Asked) -> ContextItem:
    _refuse_strangers(asked, ("key",))
    store, variables = asked.store, asked.shell.user_ns
    given = [_id(word, text_of(word, variables)) for word in asked.words]
    key = asked.values().get("key")
    if not given or len(given) + (key is not None) > 2:
        raise asked.refused("which item?" if not given else "an id, or a type and a key")
    if given[0] in store and len(given) == 1 and key is None:
        return store.get(given[0])
    try:
        return store.latest(given[0], given[1] if len(given) == 2 else key)
    except ItemNotFound:
        if given[0].startswith("ctx-"):
            store.get(given[0])  # raises, and knows what has become of it
        raise


def _put(asked: _Asked) -> object:
    _refuse_strangers(asked, _PUT)
    if len(asked.words) < 2:
        raise asked.refused("which value?" if asked.words else "which type, and which value?")
    kind, *values = asked.words
    if len(values) > 1:
        several = "a text of several words stands in quotes"
        hint = _QUOTED if values[0][0] in _OPENING else several
        raise asked.refused(f"one value, and not {len(values)}", hint=hint)
    variables = asked.shell.user_ns
    kind, content = text_of(kind, variables), _content(asked, values[0])
    item = asked.store.put(content, type=kind, **asked.values())
    return asked.kept(item, item)


def _content(asked: _Asked, word: str) -> Any:
    value = value_of(word, asked.shell.user_ns)
    if value is not word or not word or (word[0] not in _OPENING and word not in _JSON):
        return value
    try:
        return json.loads(word)  # true, false and null are no Python
    except (ValueError, RecursionError):
        told = f"{asked.line}: {brief(word)} has the brackets of a value, and is none"
        raise CommandError(told, hint=_QUOTED) from None


def _rm(asked: _Asked) -> Sheet:
    _refuse_strangers(asked, ())
    if not asked.words:
        raise asked.refused("which items?")
    store = asked.store
    ids = dict.fromkeys(_id(word, text_of(word, asked.shell.user_ns)) for word in asked.words)
    for id in ids:
        if id not in store:
            store.get(id)  # raises, before anything is done, and knows what has become of it
    return _went(sum([_deleted(store, id) for id in ids]))


def _clear(asked: _Asked) -> Sheet:
    filters = asked.filters()
    narrow = [name for name, value in filters.items() if _narrows(name, value)]
    if not narrow and not asked.everything:
        raise CommandError(
            f"{asked.line} without a filter takes out everything",
            hint=f"name what is to go: type=..., or say so: {asked.line} --all",
        )
    if narrow and asked.everything:
        raise asked.refused(f"--all, and {narrow[0]} as well", hint="leave one of them out")
    return _went(asked.store.clear(**filters))


def _narrows(name: str, value: Any) -> bool:
    """Tell whether a filter leaves anything out: every item has the least priority, and some order."""
    return value != () and name != "order" and not (name == "min_priority" and priority_of(value) == 0)


def _stats(asked: _Asked) -> object:
    _refuse_strangers(asked, ())
    if asked.words:
        raise asked.refused(f"it does not take {asked.words[0]!r}")
    return asked.store.stats()


def _watch(asked: _Asked) -> object:
    from grym_nb.notebook.feed import end_feeds, feed_of
    from grym_nb.runtime import current

    if asked.words == ["off"] and not asked.named:
        ended = end_feeds(asked.shell)
        return Sheet(f"{ended} {'watch has' if ended == 1 else 'watches have'} ended")
    return feed_of(asked.shell, current(), asked.filters())


def _refuse_strangers(asked: _Asked, known: Iterable[str]) -> None:
    for name in asked.named:
        if name not in known:
            quoted = f"a text with = in it stands in two kinds of quotes: '\"{name}=...\"'"
            raise CommandError(
                f"{asked.line} does not take {name!r}.{closest(name, known)}",
                hint=quoted if asked.action == "put" else f"usage: {ACTIONS[asked.action].line}",
            )


def _id(word: str, value: Any) -> str:
    """Return an id, or a name, as it was typed, or of the item that was handed over."""
    id = getattr(value, "id", value)
    if not isinstance(id, str):
        raise CommandError(
            f"{word} is no item, and no text", hint="%grym context shows the items with their ids"
        )
    return id


def _deleted(store: ContextStore, id: str) -> bool:
    try:
        store.delete(id)
    except ItemNotFound:  # somebody was faster
        return False
    return True


def _went(count: int) -> Sheet:
    return Sheet(f"{count} {'item was' if count == 1 else 'items were'} taken out")


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do: how it is typed, what does it, and the names and flags that it takes."""

    name: str
    usage: str
    do: Callable[[_Asked], object]
    names: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def start(self) -> str:
        """The beginning of its line."""
        return f"%grym context {self.name}"

    @property
    def line(self) -> str:
        """How it is typed, in full."""
        return f"{self.start} {self.usage}".rstrip()


_ORDERED = (*_FILTERS, "since", "until", "order")
ACTIONS: dict[str, Action] = {
    action.name: action
    for action in (
        Action("list", "[type=T] [key=K] [tags=A,B] ... [limit=N]", _list, (*_ORDERED, "limit")),
        Action("get", "ID | TYPE [KEY] [-o VAR]", _get, ("key",), ("-o", "--out")),
        Action("put", "TYPE VALUE [key=K] [ttl=S] [priority=P] ... [-o VAR]", _put, _PUT, ("-o", "--out")),
        Action("rm", "ID...", _rm),
        Action("clear", "[type=T] [key=K] [tags=A,B] ... | --all", _clear, _ORDERED, ("--all",)),
        Action("stats", "", _stats),
        Action("open", "FILE", _open),
        Action("watch", "[type=T] [key=K] [tags=A,B] ... | off", _watch, (*_FILTERS, "kinds")),
    )
}
