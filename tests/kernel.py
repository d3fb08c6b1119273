"""A real kernel to run cells in: what a front end would send, what a front end would get.

::

    with Kernel() as kernel:
        reply = kernel.run("%load_ext grym_nb")
        assert reply.error is None
        job = kernel.run_async("print('on'); slow()")     # the cell is left running
        kernel.wait_for("on")
        kernel.interrupt()                                # SIGINT to the group, as Jupyter does
        assert kernel.wait().error.ename == "KeyboardInterrupt"

Every kernel has its own Jupyter and IPython directories, talks over sockets in a temporary folder (no
ports to fight for), may not read stdin, and is gone with its whole process group at the end.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

__all__ = ["CellError", "Completion", "Kernel", "KernelDied", "Reply"]

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_SLICE = 0.25  # how long one wait for a message lasts before the kernel is asked whether it lives


class KernelDied(RuntimeError):
    """The kernel's process ended while a cell was waited for; the message has the end of its log."""


class CellError(NamedTuple):
    """What a cell raised, as the front end was told: `traceback` is its lines, colours removed."""

    ename: str
    evalue: str
    traceback: tuple[str, ...]


class Completion(NamedTuple):
    """What may stand between `start` and `end` of the code that was completed."""

    matches: tuple[str, ...]
    start: int
    end: int


@dataclass
class Reply:
    """What came of one cell. While the cell runs it grows, whenever its kernel is waited for.

    `outputs` is what a notebook would keep (updated displays updated, cleared ones gone); `messages` is
    every iopub message as (type, content), comm messages included.
    """

    code: str
    outputs: list[dict[str, Any]] = field(default_factory=list)
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    execution_count: int | None = None
    started: bool = False
    done: bool = False

    @property
    def stdout(self) -> str:
        """All that was printed."""
        return self._stream("stdout")

    @property
    def stderr(self) -> str:
        """All that was printed to stderr."""
        return self._stream("stderr")

    @property
    def result(self) -> dict[str, Any]:
        """The mime bundle of the cell's value; empty when it has none."""
        kept = [o["data"] for o in self.outputs if o["output_type"] == "execute_result"]
        return dict(kept[-1]) if kept else {}

    @property
    def result_text(self) -> str | None:
        """The text/plain of the cell's value."""
        return self.result.get("text/plain")

    @property
    def result_html(self) -> str | None:
        """The text/html of the cell's value."""
        return self.result.get("text/html")

    @property
    def displays(self) -> list[dict[str, Any]]:
        """The mime bundles of what was displayed, in order."""
        return [o["data"] for o in self.outputs if o["output_type"] == "display_data"]

    @property
    def error(self) -> CellError | None:
        """What the cell raised, or None."""
        for output in self.outputs:
            if output["output_type"] == "error":
                plain = _ANSI.sub("", "\n".join(output["traceback"]))
                return CellError(output["ename"], output["evalue"], tuple(plain.splitlines()))
        return None

    def checked(self) -> Self:
        """Return this reply when the cell raised nothing; else fail with its traceback."""
        if self.error is not None:
            raise AssertionError("\n".join(["the cell failed:", self.code, *self.error.traceback]))
        return self

    def _stream(self, name: str) -> str:
        return "".join(o["text"] for o in self.outputs if o["output_type"] == "stream" and o["name"] == name)


class _Manager(KernelManager):
    """Starts this very interpreter, whatever kernels are installed on the machine."""

    @property
    def kernel_spec(self) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="grym_nb tests", language="python")


def _pid_of(manager: KernelManager) -> int | None:
    pid: int | None = getattr(manager.provisioner, "pid", None)
    return pid


