"""Edits that cannot serve: the old code has to answer as before."""

from __future__ import annotations

from tests.services.reload.kinds.kind import Kind, kind, service

__all__ = ["HELD", "REFUSED", "TEXTS"]

#: before which a service has a place for other methods
HELD = '    @task("held")'
TEXTS = {
    "helper": "N = 1\ndef more(x):\n    return x + N\n",
    "m": service("return more(x)", head="from helper import more"),
}
_TASK = '    @task("ask")\n'
_PING = f"    def ping(self):\n        raise OSError(1)\n{HELD}"
_INIT = f"    def __init__(self, *, gain):\n        pass\n{HELD}"


def _refused(name: str, module: str, told: str, *changes: tuple[str, str]) -> Kind:
    return kind(name, TEXTS, {module: [*changes]}, 4, 4, how="refused", told=told)


REFUSED: tuple[Kind, ...] = (
    _refused("a syntax error", "m", "SyntaxError", ("def ask(self", "def ask(self:")),
    _refused("a syntax error in a helper", "helper", "SyntaxError", ("return x", "return return x")),
    _refused("a wrong indentation", "helper", "IndentationError", ("    return", "return")),
    _refused(
        "an import of what is not there", "m", "ModuleNotFoundError", ("class S", "import nowhere\nclass S")
    ),
    _refused("an import of a name that is not there", "m", "ImportError", ("import more", "import less")),
    _refused("an error at the top", "helper", "ZeroDivisionError", ("N = 1", "N = 1 / 0")),
    _refused(
        "an error beneath what is edited as well",
        "helper",
        "ZeroDivisionError",
        ("x + N\n", "x - N\nLATER = 1 / 0\n"),
    ),
    _refused("an exit at the top", "helper", "SystemExit", ("N = 1", "raise SystemExit(1)")),
    _refused("a ping that raises", "m", "its ping raised OSError", (HELD, _PING)),
    _refused("what raises at each call", "m", "AttributeError", ("more(x)", "more(x).nothing")),
    _refused("a helper that raises at each call", "helper", "NameError", ("x + N", "x + nobody")),
    _refused("the class, gone", "m", "S is gone from m", ("class S(", "class T(")),
    _refused("all tasks, gone", "m", "at least one method with @task", (_TASK, ""), (f"{HELD}\n", "")),
    _refused("a config value without a default", "m", "config.gain: found nothing", (HELD, _INIT)),
    _refused("a base that is not there", "m", "NameError", ("ModelService):", "ModelService, Nobody):")),
    kind("a file, gone", TEXTS, {"m": None}, 4, 4, how="refused", told="m.py cannot be read"),
    kind("a helper's file, gone", TEXTS, {"helper": None}, 4, 4, how="refused", told="helper.py cannot"),
)
