"""Where alerts go: the log, a webhook, a command. Each is a function of one notice.

What takes time is for `Alerts.tell`, which calls it on a thread that may wait.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from math import isfinite
from tempfile import TemporaryFile
from typing import IO, Any
from urllib.parse import urlsplit
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from grym_nb.errors import ConfigError, Problem
from grym_nb.health.notices import Notice
from grym_nb.render import brief

__all__ = ["as_json", "command", "log", "webhook"]

_log = logging.getLogger("grym_nb.alerts")
_log.addHandler(logging.NullHandler())  # a library writes nowhere unless it is told to
_HARMLESS = 12  # letters, of which no token is made
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.ERROR}


def log(notice: Notice) -> None:
    """Write each alert to the log `grym_nb.alerts`, at the level of its severity."""
    for alert in notice.alerts:
        level = _LEVELS[alert.severity] if alert.state == "firing" else logging.INFO
        _log.log(level, "%s", alert.text)


def webhook(url: str, *, timeout: float = 5.0, token: str | None = None) -> Callable[[Notice], None]:
    """Return a channel that posts each notice as JSON; what cannot be delivered is logged.

    All of it takes `timeout` seconds at most. With `token` it goes along as a bearer token. Redirects are
    followed as for any POST: not at all.
    """
    if (where := _told_of(url)) is None:
        problem = Problem(
            "url", brief(url), "http(s)://host or host:port, in ASCII, without spaces or a user"
        )
        raise ConfigError("nothing can be posted there", problems=[problem])
    _check_timeout(timeout)
    if token is not None and not (isinstance(token, str) and re.fullmatch(r"[!-~]+", token)):
        problem = Problem("token", "one with other characters, or empty", "visible ASCII without spaces")
        raise ConfigError("nothing can be posted so", problems=[problem])
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"

    def tell(notice: Notice) -> None:
        request = Request(url, data=as_json(notice).encode(), headers=headers, method="POST")
        try:
            _post(request, timeout)
        except (OSError, HTTPException, ValueError) as error:
            _log.warning("an alert could not be posted to %s: %s", where, error or repr(error))

    return tell


def _told_of(url: Any) -> str | None:
    """Return what may be told of a URL: host, port and path; None where nothing can be posted to it.

    Who may see the log need not know a query, or a part of the path that is long enough for a token, as those
    of most chats have it.
    """
    if not isinstance(url, str) or not re.fullmatch(r"[!-~]+", url):
        return None
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:  # a port that there cannot be, half an address
        return None
    if not fits or not parts.hostname or "@" in parts.netloc:  # urllib takes a user for a part of the host
        return None
    path = [part if len(part) <= _HARMLESS else "…" for part in parts.path.split("/")]
    return parts.netloc + "/".join(path)


class _NoRedirects(HTTPRedirectHandler):
    """Leaves a redirect what it is: an answer that is no good. Elsewhere nobody is to see the token."""

    def redirect_request(self, *_: Any) -> None:
        return None


class _Plain(HTTPHandler):
    """Opens connections that others can cut, which a server that drips would keep for ever."""

    def __init__(self, opened: list[HTTPConnection]) -> None:
        super().__init__()
        self._opened = opened

    def http_open(self, request: Request) -> HTTPResponse:
        def made(host: str, **options: Any) -> HTTPConnection:
            self._opened.append(HTTPConnection(host, **options))
            return self._opened[-1]

        return self.do_open(made, request)


class _Safe(HTTPSHandler):
    """The same for https."""

    def __init__(self, opened: list[HTTPConnection]) -> None:
        super().__init__()
        self._opened = opened

    def https_open(self, request: Request) -> HTTPResponse:
        def made(host: str, **options: Any) -> HTTPConnection:
            self._opened.append(HTTPSConnection(host, **options))
            return self._opened[-1]

        return self.do_open(made, request)


def _post(request: Request, timeout: float) -> None:
    """Post, and take no more of the answer than its head; all of it within so many seconds."""
    opened: list[HTTPConnection] = []
    late = threading.Event()

    def cut() -> None:
        late.set()
        for connection in opened:
            with suppress(OSError):
                # Not by its own method, which of a TLS socket takes apart what another thread reads from.
                socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)

    timer = threading.Timer(timeout, cut)
    timer.daemon = True
    timer.start()
    try:
        with build_opener(_NoRedirects, _Plain(opened), _Safe(opened)).open(request, timeout=timeout):
            pass
    except (OSError, HTTPException, ValueError):
        if not late.is_set():
            raise
    finally:
        timer.cancel()
    if late.is_set():  # also where what was cut reads as a short answer
        raise TimeoutError(f"no answer within {timeout:g} s")


def command(arguments: Sequence[str], *, timeout: float = 10.0) -> Callable[[Notice], None]:
    """Return a channel that runs a program for each notice, which reads it as JSON from its input.

    No shell sees any of it. A program that takes longer than `timeout` is ended, with all that it has begun;
    what it leaves running as it ends keeps nobody waiting.
    """
    given: Any = arguments
    if isinstance(given, str) or not given or not all(isinstance(one, str) and one for one in given):
        problem = Problem("arguments", brief(given), "a list of texts, such as ['notify-send', 'grym']")
        raise ConfigError("no program can be run so", problems=[problem])
    if shutil.which(given[0]) is None:
        problem = Problem("arguments", brief(given[0]), "a program that there is")
        raise ConfigError(f"there is no program {given[0]}", problems=[problem])
    _check_timeout(timeout)
    argv = list(arguments)

    def tell(notice: Notice) -> None:
        try:
            ended, said = _run(argv, as_json(notice).encode(), timeout)
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            _log.warning("an alert could not be handed to %s: %s", argv[0], error)
            return
        if ended:
            _log.warning("%s ended with %d on an alert: %s", argv[0], ended, said)

    return tell


def _run(argv: Sequence[str], body: bytes, timeout: float) -> tuple[int, str]:
    """Run a program; return what it ended with, and what it said of that.

    It writes to no pipe: one would stay open for as long as anything that the program has begun.
    """
    with _scratch() as said:
        errors = subprocess.DEVNULL if said is None else said
        program = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
        )
        with program:
            try:
                program.communicate(body, timeout=timeout)
            except BaseException:
                with suppress(OSError):  # all of it ended meanwhile
                    os.killpg(program.pid, signal.SIGKILL)
                raise
        words = b"" if said is None else os.pread(said.fileno(), 1000, 0)
    return program.returncode, words.decode(errors="replace").strip()[:200]


def _scratch() -> AbstractContextManager[IO[bytes] | None]:
    """Return a file to write to; none where the disk is full, which may be what the alert is about."""
    try:
        return TemporaryFile()
    except OSError:
        return nullcontext()


def _check_timeout(timeout: Any) -> None:
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout <= 3600:
        problem = Problem("timeout", brief(timeout), "seconds above 0, such as 5")
        raise ConfigError("nobody can be told so", problems=[problem])


def as_json(notice: Notice) -> str:
    """Return a notice as JSON: its rule, and each alert with its tags, figure, limit and suggestion.

    What JSON has no number for is "nan", "inf" or "-inf".
    """
    alerts = [
        {
            **{name: _plain(value) for name, value in asdict(one).items()},
            "tags": dict(one.tags),
            "text": one.text,
        }
        for one in notice.alerts
    ]
    return json.dumps({"rule": notice.rule, "alerts": alerts, "text": notice.text}, allow_nan=False)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not isfinite(value) else value
