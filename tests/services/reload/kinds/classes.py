"""Edits of classes: the kinds that Python has, what they are made from, and what is still one of them."""

from __future__ import annotations

from tests.services.reload.kinds.kind import Kind, kind, service

__all__ = ["CLASSES"]

_RESULT = """
    from dataclasses import dataclass
    @dataclass
    class Result:
        value: int
        def twice(self):
            return self.value * 2
"""
_ENUM = """
    from enum import Enum
    class Color(Enum):
        RED = 1
        BLUE = 2
        def told(self):
            return "is " + self.name
"""
_PART = """
    class Part:
        def more(self, x):
            return x + 1
    def other(x):
        return x
"""
_META = """
    class Meta(type):
        def __call__(cls, *args):
            made = super().__call__(*args)
            made.mark = 1
            return made
    class Part(metaclass=Meta):
        pass
"""
_PLUGINS = """
    class Plugin:
        known = {}
        def __init_subclass__(cls, **more):
            Plugin.known[cls.__name__] = cls
    class First(Plugin):
        def run(self, x):
            return x + 1
    class Second(Plugin):
        def run(self, x):
            return x + 2
"""
_LISTED = """
    class Plugin:
        known = []
        def __init_subclass__(cls, **more):
            cls.known.append(cls)
    class First(Plugin):
        def run(self, x):
            return x + 1
    class Second(Plugin):
        def run(self, x):
            return x + 2
"""
_DISPATCH = """
    from functools import singledispatch
    class A:
        pass
    class B(A):
        pass
    @singledispatch
    def told(x):
        return "any"
    @told.register
    def _(x: A):
        return "an A"
    @told.register(int)
    def _(x):
        return "a number"
"""
_REGISTRY = """
    class A:
        pass
    class B:
        def more(self):
            return 1
    def first(x):
        return "first"
    R = {}
    R[A] = first
    R[B] = lambda x: "second"
"""
_SLOTS = """
    class Part:
        __slots__ = ("n",)
        def __init__(self, n):
            self.n = n
        def more(self, x):
            return self.n + x
"""

