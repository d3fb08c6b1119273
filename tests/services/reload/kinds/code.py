"""Edits of functions and methods: their bodies, what is around them, and how they are called."""

from __future__ import annotations

from tests.services.reload.kinds.kind import Kind, kind, service

__all__ = ["CODE"]

_LOUD = """
    from functools import wraps
    def loud(f):
        @wraps(f)
        def inner(*args, **kwargs):
            return f(*args, **kwargs) * 10
        return inner
"""
_ASYNC = """
    import asyncio
    async def later(x):
        await asyncio.sleep(0)
        return x + 1
"""

CODE: tuple[Kind, ...] = (
    kind("the body of a task", service("return x + 1"), ("x + 1", "x + 2"), 4, 5),
    kind(
        "a method that a task calls",
        service("return self.more(x)", body="def more(self, x):\n    return x + 1"),
        ("x + 1", "x + 2"),
        *(4, 5),
    ),
    kind(
        "a decorated method",
        service("return self.more(x)", head=_LOUD, body="@loud\ndef more(self, x):\n    return x + 1"),
        ("x + 1", "x + 2"),
        *(40, 50),
    ),
    kind("a decorated task", service("return x + 1", head=_LOUD, above="@loud"), ("x + 1", "x + 2"), 40, 50),
    kind("a decorator", service("return x + 1", head=_LOUD, above="@loud"), ("* 10", "* 100"), 40, 400),
    kind(
        "a decorator that is added",
        service("return self.more(x)", head=_LOUD, body="def more(self, x):\n    return x + 1"),
        ("    def more", "    @loud\n    def more"),
        *(4, 40),
    ),
    kind(
        "a decorator with an argument",
        service(
            "return self.more(x)",
            head="""
                def times(n):
                    def decorate(f):
                        return lambda *args: f(*args) * n
                    return decorate
            """,
            body="@times(2)\ndef more(self, x):\n    return x + 1",
        ),
        ("@times(2)", "@times(3)"),
        *(8, 12),
    ),
    kind(
        "an async task",
        service("return await later(x)", head=_ASYNC, define="async def"),
        ("await later(x)", "await later(x) * 2"),
        *(4, 8),
    ),
    kind(
        "what an async task awaits",
        service("return await later(x)", head=_ASYNC, define="async def"),
        ("x + 1", "x + 2"),
        *(4, 5),
    ),
    kind(
        "a generator task",
        service("for at in range(x):\n    yield at"),
        ("yield at", "yield -at"),
        *([0, 1, 2], [0, -1, -2]),
    ),
    kind(
        "an async generator task",
        service("for at in range(x):\n    yield await later(at)", head=_ASYNC, define="async def"),
        ("x + 1", "x + 2"),
        *([1, 2, 3], [2, 3, 4]),
    ),
    kind(
        "a property",
        service("return self.gain * x", body="@property\ndef gain(self):\n    return 2"),
        ("return 2", "return 5"),
        *(6, 15),
    ),
    kind(
        "a method that becomes a property",
        service("return self.gain() * x", body="def gain(self):\n    return 2"),
        [("    def gain", "    @property\n    def gain"), ("self.gain() * x", "self.gain * x + 1")],
        *(6, 7),
    ),
    kind(
        "a cached property",
        service(
            "return self.gain * x",
            head="from functools import cached_property",
            body="@cached_property\ndef gain(self):\n    return 2",
        ),
        ("return 2", "return 5"),
        *(6, 15),
    ),
    kind(
        "a classmethod",
        service("return self.gain() * x", body="@classmethod\ndef gain(cls):\n    return 2, cls.__name__"),
        ("return 2", "return 3"),
        *((2, "S") * 3, (3, "S") * 3),
    ),
    kind(
        "a staticmethod",
        service("return self.gain() * x", body="@staticmethod\ndef gain():\n    return 2"),
        ("return 2", "return 5"),
        *(6, 15),
    ),
    kind(
        "super() in a method that is added",
        service(
            "return self.more(x)",
            head="class Base(ModelService):\n    def more(self, x):\n        return x + 1",
            bases="Base",
        ),
        (
            '    @task("held")',
            '    def more(self, x):\n        return super().more(x) * 2\n    @task("held")',
        ),
        *(4, 8),
    ),
    kind(
        "__class__ in a method",
        service("return __class__ is type(self), x + 1"),
        ("x + 1", "x + 2"),
        *((True, 4), (True, 5)),
    ),
    kind(
        "a closure",
        service(
            "return ADD(x)",
            head="""
                def adder(n):
                    def add(x):
                        return x + n
                    return add
                ADD = adder(1)
            """,
        ),
        ("return x + n", "return x + n * 10"),
        *(4, 13),
    ),
    kind(
        "what a closure closes over",
        service("return ADD(x)", head="def adder(n):\n    return lambda x: x + n\nADD = adder(1)"),
        ("adder(1)", "adder(2)"),
        *(4, 5),
    ),
    kind("a lambda", service("return F(x)", head="F = lambda x: x + 1"), ("x: x + 1", "x: x + 2"), 4, 5),
    kind("a default argument", service("return x"), ("self, x=3", "self, x=4"), 3, 4),
    kind(
        "a default that is a constant",
        service("return x", head="DEFAULT = 3", takes="self, x=DEFAULT"),
        ("DEFAULT = 3", "DEFAULT = 4"),
        *(3, 4),
    ),
    kind("a keyword's default", service("return x", takes="self, *, x=3"), ("x=3", "x=4"), 3, 4),
    kind(
        "a function's keyword default",
        service("return more(x)", head="def more(x, *, by=1):\n    return x + by"),
        ("by=1", "by=2"),
        *(4, 5),
    ),
    kind(
        "a nested function",
        service("def more():\n    return x + 1\nreturn more()"),
        ("x + 1", "x + 2"),
        *(4, 5),
    ),
    kind(
        "a comprehension",
        service("return [one + 1 for one in range(x)]"),
        ("one + 1", "one + 2"),
        *([1, 2, 3], [2, 3, 4]),
    ),
    kind(
        "a match statement",
        service('match x:\n    case 3:\n        return "three"\nreturn "other"'),
        ("case 3", "case 4"),
        *("three", "other"),
    ),
    kind(
        "a context manager",
        service(
            "with around(x) as y:\n    return y",
            head="""
                from contextlib import contextmanager
                @contextmanager
                def around(x):
                    yield x + 1
            """,
        ),
        ("x + 1", "x + 2"),
        *(4, 5),
    ),
    kind(
        "a partial",
        service(
            "return MORE(x)",
            head="from functools import partial\ndef add(a, b):\n    return a + b\nMORE = partial(add, 1)",
        ),
        ("a + b", "a - b"),
        *(4, -2),
    ),
    kind(
        "a method that is added",
        service("return x"),
        [
            ("return x", "return self.more(x)"),
            ('    @task("held")', '    def more(self, x):\n        return x + 1\n    @task("held")'),
        ],
        *(3, 4),
    ),
    kind(
        "a method that is removed",
        service("return hasattr(self, 'more')", body="def more(self):\n    return 1"),
        ("    def more(self):\n        return 1\n", ""),
        *(True, False),
    ),
    kind(
        "a method that is renamed",
        service("return self.more(x)", body="def more(self, x):\n    return x + 1"),
        [("def more", "def further"), ("self.more(x)", "self.further(x), hasattr(self, 'more')")],
        *(4, (4, False)),
    ),
)
