"""Metrics over HTTP, for a Prometheus on the same machine: one page, one thread, behind a token.

::

    endpoint = serve(metrics, port=9477, token="...")

and in prometheus.yml::

    scrape_configs:
      - job_name: grym
        authorization: {credentials: "..."}
        static_configs: [{targets: ["127.0.0.1:9477"]}]
"""

from __future__ import annotations

import hmac
import logging
import os
import re
import selectors
import socket
import threading
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from math import inf
from typing import NamedTuple, Self

from grym_nb.clock import monotonic
from grym_nb.errors import ConfigError, Problem
from grym_nb.metrics.export import openmetrics, prometheus
from grym_nb.metrics.series import Metrics
from grym_nb.render import brief

__all__ = ["Endpoint", "serve"]

_log = logging.getLogger(__name__)

_HOME = "127.0.0.1"
_PATH = "/metrics"
_MOST_CLIENTS = 16
_MOST_HEAD = 16 * 1024  # bytes of a request
_PATIENCE = 0.1  # seconds of rest when the system has no more sockets
_END = b"\r\n\r\n"


def serve(
    metrics: Metrics,
    *,
    port: int = 0,
    token: str | None = None,
    summary: bool = False,
    timeout: float = 10.0,
) -> Endpoint:
    """Return an endpoint that answers on 127.0.0.1: any free port and a random token, unless they are given.

    A client has `timeout` seconds for all of a request. `summary` is that of `prometheus`.
    """
    problems = []
    given: object = metrics
    if not isinstance(given, Metrics):
        problems.append(Problem("metrics", brief(metrics), "a Metrics, such as grym.current().metrics"))
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port < 2**16:
        problems.append(Problem("port", repr(port), "0 for any, or a number up to 65535"))
    if token is not None and not (isinstance(token, str) and re.fullmatch(r"[!-~]+", token)):
        problems.append(
            Problem("token", "one with other characters, or empty", "visible ASCII without spaces")
        )
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < inf:
        problems.append(Problem("timeout", repr(timeout), "a positive number of seconds"))
    if problems:
        raise ConfigError("metrics cannot be served", problems=problems)
    if token is None:
        from secrets import token_urlsafe

        token = token_urlsafe(24)
    listener = _listen(port)
    try:
        loop = _Loop(listener, partial(_answer, metrics=metrics, token=token, summary=summary), timeout)
        return Endpoint(loop, token)
    except BaseException:
        listener.close()
        raise


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would let others take the port from us
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_HOME, port))
        listener.listen(_MOST_CLIENTS)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        problem = Problem("port", f"{port}: {error.strerror}", "a free one, or 0 for any")
        raise ConfigError("metrics cannot be served", problems=[problem]) from error
    return listener


