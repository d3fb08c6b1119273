"""`%grym context`: what models share, from the prompt; and a list that follows it under its cell."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from grym_nb.context import ContextItem, ContextStore
from grym_nb.errors import CommandError, ItemNotFound
from grym_nb.notebook.completion import offers
from grym_nb.notebook.context import ACTIONS, act
from grym_nb.notebook.extension import install, uninstall
from grym_nb.notebook.feed import Feed, end_feeds, feed_of
from grym_nb.runtime import Runtime
from grym_nb.testing import FakeClock
from tests.kernel import Kernel, Reply

ITEMS = """
import threading
import grym_nb as grym
ctx = grym.current().context
ctx.clear()
ctx.sweep()
both = ("beat", "live")
first = ctx.put({"bpm": 120.0}, type="tempo", key="song-1", priority="high", tags=both, source="a")
second = ctx.put({"bpm": 90.0}, type="tempo", key="song-2", tags=("beat",), source="b")
third = ctx.put("slow and dark", type="style", key="42", ttl=None)
"""


@pytest.fixture(scope="module")
def kernel_with_items(shared_kernel: Kernel) -> Kernel:
    """A kernel with the extension."""
    shared_kernel.run("%load_ext grym_nb").checked()
    return shared_kernel


@pytest.fixture
def ready(kernel_with_items: Kernel) -> Kernel:
    """The same kernel, with the same three items for each test."""
    kernel_with_items.run(ITEMS).checked()
    return kernel_with_items


def _rows(reply: Reply) -> list[str]:
    """Return the types and keys of a table's rows."""
    lines = (reply.checked().result_text or "").split("\n\n")[0].splitlines()[3:]
    return [" ".join(line.split()[1:3]) for line in lines]


# -- the table -------------------------------------------------------------------------------------


def test_alone_it_is_the_table_of_items(ready: Kernel) -> None:
    """The newest first, as text and as HTML, with a line about the store."""
    reply = ready.run("%grym context")
    assert _rows(reply) == ["style 42", "tempo song-2", "tempo song-1"]
    text, html = reply.result_text or "", reply.result_html or ""
    assert text.startswith("context: 3 items\n")
    assert text.splitlines()[-1].startswith("<ContextStore: 3 items, ")
    assert "<td" in html and "&lt;ContextStore: 3 items" in html and "<style" not in html
    assert ready.run("%grym context list").result_text == text
    assert ready.run("told = %grym context\ntype(told).__name__").result_text == "'Sheet'"


@pytest.mark.parametrize(
    ("filters", "rows"),
    [
        ("list type=tempo", ["tempo song-2", "tempo song-1"]),
        ("type=tempo", ["tempo song-2", "tempo song-1"]),
        ("list key=42", ["style 42"]),
        ("list tags=beat,live", ["tempo song-1"]),
        ("list tags=\"['beat']\"", ["tempo song-2", "tempo song-1"]),
        ("list any_tags=live,other", ["tempo song-1"]),
        ("list tags=$wanted", ["tempo song-1"]),
        ("list tags=$word", ["tempo song-2", "tempo song-1"]),
        ("list source=b", ["tempo song-2"]),
        ("list min_priority=high", ["tempo song-1"]),
        ("list min_priority=1 order=oldest", ["tempo song-1", "tempo song-2", "style 42"]),
        ("list type=$kind key={name}", ["tempo song-1"]),
        ("list type=None since=0", ["style 42", "tempo song-2", "tempo song-1"]),
        ("list since=1e12", []),
    ],
)
def test_a_filter_is_what_a_query_takes(ready: Kernel, filters: str, rows: list[str]) -> None:
    """Names are text also where they look like numbers; several tags are divided by commas."""
    ready.run("wanted, word, kind, name = ['live'], 'beat', 'tempo', 'song-1'")
    assert _rows(ready.run(f"%grym context {filters}")) == rows


def test_the_table_reads_no_contents(shell: InteractiveShell, runtime: Runtime) -> None:
    """To look is no use of an item: what goes first stays what it was."""
    install(shell)
    runtime.context.put("x", type="note")
    for line in ("context", "context type=note", "context stats"):
        shell.run_line_magic("grym", line)
    assert list(runtime.context.uses().values()) == [0]
    uninstall(shell)


