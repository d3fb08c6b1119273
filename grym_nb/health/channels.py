"""Where alerts go: the log, a webhook, a command. Each is a function of one notice, and waits for nobody.

What may take time runs where `work` runs it: on the work threads of a runtime.
"""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import Request, build_opener

from grym_nb.errors import ConfigError, Problem
from grym_nb.health.alerts import Notice
from grym_nb.render import brief

__all__ = ["Work", "as_json", "command", "log", "webhook"]

_log = logging.getLogger("grym_nb.alerts")
_log.addHandler(logging.NullHandler())  # a library writes nowhere unless it is told to
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.ERROR}
#: f(job, name=...): runs a job in a thread that may take its time
Work = Callable[..., object]


def log(notice: Notice) -> None:
    """Write each alert to the log `grym_nb.alerts`, at the level of its severity."""
    for alert in notice.alerts:
        level = _LEVELS[alert.severity] if alert.state == "firing" else logging.INFO
        _log.log(level, "%s", alert.text)


def webhook(
    url: str, *, work: Work, timeout: float = 5.0, token: str | None = None
) -> Callable[[Notice], None]:
    """Return a channel that posts each notice as JSON; what cannot be delivered is logged.

    With `token` it goes along as a bearer token. Redirects are followed as for any POST: not at all.
    """
    parts = urlsplit(url) if isinstance(url, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            "nothing can be posted there", problems=[Problem("url", brief(url), "http(s)://...")]
        )
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"

    def post(body: bytes) -> None:
        request = Request(url, data=body, headers=headers, method="POST")
        try:
            with build_opener().open(request, timeout=timeout) as answer:
                answer.read(1)
        except (OSError, URLError, ValueError) as error:
            _log.warning("an alert could not be posted to %s: %s", parts.hostname, error)

    def tell(notice: Notice) -> None:
        work(partial(post, as_json(notice).encode()), name=f"webhook to {parts.hostname}")

    return tell


def command(arguments: Sequence[str], *, work: Work, timeout: float = 10.0) -> Callable[[Notice], None]:
    """Return a channel that runs a program for each notice, which reads it as JSON from its input.

    No shell sees any of it. A program that takes longer than `timeout` is ended.
    """
    given: Any = arguments
    if isinstance(given, str) or not given or not all(isinstance(one, str) and one for one in given):
        problem = Problem("arguments", brief(given), "a list of texts, such as ['notify-send', 'grym']")
        raise ConfigError("no program can be run so", problems=[problem])
    argv = list(arguments)

    def run(body: bytes) -> None:
        try:
            done = subprocess.run(argv, input=body, capture_output=True, timeout=timeout, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            _log.warning("an alert could not be handed to %s: %s", argv[0], error)
            return
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()[:200]
            _log.warning("%s ended with %d on an alert: %s", argv[0], done.returncode, said)

    def tell(notice: Notice) -> None:
        work(partial(run, as_json(notice).encode()), name=f"command {argv[0]}")

    return tell


def as_json(notice: Notice) -> str:
    """Return a notice as JSON: its rule, and each alert with its tags, figure, limit and suggestion."""
    alerts = [{**asdict(one), "tags": dict(one.tags), "text": one.text} for one in notice.alerts]
    return json.dumps({"rule": notice.rule, "alerts": alerts, "text": notice.text})