class Endpoint:
    """Serves a `Metrics` at `url` until it is closed; a context manager.

    Whoever scrapes it needs `token`, as ``Authorization: Bearer``. A forgotten one says so with a
    ResourceWarning.
    """

    def __init__(self, loop: _Loop, token: str) -> None:
        self.token = token
        self.port = loop.port
        self.url = f"http://{_HOME}:{loop.port}{_PATH}"
        self._lifeline = loop.lifeline
        self._owner = os.getpid()
        # The thread knows the loop only, so that a forgotten endpoint is collected.
        self._thread = threading.Thread(target=loop.run, name="grym-scrape", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._let_go()
            if not self._thread.is_alive():
                loop.close()
            raise

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._lifeline.fileno() < 0

    def close(self) -> None:
        """Stop serving, drop all clients and free the port. Doing so twice changes nothing."""
        self._let_go()
        if self._owner == os.getpid() and self._thread is not threading.current_thread():
            self._thread.join()

    def _let_go(self) -> None:
        with suppress(OSError):  # closed already
            if self._owner == os.getpid():
                # A process that was forked meanwhile holds the line too: closing alone would not end it.
                self._lifeline.shutdown(socket.SHUT_RDWR)
        self._lifeline.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        lifeline = getattr(self, "_lifeline", None)
        if lifeline is not None and lifeline.fileno() >= 0:
            told = f"{self!r} was forgotten; close() it"
            self._let_go()
            warnings.warn(told, ResourceWarning, stacklevel=2)

    def __repr__(self) -> str:
        return f"<Endpoint: {'closed' if self.closed else self.url}>"


# -- sockets -------------------------------------------------------------------------------------------


class _Client:
    """One connection: first its request is read, then `reply` written, then its end awaited."""

    __slots__ = ("due", "head", "reply", "socket")

    def __init__(self, connection: socket.socket, due: float) -> None:
        self.socket = connection
        self.due = due
        self.head = b""
        self.reply: memoryview | None = None


class _Loop:
    """Serves all clients from one thread, each only when it is ready, so that none keeps another waiting.

    It ends when its lifeline does.
    """

    def __init__(self, listener: socket.socket, answer: Callable[[bytes], bytes], timeout: float) -> None:
        self.port: int = listener.getsockname()[1]
        self.lifeline, self._far_end = socket.socketpair()
        self._far_end.settimeout(_PATIENCE)
        self._listener = listener
        self._answer = answer
        self._timeout = timeout
        self._clients: dict[_Client, None] = {}  # the oldest first
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._far_end, selectors.EVENT_READ)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def run(self) -> None:
        """Serve until the lifeline ends."""
        try:
            while (ready := self._ready()) is not None:
                for step in ready:
                    step()
                self._expire()
        finally:
            self.close()

    def close(self) -> None:
        """Drop all clients and free the port."""
        for client in list(self._clients):
            self._drop(client)
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # a forked process would keep the port
        for each in (self._listener, self._far_end, self._selector):
            each.close()

    def _ready(self) -> list[Callable[[], None]] | None:
        """Wait for what can be done next; None when the lifeline has ended."""
        due = min([client.due for client in self._clients], default=None)
        events = self._selector.select(None if due is None else max(0.0, due - monotonic()))
        steps = [key.data for key, _ in events]
        return None if None in steps else steps

    def _expire(self) -> None:
        now = monotonic()
        for client in [client for client in self._clients if client.due <= now]:
            self._drop(client)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # it has gone again
        except OSError as error:
            _log.debug("no client can be served now: %s", error)
            with suppress(OSError):
                self._far_end.recv(1)  # the lifeline's end is the one thing to wait for
            return
        connection.setblocking(False)
        if len(self._clients) >= _MOST_CLIENTS:
            self._drop(next(iter(self._clients)))
        client = _Client(connection, monotonic() + self._timeout)
        self._clients[client] = None
        self._selector.register(connection, selectors.EVENT_READ, partial(self._serve, client))

    def _serve(self, client: _Client) -> None:
        if client not in self._clients:
            return  # dropped for another, a step ago
        try:
            if client.reply is None:
                self._read(client)
            elif client.reply:
                self._write(client, client.reply)
            elif not client.socket.recv(4096):
                self._drop(client)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)

    def _read(self, client: _Client) -> None:
        came = client.socket.recv(4096)
        if not came:
            self._drop(client)
            return
        client.head += came
        if _END in client.head or len(client.head) > _MOST_HEAD:
            client.reply = memoryview(self._answer(client.head))
            self._selector.modify(client.socket, selectors.EVENT_WRITE, partial(self._serve, client))

    def _write(self, client: _Client, reply: memoryview) -> None:
        client.reply = reply[client.socket.send(reply) :]
        if not client.reply:
            # Closed at once, with something of the client's unread, the reply might be lost on its way.
            client.socket.shutdown(socket.SHUT_WR)
            self._selector.modify(client.socket, selectors.EVENT_READ, partial(self._serve, client))

    def _drop(self, client: _Client) -> None:
        del self._clients[client]
        self._selector.unregister(client.socket)
        client.socket.close()


# -- HTTP ----------------------------------------------------------------------------------------------


class _Request(NamedTuple):
    method: str
    path: str
    headers: Mapping[str, str]


_LINE = re.compile(r"([A-Z]+) (/[!-~]*) HTTP/1\.[01]")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\r\n\0]*)")
_LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)