# -- one item --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("get $first.id", None),
        ("get $first", "first"),
        ("get tempo", "second"),
        ("get tempo song-1", "first"),
        ("get tempo key=song-1", "first"),
        ("get style 42", "third"),
        ("get $kind {name}", "first"),
    ],
)
def test_get_finds_by_id_or_by_type_and_key(ready: Kernel, line: str, found: str | None) -> None:
    """Of several the one that was written last."""
    ready.run("kind, name = 'tempo', 'song-1'")
    reply = ready.run(f"item = %grym context {line}")
    if found is None:
        assert reply.error is not None  # `$name` is a whole word, or text
        return
    assert ready.run(f"type(item).__name__, item == {found}").result_text == "('ContextItem', True)"


def test_get_by_an_id_that_was_typed(ready: Kernel) -> None:
    """As it stands in the table, and shown as the item it is."""
    id = (ready.run("first.id").result_text or "").strip("'")
    assert (ready.run(f"%grym context get {id}").result_text or "").startswith(f"ContextItem({id}, 'tempo'")


def test_get_keeps_the_content_in_a_variable(ready: Kernel) -> None:
    """And shows nothing."""
    assert ready.run("%grym context get tempo song-1 -o tempo").outputs == []
    assert ready.run("tempo").result_text == "{'bpm': 120.0}"
    assert ready.run("%grym context get --out tempo $third").outputs == []
    assert ready.run("tempo").result_text == "'slow and dark'"


def test_put_takes_a_type_and_a_value_and_what_is_said_of_it(ready: Kernel) -> None:
    """Returned as the item; `never` is for ever."""
    ready.run("about = {'by': 'me'}")
    ready.run(
        "item = %grym context put note '{\"bpm\": 1}' key=7 ttl=60 priority=high tags=a,b source=me "
        "workflow=w task=t metadata=$about pinned=true durable=no"
    ).checked()
    assert ready.run("item.type, item.key, item.content, item.ttl, item.priority, item.tags").result_text == (
        "('note', '7', {'bpm': 1}, 60.0, 2, ('a', 'b'))"
    )
    assert ready.run("item.source, item.workflow, item.task, dict(item.metadata)").result_text == (
        "('me', 'w', 't', {'by': 'me'})"
    )
    assert ready.run("item.pinned, item.durable, ctx.get(item.id) == item").result_text == (
        "(True, False, True)"
    )
    ready.run("item = %grym context put note plain ttl=never pinned=False").checked()
    assert ready.run("item.content, item.ttl, item.expires, item.pinned").result_text == (
        "('plain', None, None, False)"
    )
    ready.run("item = %grym context put note 3 key=None").checked()
    assert ready.run("item.content, item.key, item.ttl").result_text == "(3, None, 3600.0)"
    ready.run("""item = %grym context put note '{"live": true, "at": null}'""").checked()
    assert ready.run("item.content").result_text == "{'live': True, 'at': None}"
    ready.run("""item = %grym context put note '"[a"'""").checked()
    assert ready.run("item.content").result_text == "'[a'"
    ready.run("""item = %grym context put note '"a=b"'""").checked()
    assert ready.run("item.content").result_text == "'a=b'"


def test_put_passes_the_object_and_keeps_the_item(ready: Kernel) -> None:
    """`$name` as in `%grym run`; `-o` keeps the item, since the content is there already."""
    ready.run("thing = object()")
    assert ready.run("%grym context put thing $thing -o item").outputs == []
    assert ready.run("item.content is thing, ctx.latest('thing') == item").result_text == "(True, True)"


# -- taking out ------------------------------------------------------------------------------------


def test_rm_takes_out_by_id(ready: Kernel) -> None:
    """Each once, and it says how many."""
    assert ready.run("%grym context rm $first $first").result_text == "1 item was taken out"
    id = (ready.run("second.id").result_text or "").strip("'")
    assert ready.run(f"%grym context rm {id} $third").result_text == "2 items were taken out"
    assert ready.run("len(ctx)").result_text == "0"


