"""`%grym dashboard`: the panels, live under the cell; one for each kernel, shown wherever it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from grym_nb.errors import CommandError, closest
from grym_nb.notebook.orders import Orders
from grym_nb.notebook.panels import VIEWS, Snapshot, sheet_of, take
from grym_nb.notebook.panels.sheets import Shown
from grym_nb.notebook.publisher import Publisher
from grym_nb.notebook.sheet import Sheet
from grym_nb.pulse import Workers

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from grym_nb.notebook.board import Board
    from grym_nb.runtime import Runtime

__all__ = ["Dashboard", "bundle_of", "dashboard", "end_dashboard", "shot", "views_of"]

_LINGER = 5.0
_AT_ONCE = 4  # actions
_WIDGET = "application/vnd.jupyter.widget-view+json"

_dashboards: dict[InteractiveShell, Dashboard] = {}


class Dashboard:
    """The panels of a runtime, live until `close`; a page shows them, and what a page asks for is done.

    To show it again is to show another view of the same. Where nobody draws it, it is a table of that moment.
    """

    def __init__(self, runtime: Runtime, views: Sequence[str], shell: InteractiveShell) -> None:
        from grym_nb.notebook.board import Board

        self._runtime = runtime
        self._shell = shell
        self._snapshot: Snapshot | None = None
        self.closed = False
        self._undo = ExitStack()
        self._workers = Workers("grym-dashboard", linger=_LINGER, most=_AT_ONCE)
        self._publishing = Workers("grym-publisher", linger=_LINGER, most=1)
        self.orders = Orders(runtime.registry, self._workers, lambda: self.publisher.poke())
        self.publisher = Publisher(self._look, self._send, lambda: self.board.send_state("full"))
        self.publisher.prime()  # before a page has it, so that its first paint is all of it
        self.board: Board = Board(self.publisher.whole, tuple(views))
        self._undo.callback(self.board.close)
        self.board.on_msg(self._heard)
        _let_through(self.board.comm)
        for moment, hook in (("pre_run_cell", self._begins), ("post_run_cell", self._ends)):
            shell.events.register(moment, hook)
            self._undo.callback(shell.events.unregister, moment, hook)
        self.publisher.busy(True)  # the cell that asks for it
        self.publisher.start(runtime.registry.ports.pulse, self._publishing)

    @property
    def views(self) -> tuple[str, ...]:
        """The panels that a place begins with in which it is shown from now on."""
        return tuple(self.board.panels)

    def of(self, runtime: Runtime) -> bool:
        """Tell whether it is live, and of this runtime."""
        return not self.closed and self._runtime is runtime

    def show(self, views: Sequence[str]) -> None:
        """Let whatever is shown from now on begin with these panels."""
        if tuple(views) != self.views:
            self.board.panels = list(views)

    def sheet(self) -> Sheet:
        """Return the same as it is now, as tables."""
        return shot(self._runtime, self.views)

    def close(self) -> None:
        """End it: no thread, no widget and no message is left. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self.publisher.close()
        self._publishing.close(1.0)
        self._undo.close()
        self._workers.close()
        if _dashboards.get(self._shell) is self:
            del _dashboards[self._shell]

    def __repr__(self) -> str:
        return "a dashboard that was closed" if self.closed else repr(self.sheet())

    def _repr_mimebundle_(self, **_: object) -> Mapping[str, Any]:
        if self.closed:
            return {"text/plain": repr(self)}
        bundle = bundle_of(self.sheet())
        model = {"version_major": 2, "version_minor": 0, "model_id": self.board.model_id}
        return {**bundle, _WIDGET: model}

    # -- inside ------------------------------------------------------------------------------------

    def _look(self) -> Mapping[str, Shown]:
        found = take(
            self._runtime,
            charted=self.orders.charted,
            doings=self.orders.doings,
            before=self._snapshot,
        )
        self._snapshot = found
        return {name: view(found) for name, view in VIEWS.items()}

    def _send(self, news: Mapping[str, Any]) -> None:
        self.board.news = dict(news)

    def _heard(self, _: object, message: object, buffers: object) -> None:
        if not isinstance(message, Mapping) or self.closed:
            return
        if message.get("do") == "seen":
            self.publisher.seen()
        elif message.get("do") == "full":
            self.publisher.resend()
        else:
            self.orders.take(message)

    def _begins(self, *_: object) -> None:
        self.publisher.busy(True)

    def _ends(self, *_: object) -> None:
        self.publisher.busy(False)


def _let_through(comm: Any) -> None:
    """Have messages of the page handled while a cell runs from the first one on, where the kernel can.

    ipykernel routes a comm's messages to where it sent from last, which is the cell; here each goes to the
    thread it was sent to.
    """
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda data, default: default


# -- as it is asked for ----------------------------------------------------------------------------


def views_of(names: Sequence[str]) -> tuple[str, ...]:
    """Return the panels of these names, all for none; an unknown one is an error that names the closest."""
    unknown = [name for name in names if name not in VIEWS]
    if unknown:
        known = ", ".join(VIEWS)
        raise CommandError(
            f"there is no panel {unknown[0]!r}.{closest(unknown[0], VIEWS)}", hint=f"these are: {known}"
        )
    return tuple(dict.fromkeys(names)) or tuple(VIEWS)


def shot(runtime: Runtime, names: Sequence[str]) -> Sheet:
    """Return panels as they are now, as tables."""
    found = take(runtime)
    return sheet_of({name: VIEWS[name](found) for name in names}, found.now)


def bundle_of(sheet: Sheet) -> dict[str, str]:
    """Return what is shown where nobody draws."""
    return {"text/plain": repr(sheet), "text/html": sheet._repr_html_()}


def dashboard(shell: InteractiveShell, runtime: Runtime, names: Sequence[str]) -> Dashboard | Sheet:
    """Return the kernel's dashboard, made when it is first asked for; where there is no page, tables."""
    views = views_of(names)
    if getattr(shell, "kernel", None) is None:
        return shot(runtime, views)
    there = _dashboards.get(shell)
    if there is not None and there.of(runtime):
        there.show(views)
        return there
    end_dashboard(shell)
    made = _dashboards[shell] = Dashboard(runtime, views, shell)
    return made


def end_dashboard(shell: InteractiveShell) -> bool:
    """End the dashboard of a shell; return whether there was one."""
    there = _dashboards.get(shell)
    if there is not None:
        there.close()
    return there is not None