class Kernel:
    """A running ipykernel and its client; a context manager.

    `env` is added to the environment, `cwd` is where the kernel runs (here when not given), `args` go to
    the kernel's command line, e.g. ``("--InteractiveShellApp.extensions=grym_nb",)``.
    """

    def __init__(
        self,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        args: tuple[str, ...] = (),
        timeout: float = 60.0,
    ) -> None:
        self.timeout = timeout
        #: iopub messages that belong to no cell of ours, as (type, content)
        self.stray: list[tuple[str, dict[str, Any]]] = []
        self._env = dict(env or {})
        self._cwd = str(cwd or Path.cwd())
        self._args = list(args)
        self._replies: dict[str, Reply] = {}
        self._last: Reply | None = None
        self._home: Path | None = None
        self._manager: _Manager | None = None
        self._client: BlockingKernelClient | None = None

    def __repr__(self) -> str:
        return f"<Kernel pid={self._pid_or_none()} cells={len(self._replies)}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The kernel's process id."""
        pid = self._pid_or_none()
        assert pid is not None, "the kernel is not running"
        return pid

    @property
    def home(self) -> Path:
        """The temporary folder that holds the kernel's Jupyter and IPython directories and its log."""
        assert self._home is not None, "the kernel is not running"
        return self._home

    @property
    def alive(self) -> bool:
        """Whether the kernel's process runs."""
        return self._manager is not None and bool(self._manager.is_alive())

    @property
    def log(self) -> str:
        """What the kernel's process wrote to its own stdout and stderr (crashes, forked children)."""
        return (self.home / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start the process and wait until it answers."""
        assert self._manager is None, "the kernel runs already"
        # Not under pytest's tmp_path: a socket's path may not be longer than about 100 characters.
        self._home = Path(tempfile.mkdtemp(prefix="grym-k-"))
        try:
            self._manager = _Manager(transport="ipc", ip=str(self._home / "s"), shutdown_wait_time=5.0)
            self._manager.connection_file = str(self._home / "kernel.json")
            with (self._home / "log").open("wb") as log:
                self._manager.start_kernel(
                    env=self._environment(),
                    cwd=self._cwd,
                    extra_arguments=self._args,
                    stdout=log.fileno(),
                    stderr=log.fileno(),
                )
            self._connect()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the kernel, politely if it listens, and whatever else is left of its group."""
        client, self._client = self._client, None
        manager, self._manager = self._manager, None
        home, self._home = self._home, None
        if client is not None:
            client.stop_channels()
        if manager is not None:
            pid = _pid_of(manager)
            if manager.has_kernel:
                # A kernel in the middle of a cell would not read the request before the time is up.
                manager.shutdown_kernel(now=self._last is not None and not self._last.done)
            if pid is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
            manager.cleanup_resources()
        if home is not None:
            shutil.rmtree(home, ignore_errors=True)

    def run(self, code: str, *, timeout: float | None = None, store_history: bool = True) -> Reply:
        """Run a cell to its end and return what came of it."""
        reply = self._send(code, store_history=store_history)
        return self.wait(reply, timeout=timeout)

    def run_async(self, code: str, *, timeout: float | None = None) -> Reply:
        """Start a cell and return as soon as the kernel has begun it (or has it in its queue)."""
        waits = self._last is None or self._last.done
        reply = self._send(code)
        if waits:
            self._pump(lambda: reply.started or reply.done, reply, timeout)
        return reply

    def wait(self, reply: Reply | None = None, *, timeout: float | None = None) -> Reply:
        """Wait until `reply` (the latest cell's when not given) is done, and return it."""
        reply = reply or self._latest()
        self._pump(lambda: reply.done, reply, timeout)
        return reply

    def wait_for(
        self,
        wanted: str | Callable[[Reply], object],
        reply: Reply | None = None,
        *,
        timeout: float | None = None,
    ) -> Reply:
        """Wait until a text was printed by a running cell, or until `wanted(reply)` holds."""
        reply = reply or self._latest()

        def seen() -> bool:
            if callable(wanted):
                return bool(wanted(reply))
            return wanted in reply.stdout or wanted in reply.stderr

        self._pump(lambda: seen() or reply.done, reply, timeout)
        assert seen(), f"the cell ended without {wanted!r}: {reply}"
        return reply

    def interrupt(self) -> None:
        """Send SIGINT to the kernel's process group, as the stop button does."""
        assert self._manager is not None, "the kernel is not running"
        self._manager.interrupt_kernel()

    def restart(self) -> None:
        """Kill the process and start another one with the same connection; what ran is given up."""
        assert self._manager is not None, "the kernel is not running"
        assert self._client is not None
        self._client.stop_channels()
        self._manager.restart_kernel(now=True)
        for reply in self._replies.values():
            reply.done = True
        self._replies.clear()
        self._last = None
        self._connect()

    def complete(self, code: str, pos: int | None = None, *, timeout: float | None = None) -> Completion:
        """Return what Tab offers at `pos` (the end when not given)."""
        content = self._ask("complete", code, len(code) if pos is None else pos, timeout=timeout)
        return Completion(tuple(content["matches"]), content["cursor_start"], content["cursor_end"])

    def inspect(self, code: str, pos: int | None = None, *, timeout: float | None = None) -> str:
        """Return the text that Shift-Tab or ``name?`` shows at `pos`; empty when there is none."""
        content = self._ask("inspect", code, len(code) if pos is None else pos, timeout=timeout)
        return _ANSI.sub("", content["data"].get("text/plain", ""))

    def send_comm(self, comm_id: str, data: dict[str, Any]) -> Reply:
        """Send a message up a comm, as a widget in the page would; wait for what the kernel makes of it."""
        assert self._client is not None
        message = self._client.session.msg("comm_msg", {"comm_id": comm_id, "data": data})
        reply = self._expect(message["header"]["msg_id"], f"<comm {comm_id}>")
        self._client.shell_channel.send(message)
        self._pump(lambda: reply.done, reply, None)
        return reply

    def _environment(self) -> dict[str, str]:
        home = self.home
        own = {
            "IPYTHONDIR": str(home / "ipython"),
            "JUPYTER_CONFIG_DIR": str(home / "config"),
            "JUPYTER_DATA_DIR": str(home / "data"),
            "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
            "JUPYTER_NO_CONFIG": "1",
            "JUPYTER_PLATFORM_DIRS": "1",
        }
        return {**os.environ, **own, **self._env}

    def _connect(self) -> None:
        assert self._manager is not None
        self._client = self._manager.client()
        self._client.start_channels(stdin=False, hb=False)
        try:
            self._client.wait_for_ready(timeout=self.timeout)
        except RuntimeError as error:
            raise KernelDied(f"{error}\n{self.log[-2000:]}") from None

    def _pid_or_none(self) -> int | None:
        return None if self._manager is None else _pid_of(self._manager)

    def _latest(self) -> Reply:
        assert self._last is not None, "no cell was run"
        return self._last

    def _expect(self, msg_id: str, code: str) -> Reply:
        reply = self._replies[msg_id] = Reply(code)
        return reply

    def _send(self, code: str, *, store_history: bool = True) -> Reply:
        assert self._client is not None, "the kernel is not running"
        msg_id = self._client.execute(
            code, store_history=store_history, allow_stdin=False, stop_on_error=False
        )
        self._last = self._expect(msg_id, code)
        return self._last

    def _ask(self, what: str, code: str, pos: int, *, timeout: float | None) -> dict[str, Any]:
        assert self._client is not None, "the kernel is not running"
        msg_id = getattr(self._client, what)(code, pos)
        reply = self._expect(msg_id, code)
        self._pump(lambda: reply.done, reply, timeout)
        while True:
            message = self._client.get_shell_msg(timeout=timeout or self.timeout)
            if message["parent_header"].get("msg_id") == msg_id:
                content: dict[str, Any] = message["content"]
                assert content["status"] == "ok", content
                return content

    def _pump(self, until: Callable[[], bool], reply: Reply, timeout: float | None) -> None:
        """Take messages off iopub until `until()` holds."""
        assert self._client is not None, "the kernel is not running"
        limit = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + limit
        while not until():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"nothing after {limit:g} s from: {reply}")
            try:
                message = self._client.get_iopub_msg(timeout=min(left, _SLICE))
            except queue.Empty:
                if not self.alive:
                    raise KernelDied(f"while it ran: {reply.code}\n{self.log[-2000:]}") from None
            else:
                self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        kind, content = message["msg_type"], message["content"]
        reply = self._replies.get(message["parent_header"].get("msg_id", ""))
        if kind == "update_display_data":
            self._update(content)
        if reply is None:
            self.stray.append((kind, content))
            return
        reply.messages.append((kind, content))
        if kind == "status":
            reply.done = reply.done or content["execution_state"] == "idle"
        elif kind == "execute_input":
            reply.started = True
            reply.execution_count = content["execution_count"]
        else:
            _keep(reply.outputs, kind, content)

    def _update(self, content: dict[str, Any]) -> None:
        shown = content["transient"].get("display_id")
        for reply in self._replies.values():
            for output in reply.outputs:
                if output.get("display_id") == shown:
                    output["data"], output["metadata"] = content["data"], content["metadata"]


def _keep(outputs: list[dict[str, Any]], kind: str, content: dict[str, Any]) -> None:
    """Do to the cell's outputs what a front end does with a message."""
    if outputs and outputs[-1]["output_type"] == "clear_on_next" and kind != "clear_output":
        outputs.clear()
    if kind == "clear_output":
        if content.get("wait"):
            outputs.append({"output_type": "clear_on_next"})
        else:
            outputs.clear()
    elif kind == "stream":
        last = outputs[-1] if outputs else {}
        if last.get("name") == content["name"]:
            last["text"] += content["text"]
        else:
            outputs.append({"output_type": "stream", "name": content["name"], "text": content["text"]})
    elif kind in ("display_data", "execute_result"):
        told = {"output_type": kind, "data": content["data"], "metadata": content["metadata"]}
        if display_id := content.get("transient", {}).get("display_id"):
            told["display_id"] = display_id
        outputs.append(told)
    elif kind == "error":
        told = {key: content[key] for key in ("ename", "evalue", "traceback")}
        outputs.append({"output_type": "error", **told})