#: a status that refuses: its name, what to do next, and a header that goes with it
_REFUSALS: Mapping[int, tuple[str, str, str]] = {
    400: ("Bad Request", "send an HTTP/1.1 request with one Host", ""),
    401: (
        "Unauthorized",
        "send the token as Authorization: Bearer",
        'WWW-Authenticate: Bearer realm="grym_nb"',
    ),
    403: ("Forbidden", "ask for 127.0.0.1 or localhost", ""),
    404: ("Not Found", f"ask for {_PATH}", ""),
    405: ("Method Not Allowed", "use GET or HEAD", "Allow: GET, HEAD"),
    431: ("Request Header Fields Too Large", f"send less than {_MOST_HEAD} bytes", ""),
    500: ("Internal Server Error", "see the kernel's log: the metrics could not be written", ""),
}

#: what is served: its media type, the version, and what writes it
_PAGES: Mapping[str, tuple[str, Callable[..., str]]] = {
    "application/openmetrics-text": ("1.0.0", openmetrics),
    "text/plain": ("0.0.4", prometheus),
}


def _answer(head: bytes, *, metrics: Metrics, token: str, summary: bool) -> bytes:
    """Return the whole response to a request that begins with `head`."""
    request = _parsed(head)
    if request is None:
        return _refusal(400 if _END in head else 431)
    if status := _refused(request, token):
        return _refusal(status, request.method)
    media = _chosen(request.headers.get("accept", ""))
    version, write = _PAGES[media]
    try:
        body = write(metrics, summary=summary).encode()
    except Exception:
        _log.exception("the metrics could not be written")
        return _refusal(500, request.method)
    headers = [f"Content-Type: {media}; version={version}; charset=utf-8", "Vary: Accept, Accept-Encoding"]
    if _wishes(request.headers.get("accept-encoding", "")).get("gzip"):
        import gzip

        body = gzip.compress(body, 5)
        headers.append("Content-Encoding: gzip")
    return _response("200 OK", headers, body, request.method)


def _refused(request: _Request, token: str) -> int | None:
    """Return the status that refuses a request; whoever has no token learns nothing else."""
    headers = request.headers
    if "host" not in headers:
        return 400
    if not _LOOPBACK.fullmatch(headers["host"]):
        return 403  # a page of some website, whose name was made to lead here
    scheme, _, given = headers.get("authorization", "").partition(" ")
    fits = hmac.compare_digest(given.strip().encode(), token.encode())
    if not fits or scheme.lower() != "bearer":
        return 401
    if request.path != _PATH:
        return 404
    return None if request.method in ("GET", "HEAD") else 405


def _parsed(head: bytes) -> _Request | None:
    """Return the request, None where it is not one, or where it could be read in two ways."""
    first, *lines = head.partition(_END)[0].decode("latin-1").split("\r\n")
    line = _LINE.fullmatch(first)
    if line is None or _END not in head:
        return None
    headers: dict[str, str] = {}
    for found in map(_HEADER.fullmatch, lines):
        if found is None:
            return None
        name, value = found[1].lower(), found[2].strip(" \t")
        if name in headers and name in ("host", "authorization"):
            return None
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return _Request(line[1], line[2].partition("?")[0], headers)


def _chosen(accept: str) -> str:
    wishes = _wishes(accept)
    plain = max([wishes.get(media, 0.0) for media in ("text/plain", "text/*", "*/*")])
    rich = wishes.get("application/openmetrics-text", 0.0)
    return "application/openmetrics-text" if rich and rich >= plain else "text/plain"


def _wishes(header: str) -> dict[str, float]:
    """Return what an Accept header lists, and how much of a wish it is; versions of others are not."""
    found: dict[str, float] = {}
    for wish in header.lower().split(","):
        name, *rest = [part.strip() for part in wish.split(";")]
        options = {key.strip(): value.strip(' "') for key, _, value in (part.partition("=") for part in rest)}
        quality = options.get("q", "1")
        ours = _PAGES[name][0] if name in _PAGES else None
        if options.get("version", ours) == ours and re.fullmatch(r"[01](\.\d{0,3})?", quality):
            found[name] = max(found.get(name, 0.0), float(quality))
    return found


def _refusal(status: int, method: str = "") -> bytes:
    name, advice, header = _REFUSALS[status]
    headers = ["Content-Type: text/plain; charset=utf-8", *([header] if header else [])]
    return _response(f"{status} {name}", headers, f"{name}: {advice}\n".encode(), method)


def _response(status: str, headers: list[str], body: bytes, method: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        *headers,
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    return "\r\n".join(lines).encode() + _END + (b"" if method == "HEAD" else body)
