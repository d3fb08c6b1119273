"""Edits of other modules than the service's: helpers, packages, and what imports there are."""

from __future__ import annotations

from tests.services.reload.kinds.kind import Kind, kind, service

__all__ = ["MODULES"]

_HELPER = """
    N = 1
    def more(x):
        return x + N
"""
_TRY = "try:\n    return {}\nexcept NameError:\n    return 'none'"
_PACKAGE = {
    "pkg.__init__": "from .inner import more\nfrom . import other\n__all__ = ['more', 'other']\n",
    "pkg.inner": "from .deep import N\ndef more(x):\n    return x + N\n",
    "pkg.other": "def name():\n    return 'other'\n",
    "pkg.deep": "N = 1\n",
}
_CIRCULAR = {
    "ping_": """
        import pong_
        def more(x):
            return x + 1
        def both(x):
            return pong_.back(x)
    """,
    "pong_": """
        import ping_
        def back(x):
            return ping_.more(x) * 10
    """,
    "m": service("return both(x)", head="from ping_ import both"),
}

MODULES: tuple[Kind, ...] = (
    kind(
        "a helper",
        {"helper": _HELPER, "m": service("return more(x)", head="from helper import more")},
        {"helper": ("x + N", "x - N")},
        *(4, 2),
    ),
    kind(
        "a helper's constant",
        {"helper": _HELPER, "m": service("return more(x)", head="from helper import more")},
        {"helper": ("N = 1", "N = 2")},
        *(4, 5),
    ),
    kind(
        "a helper that is imported whole",
        {"helper": _HELPER, "m": service("return helper.more(x)", head="import helper")},
        {"helper": ("x + N", "x - N")},
        *(4, 2),
    ),
    kind(
        "a helper beside another service's model",
        {
            "helper": _HELPER + "    WEIGHTS = [object()]\n",
            "m": service(
                "return more(x)", head="from helper import more, WEIGHTS", held="self.weights, WEIGHTS[0]"
            ),
        },
        {"helper": ("x + N", "x - N")},
        *(4, 2),
    ),
    kind(
        "a helper of a helper",
        {
            "deep": "def more(x):\n    return x + 1\n",
            "helper": "from deep import more\ndef further(x):\n    return more(x) * 10\n",
            "m": service("return further(x)", head="from helper import further"),
        },
        {"deep": ("x + 1", "x + 2")},
        *(40, 50),
    ),
    kind("helpers that import each other", _CIRCULAR, {"ping_": ("x + 1", "x + 2")}, 40, 50),
    kind("the other of them", _CIRCULAR, {"pong_": ("* 10", "* 100")}, 40, 400),
    kind(
        "a package that shows what its modules have",
        {**_PACKAGE, "m": service("return pkg.more(x), pkg.other.name()", head="import pkg")},
        {"pkg.inner": ("x + N", "x - N")},
        *((4, "other"), (2, "other")),
    ),
    kind(
        "relative imports",
        {**_PACKAGE, "m": service("return more(x)", head="from pkg import more")},
        {"pkg.deep": ("N = 1", "N = 2")},
        *(4, 5),
    ),
    kind(
        "a package that a module of it asks for another",
        {
            "pkg.numbers": "N = 1\n",
            "pkg.tools": "from . import numbers\ndef more(x):\n    return x + numbers.N\n",
            "pkg.__init__": "from .tools import more\n",
            "m": service("return more(x)", head="from pkg import more"),
        },
        {"pkg.numbers": ("N = 1", "N = 2")},
        *(4, 5),
    ),
    kind(
        "a service in a package",
        {
            "pkg.__init__": "",
            "pkg.helper": "def more(x):\n    return x + 1\n",
            "pkg.served": service("return more(x)", head="from .helper import more"),
        },
        {"pkg.helper": ("x + 1", "x + 2")},
        *(4, 5),
    ),
    kind(
        "import a.b as c",
        {**_PACKAGE, "m": service("return c.more(x)", head="import pkg.inner as c")},
        {"pkg.inner": ("x + N", "x - N")},
        *(4, 2),
    ),
    kind(
        "import a.b",
        {**_PACKAGE, "m": service("return pkg.inner.more(x)", head="import pkg.inner")},
        {"pkg.inner": ("x + N", "x - N")},
        *(4, 2),
    ),
    kind(
        "from x import *",
        {"helper": _HELPER, "m": service("return more(x)", head="from helper import *")},
        {"helper": ("x + N", "x - N")},
        *(4, 2),
    ),
    kind(
        "what * stands for",
        {"helper": _HELPER, "m": service(_TRY.format("further(x)"), head="from helper import *")},
        {"helper": ("N = 1", "N = 1\ndef further(x):\n    return x")},
        *("none", 3),
    ),
    kind(
        "__all__",
        {
            "helper": "__all__ = ['more']\ndef more(x):\n    return x\ndef _less(x):\n    return -x\n",
            "m": service(_TRY.format("_less(x)"), head="from helper import *"),
        },
        {"helper": ("['more']", "['more', '_less']")},
        *("none", -3),
    ),
    kind(
        "an import inside a function",
        {"helper": _HELPER, "m": service("from helper import more\nreturn more(x)")},
        {"helper": ("x + N", "x - N")},
        *(4, 2),
    ),
    kind(
        "an import that is added",
        {
            "helper": _HELPER,
            "m": service("return x", head="import helper"),
        },
        {
            "m": [("import helper", "import helper, extra"), ("return x", "return extra.more(x)")],
            "extra": "def more(x):\n    return x + 5\n",
        },
        *(3, 8),
    ),
    kind(
        "an import of something else",
        {
            "helper": "def more(x):\n    return x + 1\ndef less(x):\n    return x - 1\n",
            "m": service("return f(x)", head="from helper import more as f"),
        },
        {"m": ("more as f", "less as f")},
        *(4, 2),
    ),
    kind(
        "a file that is renamed",
        {"helper": _HELPER, "m": service("return more(x)", head="from helper import more")},
        {
            "helper": None,
            "renamed": "N = 2\ndef more(x):\n    return x + N\n",
            "m": ("from helper", "from renamed"),
        },
        *(4, 5),
    ),
    kind(
        "two modules at once",
        {"helper": _HELPER, "m": service("return more(x)", head="from helper import more")},
        {"helper": ("def more(x)", "def more(x, y)"), "m": ("more(x)", "more(x, 1) + 1")},
        *(4, 5),
    ),
    kind(
        "a function that moves to another module",
        {
            "helper": _HELPER,
            "other": "N = 7\n",
            "m": service("return more(x)", head="import other\nfrom helper import more"),
        },
        {
            "helper": ("    return x + N", "    return x + N  # gone soon"),
            "other": ("N = 7", "N = 7\ndef more(x):\n    return x + N"),
            "m": ("from helper import more", "from other import more"),
        },
        *(4, 10),
    ),
    kind(
        "a class in the state, in another module",
        {
            "parts": "class Part:\n    def more(self, x):\n        return x + 1\n",
            "m": service(
                "return self.part.more(x), isinstance(self.part, parts.Part)",
                head="import parts",
                body="def __init__(self):\n    self.part = parts.Part()",
            ),
        },
        {"parts": ("x + 1", "x + 2")},
        *((4, True), (5, True)),
    ),
    kind(
        "a decorator in another module",
        {
            "deco": "def loud(f):\n    return lambda *args, **kwargs: f(*args, **kwargs) * 10\n",
            "m": service(
                "return loud(self.more)(x)",
                head="from deco import loud",
                body="@loud\ndef more(self, x):\n    return x + 1",
            ),
        },
        {"deco": ("* 10", "* 100")},
        *(400, 40000),
    ),
    kind(
        "a registry in another module",
        {
            "registry_": """
                R = {}
                def put(name):
                    def to(f):
                        R[name] = f
                        return f
                    return to
            """,
            "m": service(
                "return [(name, f(x)) for name, f in R.items()]",
                head="from registry_ import R, put\n@put('a')\ndef a(x):\n    return x + 1\n"
                "@put('b')\ndef b(x):\n    return x + 2",
            ),
        },
        {"m": ("@put('b')\ndef b(x):\n    return x + 2\n", "")},
        *([("a", 4), ("b", 5)], [("a", 4)]),
    ),
)