CLASSES: tuple[Kind, ...] = (
    kind(
        "a dataclass that is returned",
        service("r = Result(x)\nreturn r.twice(), isinstance(r, Result)", head=_RESULT),
        ("self.value * 2", "self.value * 20"),
        *((6, True), (60, True)),
    ),
    kind(
        "a field of a dataclass",
        service("return Result(x).__dict__", head=_RESULT),
        ("value: int", "value: int\n    unit: str = 's'"),
        *({"value": 3}, {"value": 3, "unit": "s"}),
    ),
    kind(
        "a dataclass in the state",
        service(
            "return self.result.twice(), isinstance(self.result, Result), self.result == Result(7)",
            head=_RESULT,
            load="self.result = Result(7)",
        ),
        ("self.value * 2", "self.value * 20"),
        *((14, True, True), (140, True, True)),
    ),
    kind(
        "an enum beside which something is edited",
        service(
            "return self.color is Color.RED, other(x)",
            head=_ENUM + "    def other(x):\n        return x + 1\n",
            load="self.color = Color.RED",
        ),
        ("x + 1", "x + 2"),
        *((True, 4), (True, 5)),
    ),
    kind(
        "a method of an enum of which the state has a member",
        service(
            "return self.color is Color.RED, self.color.told(), Color(2) is Color.BLUE",
            head=_ENUM,
            body="def __init__(self):\n    self.color = Color.RED",
        ),
        ('"is "', '"now "'),
        *((True, "is RED", True), (True, "now RED", True)),
    ),
    kind(
        "a member of an enum",
        service("return [one.name for one in Color]", head=_ENUM),
        ("BLUE = 2", "BLUE = 2\n    GREEN = 3"),
        *(["RED", "BLUE"], ["RED", "BLUE", "GREEN"]),
    ),
    kind(
        "a NamedTuple",
        service(
            "return Point(x, 1).length(), isinstance(Point(1, 2), Point)",
            head="""
                from typing import NamedTuple
                class Point(NamedTuple):
                    a: int
                    b: int
                    def length(self):
                        return self.a + self.b
            """,
        ),
        ("self.a + self.b", "self.a - self.b"),
        *((4, True), (2, True)),
    ),
    kind(
        "a Protocol",
        service(
            "return isinstance(Part(), Runs)",
            head="""
                from typing import Protocol, runtime_checkable
                @runtime_checkable
                class Runs(Protocol):
                    def start(self): ...
                class Part:
                    def start(self):
                        return 1
            """,
        ),
        ("def start(self): ...", "def begin(self): ..."),
        *(True, False),
    ),
    kind(
        "an ABC with what was registered for it",
        service(
            "return issubclass(int, Runs), Part().told()",
            head="""
                from abc import ABC, abstractmethod
                class Runs(ABC):
                    @abstractmethod
                    def start(self): ...
                    def told(self):
                        return "one"
                Runs.register(int)
                class Part(Runs):
                    def start(self):
                        return 1
            """,
        ),
        ('"one"', '"two"'),
        *((True, "one"), (True, "two")),
    ),
    kind(
        "a metaclass",
        service("return Part().mark, isinstance(Part(), Part)", head=_META),
        ("made.mark = 1", "made.mark = 2"),
        *((1, True), (2, True)),
    ),
    kind(
        "__init_subclass__",
        service("return [*Plugin.known]", head=_PLUGINS),
        ("[cls.__name__]", "[cls.__name__.lower()]"),
        *(["First", "Second"], ["first", "second"]),
    ),
    kind(
        "a class that its base keeps",
        service("return [one().run(x) for one in Plugin.known.values()]", head=_PLUGINS),
        ("x + 2", "x + 20"),
        *([4, 5], [4, 23]),
    ),
    kind(
        "a class that its base keeps in a list",
        service("return [one().run(x) for one in Plugin.known]", head=_LISTED),
        ("x + 2", "x + 20"),
        *([4, 5], [4, 23]),
    ),
    kind(
        "a class that its base keeps, deleted",
        service("return [*Plugin.known]", head=_PLUGINS),
        ("class Second(Plugin):\n    def run(self, x):\n        return x + 2\n", ""),
        *(["First", "Second"], ["First"]),
    ),
    kind(
        "a descriptor with __set_name__",
        service(
            "return self.field",
            head="""
                class Field:
                    def __set_name__(self, owner, name):
                        self.name = name
                    def __get__(self, one, owner):
                        return "the " + self.name
            """,
            body="field = Field()",
        ),
        ('"the "', '"this "'),
        *("the field", "this field"),
    ),
    kind(
        "a singledispatch function",
        service("return told(A()), told(B()), told(1), told('')", head=_DISPATCH),
        ('"an A"', '"one A"'),
        *(("an A", "an A", "a number", "any"), ("one A", "one A", "a number", "any")),
    ),
    kind(
        "a class on which singledispatch goes",
        service("return told(A()), told(B()), told(1), told('')", head=_DISPATCH),
        ("class B(A):", "class B:"),
        *(("an A", "an A", "a number", "any"), ("an A", "any", "a number", "any")),
    ),
    kind(
        "a registry with classes as its keys",
        service("return R[A](x), R[B](x)", head=_REGISTRY),
        ('"first"', '"now first"'),
        *(("first", "second"), ("now first", "second")),
    ),
    kind(
        "a class that is a registry's key",
        service("return R[A](x), R[type(self.b)](x), self.b.more()", head=_REGISTRY, load="self.b = B()"),
        ("return 1", "return 2"),
        *(("first", "second", 1), ("first", "second", 2)),
        how="in place",
    ),
    kind(
        "a class with __slots__ in the state",
        service(
            "return self.part.more(x), isinstance(self.part, Part)",
            head=_SLOTS,
            load="self.part = Part(1)",
        ),
        ("self.n + x", "self.n - x"),
        *((4, True), (-2, True)),
    ),
    kind(
        "a service with __slots__",
        service(
            "return self.gain * x",
            body="__slots__ = ('weights', 'gain')\ndef __init__(self):\n    self.gain = 2",
        ),
        ("self.gain * x", "self.gain * x + 1"),
        *(6, 7),
    ),
    kind(
        "a class in the state",
        service(
            "return self.part.more(x), isinstance(self.part, Part)",
            head=_PART,
            body="def __init__(self):\n    self.part = Part()",
        ),
        ("x + 1", "x + 2"),
        *((4, True), (5, True)),
    ),
    kind(
        "a class in a list and a dict of the state",
        service(
            "return [one.more(x) for one in (*self.parts, *self.named.values())], "
            "all(isinstance(one, Part) for one in (*self.parts, *self.named.values()))",
            head=_PART,
            body="def __init__(self):\n    self.parts, self.named = [Part()], {'a': Part()}",
        ),
        ("x + 1", "x + 2"),
        *(([4, 4], True), ([5, 5], True)),
    ),
    kind(
        "a class in the state that stays as it is",
        service(
            "return other(x), isinstance(self.part, Part)",
            head=_PART,
            held="self.weights, self.part",
            load="self.part = Part()",
        ),
        ("return x\n", "return -x\n"),
        *((3, True), (-3, True)),
    ),
    kind(
        "a nested class",
        service(
            "return self.Part().more(x)",
            body="class Part:\n    def more(self, x):\n        return x + 1",
        ),
        ("x + 1", "x + 2"),
        *(4, 5),
    ),
    kind(
        "an operator",
        service(
            "return Sum(x) + 1",
            head="class Sum(int):\n    def __add__(self, other):\n        return int(self) * other",
        ),
        ("int(self) * other", "int(self) * other * 10"),
        *(3, 30),
    ),
    kind(
        "a base in the same module",
        service(
            "return self.more(x)",
            head="class Base(ModelService):\n    def more(self, x):\n        return x + 1",
            bases="Base",
        ),
        ("x + 1", "x + 2"),
        *(4, 5),
    ),
    kind(
        "a mixin",
        service(
            "return self.more(x)",
            head="class More:\n    def more(self, x):\n        return x + 1",
            bases="More, ModelService",
        ),
        ("x + 1", "x + 2"),
        *(4, 5),
    ),
    kind(
        "another base class",
        service(
            "return self.more(x)",
            head="""
                class One(ModelService):
                    def more(self, x):
                        return x + 1
                class Two(ModelService):
                    def more(self, x):
                        return x + 2
            """,
            bases="One",
        ),
        ("class S(One)", "class S(Two)"),
        *(4, 5),
    ),
    kind(
        "a base in another module",
        {
            "base": """
                from grym_nb import ModelService
                class Base(ModelService):
                    def more(self, x):
                        return x + 1
            """,
            "m": service(
                "return self.more(x), isinstance(self, Base)", head="from base import Base", bases="Base"
            ),
        },
        {"base": ("x + 1", "x + 2")},
        *((4, True), (5, True)),
    ),
    kind(
        "a base with the task, in another module",
        {
            "base": service("return x + 1").replace("class S(", "class Base("),
            "m": "import base\nclass S(base.Base):\n    pass\n",
        },
        {"base": ("x + 1", "x + 2")},
        *(4, 5),
    ),
)