def test_metadata_may_be_json(ready: Kernel) -> None:
    """As a value may."""
    ready.run("""%grym context put t 1 metadata='{"a": true}' -o made""")
    assert ready.run("made.metadata").result_text == "{'a': True}"
    error = ready.run("%grym context put t 1 metadata='{a: true}'").error
    assert error is not None and "has the brackets of a value" in error.traceback[0]


def test_clear_takes_out_what_fits(ready: Kernel) -> None:
    """Everything only when that is said."""
    assert ready.run("%grym context clear type=tempo tags=live").result_text == "1 item was taken out"
    assert ready.run("%grym context clear type=nothing").result_text == "0 items were taken out"
    assert ready.run("%grym context clear --all").result_text == "2 items were taken out"


def test_somebody_may_be_faster(
    shell: InteractiveShell, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is gone when its turn comes was not taken out by this line."""
    one, two = (runtime.context.put(n, type="note") for n in range(2))
    delete = runtime.context.delete

    def late(id: str) -> ContextItem:
        if id == one.id:
            delete(id)
        return delete(id)

    monkeypatch.setattr(runtime.context, "delete", late)
    assert repr(act(shell, ["rm", one.id, two.id])) == "1 item was taken out"


def test_stats_are_those_of_the_store(ready: Kernel) -> None:
    """The object itself."""
    assert (ready.run("told = %grym context stats\ntold").result_text or "").startswith("context store\n")
    assert ready.run("told.items == ctx.stats().items == 3").result_text == "True"


# -- what a user gets wrong ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "name", "told", "hint"),
    [
        ("lst", "CommandError", "does not know 'lst'. Did you mean 'list'?", "it knows list, get, put, rm,"),
        ("delete x", "CommandError", "does not know 'delete'.", "it knows list, get,"),
        ("list typ=tempo", "ValidationError", "the store cannot be asked so", "nothing was done"),
        ("list min_priority=urgent", "ValidationError", "the store cannot be asked so", "nothing was done"),
        ("list self=1", "ValidationError", "the store cannot be asked so", "nothing was done"),
        ("list tempo", "CommandError", "list does not take 'tempo'", "a filter has a name: type=tempo"),
        ("list type=a type=b", "CommandError", "list: type is given twice", "say it once"),
        ("list type=tempo -o x", "CommandError", "list: there is nothing to keep with -o", "usage: "),
        ("list type=$nobody", "CommandError", "there is no variable 'nobody'.", "define it"),
        ("--al", "CommandError", "list does not take '--al'.", "a text that begins so"),
        ("get", "CommandError", "get: which item?", "usage: %grym context get ID | TYPE [KEY] [-o VAR]"),
        ("get a b c", "CommandError", "get: an id, or a type and a key", "usage: "),
        ("get a b key=c", "CommandError", "get: an id, or a type and a key", "usage: "),
        ("get tempo kee=c", "CommandError", "get does not take 'kee'. Did you mean 'key'?", "usage: "),
        ("get tempo song-1 -o 2x", "CommandError", "-o needs a variable's name, not '2x'", "-o result"),
        ("get tempi", "ItemNotFound", "nothing of type 'tempi'", "types in the store: "),
        ("get tempo song-3", "ItemNotFound", "'tempo' with key 'song-3'", "keys of it: song-1, song-2"),
        ("get ctx-0-1", "ItemNotFound", "there is no item 'ctx-0-1'", "types in the store: "),
        ("get $gone", "ItemNotFound", "has expired|was expired", "put it again"),
        ("get $ctx", "CommandError", "$ctx is no item, and no text", "%grym context shows"),
        ("put", "CommandError", "put: which type, and which value?", "usage: %grym context put TYPE VALUE"),
        ("put note", "CommandError", "put: which value?", "usage: %grym context put TYPE VALUE"),
        ("put note a b", "CommandError", "put: one value, and not 2", "a text of several words"),
        ("put note {bpm: 120}", "CommandError", "put: one value, and not 2", "quotes around all of it"),
        (
            "put note {bpm:120}",
            "CommandError",
            "put: '{bpm:120}' has the brackets of a value",
            "quotes around",
        ),
        ("put note '[1, 2'", "CommandError", "put: '[1, 2' has the brackets", "quotes around all of it"),
        ("put note a kee=b", "CommandError", "put does not take 'kee'. Did you mean 'key'?", "a text with ="),
        ("put note a pinned=maybe", "CommandError", "put: pinned is true or false, not 'maybe'", "pinned="),
        ("put note a ttl=soon priority=x", "ValidationError", "this item cannot be kept", "nothing was done"),
        ("put note a tags=$x", "ValidationError", "this item cannot be kept", "nothing was done"),
        ("put note a durable=yes", "ValidationError", "a store in memory keeps nothing", "ContextStore("),
        ("put 3 a -o", "CommandError", "put -o needs a variable's name, not ''", "-o result"),
        ("rm", "CommandError", "rm: which items?", "usage: %grym context rm ID..."),
        ("rm $first nobody", "ItemNotFound", "there is no item 'nobody'", "types in the store"),
        ("rm $ctx", "CommandError", "$ctx is no item, and no text", "%grym context shows"),
        ("rm type=tempo", "CommandError", "rm does not take 'type'.", "usage: "),
        ("rm --all", "CommandError", "rm does not take '--all'.", "a text that begins so"),
        ("clear", "CommandError", "clear without a filter takes out everything", "name what is to go"),
        ("clear type=None tags=", "CommandError", "clear without a filter takes out everything", "name what"),
        (
            "clear min_priority=low",
            "CommandError",
            "clear without a filter takes out everything",
            "name what",
        ),
        ("clear order=oldest", "CommandError", "clear without a filter takes out everything", "name what"),
        ("clear --all type=tempo", "CommandError", "clear: --all, and type as well", "leave one"),
        ("clear typ=tempo", "ValidationError", "the store cannot be asked so", "nothing was done"),
        ("stats now", "CommandError", "stats: it does not take 'now'", "usage: %grym context stats"),
        ("stats type=tempo", "CommandError", "stats does not take 'type'.", "usage: "),
        ("watch of", "CommandError", "watch does not take 'of'", "a filter has a name: type=of"),
        ("watch off type=tempo", "CommandError", "watch does not take 'off'", "a filter has a name"),
        ("watch since=1", "ValidationError", "the store cannot be watched so", "nothing was done"),
        ("watch kinds=puts", "ValidationError", "the store cannot be watched so", "nothing was done"),
        ("put a $first.id", "CommandError", "$first.id is more than a name", "give it a name in a cell"),
        ("get $first.id", "CommandError", "$first.id is more than a name", "give it a name in a cell"),
        ("list limit=-1", "CommandError", "limit is a number of lines", "limit=10"),
        ("open", "CommandError", "which file?", "usage: %grym context open FILE"),
        ("open /", "StorageError", "/", "name a file"),
        ("open :memory:", "ConfigError", "this context store cannot be made", ""),
        ("watch tell=1", "ValidationError", "the store cannot be asked so", "nothing was done"),
    ],
)
def test_an_error_is_three_lines_and_nothing_is_done(
    ready: Kernel, line: str, name: str, told: str, hint: str
) -> None:
    """What happened, what is wrong, what to do; the items are as they were, and nothing is watched."""
    ready.run("gone = ctx.put(1, type='short', ttl=1e-9); x = 1")
    error = ready.run(f"%grym context {line}").error
    assert error is not None and error.ename == name
    assert any(part in error.traceback[0] for part in told.split("|")), error
    assert error.traceback[-1].startswith(f"→ {hint}")
    assert len(error.traceback) <= 3
    assert ready.run("len(ctx), x, ctx.get(first.id) == first").result_text == "(3, 1, True)"
    assert ready.run("%grym context watch off").result_text == "0 watches have ended"


def test_the_closest_filter_is_told(ready: Kernel) -> None:
    """By the store itself, as everywhere."""
    error = ready.run("%grym context list typ=tempo").error
    assert error is not None and "Did you mean 'type'?" in error.traceback[1]


def test_help_shows_every_action(ready: Kernel) -> None:
    """The line and examples to copy."""
    text = ready.run("%grym help context").checked().result_text or ""
    assert all(re.search(rf"\b{name}\b", text.splitlines()[0]) for name in ACTIONS)
    assert all(f"%grym context {name}" in text for name in ("list", "get", "put", "rm", "clear", "watch"))
    assert ready.run("%grym context --help").result_text == text


def test_a_table_has_as_many_rows_as_asked_for(ready: Kernel) -> None:
    assert _rows(ready.run("%grym context list limit=1"))[0] == "style 42"
    assert "2 more" in (ready.run("%grym context list limit=1").result_text or "")


def test_words_of_json_are_values(ready: Kernel) -> None:
    ready.run("%grym context put flag true -o yes\n").checked()
    ready.run("%grym context put flag null -o nothing").checked()
    assert ready.run("yes.content, nothing.content").result_text == "(True, None)"


def test_the_context_moves_into_a_file(kernel: Kernel, tmp_path: Path) -> None:
    """What was shared before is in it, for the next kernel too; what watched goes on."""
    kernel.run("%load_ext grym_nb").checked()
    kernel.run(ITEMS).checked()
    kernel.run("heard = []; ctx.watch(heard.append)").checked()
    shown = kernel.run(f"%grym context open {tmp_path / 'context.db'}").checked().result_text or ""
    assert "context: 3 items" in shown and f"in {tmp_path / 'context.db'}" in shown
    assert (
        kernel.run("grym.current().context.get(first.id) == first, ctx.closed").result_text == "(True, True)"
    )
    kernel.run("%grym context put style 'fast and bright' durable=true").checked()
    assert kernel.run("[event.item.content for event in heard]").result_text == "['fast and bright']"
    with ContextStore(tmp_path / "context.db") as store:
        assert store.latest("tempo", "song-1").content == {"bpm": 120.0}
        assert store.latest("style").content == "fast and bright"


# -- the list that follows -------------------------------------------------------------------------


def _wait(kernel: Kernel, reply: Reply, wanted: Callable[[str], bool], *, at: int = 0) -> str:
    """Take messages until what a cell shows is as wanted."""
    kernel._pump(lambda: wanted(reply.displays[at]["text/plain"]), reply, None)
    return str(reply.displays[at]["text/plain"])


def test_a_watch_follows_under_its_cell(ready: Kernel) -> None:
    """While later cells run and after them, what fits and nothing else, the newest first."""
    shown = ready.run("%grym context watch type=tempo")
    assert shown.displays[0]["text/plain"] == "context, live (type=tempo): nothing yet"
    assert shown.result_text is None
    busy = ready.run_async(
        "new = ctx.put({'bpm': 60.0}, type='tempo', key='song-3', priority='critical')\n"
        "ctx.put('no', type='style')\n"
        "threading.Event().wait(60)"
    )
    text = _wait(ready, shown, lambda text: "song-3" in text)
    assert not busy.done  # so it came while the cell was busy
    ready.interrupt()
    ready.wait(busy)
    lines = [line.split() for line in text.splitlines()]
    assert text.startswith("context, live (type=tempo)\nat ") and len(lines) == 4
    assert re.fullmatch(r"\d\d:\d\d:\d\d", lines[3][0])
    assert lines[3][1] == "put" and lines[3][2].startswith("ctx-")
    assert lines[3][3:] == ["tempo", "song-3", "critical"]
    ready.run("ctx.update(new.id, {'bpm': 61.0}); ctx.delete(new.id);").checked()
    text = _wait(ready, shown, lambda text: "deleted" in text)
    assert [line.split()[1] for line in text.splitlines()[3:]] == ["deleted", "updated", "put"]
    html = shown.displays[0]["text/html"]
    assert html.startswith('<table class="grym-table"><caption>context, live (type=tempo)</caption>')
    assert ready.run("%grym context watch off").result_text == "1 watch has ended"
    assert _wait(ready, shown, lambda text: "ended" in text).startswith("context, ended (type=tempo)\n")


def test_of_many_things_at_once_the_last_are_shown_in_few_updates(ready: Kernel) -> None:
    """At most five a second, and the last state in the end."""
    shown = ready.run("%grym context watch kinds=put,deleted")
    before = _updates(ready)
    began = time.perf_counter()
    ready.run("for n in range(1000): ctx.put(n, type='number', key=str(n))\nctx.delete(first.id);").checked()
    text = _wait(ready, shown, lambda text: "song-1" in text)
    took = time.perf_counter() - began
    keys = [line.split()[4] for line in text.splitlines()[3:]]
    assert keys == ["song-1", *(str(n) for n in range(999, 980, -1))]
    assert 1 <= _updates(ready) - before <= took / 0.2
    ready.run("%grym context watch off")


def _updates(kernel: Kernel) -> int:
    """Return how many updates of displays have come."""
    messages = [kernel.stray, *(reply.messages for reply in kernel._replies.values())]
    return sum(kind == "update_display_data" for some in messages for kind, _ in some)


def test_the_same_watch_again_goes_on_in_its_new_place(ready: Kernel) -> None:
    """The earlier one ends, and what it heard is kept; another watch is not touched."""
    first = ready.run("%grym context watch type=tempo")
    other = ready.run("%grym context watch")
    ready.run("ctx.put(1, type='tempo', key='one');").checked()
    _wait(ready, first, lambda text: "one" in text)
    again = ready.run("%grym context watch type=tempo")
    assert "context, live (type=tempo)" in again.displays[0]["text/plain"]
    assert "one" in again.displays[0]["text/plain"]
    ready.run("ctx.put(2, type='tempo', key='two');").checked()
    _wait(ready, again, lambda text: "two" in text)
    assert "two" not in _wait(ready, first, lambda text: "ended" in text)
    assert "two" in _wait(ready, other, lambda text: "two" in text)
    assert ready.run("%grym context watch off").result_text == "2 watches have ended"


def test_a_watch_is_an_object_that_can_be_kept_and_shown_later(ready: Kernel) -> None:
    """Then it is shown where it is looked at, and follows there."""
    assert ready.run("feed = %grym context watch").outputs == []
    ready.run("ctx.put(1, type='tempo', key='early');").checked()
    shown = ready.run("feed")
    assert "early" in shown.displays[0]["text/plain"]
    ready.run("ctx.put(1, type='tempo', key='late');").checked()
    _wait(ready, shown, lambda text: "late" in text)
    assert ready.run("feed.live, feed.close(), feed.close(), feed.live, len(feed.lines)").result_text == (
        "(True, True, False, False, 2)"
    )


def test_unloading_ends_watches(kernel: Kernel) -> None:
    """Nothing hears any more, and what is shown says so."""
    kernel.run("%load_ext grym_nb\n" + ITEMS).checked()
    shown = kernel.run("%grym context watch")
    kernel.run("ctx.put(1, type='tempo', key='heard');").checked()
    _wait(kernel, shown, lambda text: "heard" in text)
    assert kernel.run("%unload_ext grym_nb").outputs == []
    _wait(kernel, shown, lambda text: text.startswith("context, ended"))
    told = kernel.run("from grym_nb.events import ItemPut\ngrym.current().events.wants(ItemPut)")
    assert told.result_text == "False"
    kernel.run("%load_ext grym_nb")
    assert kernel.run("%grym context watch off").result_text == "0 watches have ended"


# -- the same in this process ----------------------------------------------------------------------


class Page:
    """What a page shows of a feed, and the updates that are asked for and not done yet."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, bool]] = []
        self.asked: list[Callable[[], None]] = []
        self.broken = False
        self.meanwhile: Callable[[], object] = lambda: None

    def display(self, bundle: dict[str, str], id: str, update: bool) -> None:
        """Show it, unless nobody is there any more."""
        if self.broken:
            raise OSError("the socket is closed")
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        self.shown.append((bundle["text/plain"], update))

    def update(self) -> None:
        """Do what was asked for."""
        self.asked.pop()()


@pytest.fixture
def page() -> Page:
    """An empty page."""
    return Page()


@pytest.fixture
def feed(page: Page, runtime: Runtime) -> Feed:
    """A feed of everything."""
    made = Feed("", page.display, page.asked.append)
    made.watch = runtime.context.watch(made.hear)
    return made


def test_what_is_not_shown_is_not_updated(feed: Feed, page: Page, runtime: Runtime) -> None:
    """Heard all the same."""
    runtime.context.put(1, type="note")
    assert (page.asked, page.shown, len(feed.lines)) == ([], [], 1)


def test_one_update_is_asked_for_at_a_time(feed: Feed, page: Page, runtime: Runtime) -> None:
    """It shows whatever came until it is done; and there is no other until something happens."""
    feed._ipython_display_()
    for n in range(5):
        runtime.context.put(n, type="note", key=f"k{n}")
    assert len(page.asked) == 1
    page.update()
    assert page.asked == [] and len(page.shown) == 2
    assert "k4" in page.shown[-1][0] and page.shown[-1][1]


def test_what_comes_while_it_is_being_shown_is_shown_next(feed: Feed, page: Page, runtime: Runtime) -> None:
    """The first time and at each update: the last state comes last."""
    page.meanwhile = lambda: runtime.context.put(1, type="note", key="one")
    feed._ipython_display_()
    assert "one" not in page.shown[-1][0] and len(page.asked) == 1
    page.meanwhile = lambda: runtime.context.put(1, type="note", key="two")
    page.update()
    assert "two" not in page.shown[-1][0] and len(page.asked) == 1
    page.update()
    assert "two" in page.shown[-1][0] and page.asked == []


def test_a_page_that_is_gone_ends_it(feed: Feed, page: Page, runtime: Runtime) -> None:
    """Quietly, and whoever puts something does not feel it."""
    feed._ipython_display_()
    runtime.context.put(1, type="note")
    page.broken = True
    page.update()
    assert not feed.live and page.asked == []
    runtime.context.put(2, type="note")
    assert len(feed.lines) == 1


def test_a_runtime_that_is_closed_ends_it(shell: InteractiveShell) -> None:
    """No update can be asked for then; it can still be looked at."""
    shell.kernel = object()
    with Runtime() as runtime:
        feed = feed_of(shell, runtime, {})
        feed._ipython_display_()
    feed.hear(_event(runtime))
    assert not feed.live and len(feed.lines) == 1
    assert end_feeds(shell) == 0
    del shell.kernel


def _event(runtime: Runtime) -> Any:
    from grym_nb.events import ItemPut

    with Runtime() as other:
        return ItemPut(0.0, other.context.put(1, type="note"))


def test_it_is_small_whatever_is_in_the_store(feed: Feed, runtime: Runtime) -> None:
    """Long names are cut, markup is escaped, and nothing but text is held."""
    for n in range(30):
        runtime.context.put(bytes(100), type="<b>" * 400, key=f"{n}\n" * 400)
    assert len(feed.lines) == 20
    html = feed._repr_html_()
    assert len(html.encode()) < 20_000 and "<b>" not in html
    assert len(repr(feed).splitlines()) == 3 + 20
    assert {type(part) for line in feed.lines for part in line} == {str}


def test_a_terminal_prints_when_it_is_asked(
    shell: InteractiveShell, runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not by itself."""
    install(shell)
    feed = shell.run_line_magic("grym", "context watch type=note")
    shell.displayhook.quiet = lambda: False
    feed._ipython_display_()
    assert capsys.readouterr().out == "context, live (type=note): nothing yet\n"
    runtime.context.put(1, type="note", key="one")
    assert capsys.readouterr().out == ""
    assert "one" in repr(feed)
    again = shell.run_line_magic("grym", "context watch type=note")
    assert "one" in repr(again) and (feed.live, again.live) == (False, True)
    uninstall(shell)
    assert not again.live
    assert capsys.readouterr().out == ""


def test_items_that_expire_are_told(shell: InteractiveShell) -> None:
    """By the sweep, with the time at which it came by."""
    clock = FakeClock(1000.0)
    with Runtime(clock=clock) as runtime:
        feed = feed_of(shell, runtime, {"kinds": ("expired",)})
        runtime.context.put(1, type="note", ttl=5)
        clock.advance(6)
        runtime.context.sweep()
        assert [line[1] for line in feed.lines] == ["expired"]
        assert repr(feed).startswith("context, live (kinds=expired)\n")
        end_feeds(shell)


def test_updates_come_from_a_thread_of_ours(shell: InteractiveShell, runtime: Runtime) -> None:
    """Whoever puts something goes on at once."""
    seen: list[str] = []
    updated = threading.Event()

    def publish(data: dict[str, str], *, transient: dict[str, str], update: bool) -> None:
        seen.append(threading.current_thread().name)
        if update:
            updated.set()

    shell.kernel = object()
    shell.display_pub.publish = publish
    feed = feed_of(shell, runtime, {})
    feed._ipython_display_()
    runtime.context.put(1, type="note")
    assert updated.wait(30)
    assert seen[0] == threading.current_thread().name and seen[1].startswith("grym-work")
    end_feeds(shell)
    del shell.kernel


# -- Tab -------------------------------------------------------------------------------------------

FILTERS = ["type=", "key=", "tags=", "any_tags=", "source=", "min_priority=", "workflow=", "task="]


@pytest.mark.parametrize(
    ("line", "texts"),
    [
        ("context ", list(ACTIONS)),
        ("context l", ["list"]),
        ("context list ", [*FILTERS, "since=", "until=", "order=", "limit="]),
        ("context list type=tempo t", ["tags=", "task="]),
        ("context list type=", ["type=style", "type=tempo"]),
        ("context list type=t", ["type=tempo"]),
        ("context list key=", ["key=42", "key=song-2", "key=song-1"]),
        ("context list min_priority=h", ["min_priority=high"]),
        ("context list tags=", []),
        ("context list type=$cl", ["type=$clip"]),
        ("context get ", ["style", "tempo", "ID3", "ID2", "ID1", "ID0", "key="]),
        ("context get tempo ", ["song-2", "song-1", "key="]),
        ("context get tempo song-1 ", ["key="]),
        ("context get tempo -", ["-o", "--out"]),
        ("context get tempo -o c", ["clip"]),
        ("context get tempo -o ", ["clip"]),
        (
            "context put ",
            ["style", "tempo", *PUT] if (PUT := [f"{n}=" for n in ACTIONS["put"].names]) else [],
        ),
        ("context put tempo $", ["$clip"]),
        ("context put tempo $clip p", ["priority=", "pinned="]),
        ("context put tempo $clip priority=c", ["priority=critical"]),
        ("context rm ", ["ID3", "ID2", "ID1", "ID0"]),
        ("context rm ID1 ", ["ID3", "ID2", "ID0"]),
        ("context clear -", ["--all"]),
        ("context stats ", []),
        ("context stats -", []),
        ("context watch ", ["off", *FILTERS, "kinds="]),
        ("context watch type=tempo o", []),
        ("context nothing ", []),
    ],
)
def test_what_is_offered(runtime: Runtime, line: str, texts: list[str]) -> None:
    """Actions, then ids, types and keys of the store, then names of filters; contents are not looked at."""
    store = runtime.context
    put = [
        store.put(Untouchable(), type="tempo", key="song-1"),
        store.put(Untouchable(), type="tempo", key="song-2"),
        store.put(Untouchable(), type="style", key="42"),
        store.put(Untouchable(), type="style", key="two words"),
    ]
    ids = {f"ID{n}": item.id for n, item in enumerate(put)}
    line = " ".join(ids.get(word, word) for word in line.split(" "))
    assert offers(line, variables=["clip"])[1] == [ids.get(text, text) for text in texts]


class Untouchable:
    """Something that may be kept and not looked at by Tab."""

    nbytes = 1

    def __repr__(self) -> str:
        raise AssertionError("it was looked at")


def test_tab_makes_no_store(runtime: Runtime) -> None:
    """Where nobody has put anything, nothing is there to be offered."""
    assert offers("context get ")[1] == ["key="]
    assert runtime._context is None


def test_a_front_end_gets_them_through_the_kernel(ready: Kernel) -> None:
    """With the place they are to stand in."""
    code = "%grym context get te"
    found = ready.complete(code)
    assert (found.matches, code[found.start : found.end]) == (("tempo",), "te")


def test_the_errors_are_those_of_the_house(shell: InteractiveShell, runtime: Runtime) -> None:
    """Typed, for programs."""
    with pytest.raises(CommandError, match="which item"):
        act(shell, ["get"])
    with pytest.raises(ItemNotFound):
        act(shell, ["get", "nothing"])


def test_a_cell_that_waits_for_what_happens_can_be_interrupted(ready: Kernel) -> None:
    waiting = ready.run_async(
        "watching = ctx.watch()\nprint('waits')\nasync for event in watching:\n    print('heard')"
    )
    ready.wait_for("waits")
    ready.interrupt()
    assert ready.wait(waiting, timeout=30).error is not None
    ready.run("ctx.put(1, type='x'); watching.next(5).item.type").checked()
