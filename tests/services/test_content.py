"""The content of code and values: what is made again is the same, what was edited is not."""

from __future__ import annotations

import re
import uuid
from argparse import Namespace
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_nb.clip import Clip
from grym_nb.services.content import code_of

CELL = """
import abc, dataclasses, enum, functools, logging, math, re, threading, typing
from pathlib import Path
from typing import Annotated, Generic, NamedTuple, Optional, Protocol, TypeVar
import numpy as np
from grym_nb.services import ModelService, positive, task, within
T = TypeVar("T")
"""


def run(cell: str, name: str = "M") -> Any:
    """Run a cell as a notebook does, in a namespace of its own, and return what it defined as `M`."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(CELL + cell, "<cell>", "exec"), space)
    return space[name]


# -- code: the same cell, run again ----------------------------------------------------------------

METHOD = """
class M(ModelService):
    @task("m.f")
    def f(self, x):
        return x + 1
"""

AGAIN = {
    "a class": METHOD,
    "checks in annotations": """
class M(ModelService):
    @task
    def f(self, x: Annotated[float, within(0, 1)], y: Optional[Path] = None) -> "float": return x
""",
    "an abstract base": "class M(ModelService, abc.ABC):\n    @abc.abstractmethod\n    def f(self): ...",
    "a protocol": "class M(Protocol):\n    def f(self) -> int: ...",
    "a generic class": "class M(ModelService, Generic[T]):\n    x: Optional[T] = None",
    "a dataclass": """
@dataclasses.dataclass
class M(ModelService):
    x: float = 1.0
    y: list = dataclasses.field(default_factory=list)
""",
    "a frozen dataclass with slots": """
@dataclasses.dataclass(frozen=True, slots=True)
class M:
    x: Annotated[float, positive()] = 1.0
""",
    "a named tuple": "class M(NamedTuple):\n    x: int = 1",
    "an enum": "class M(enum.Enum):\n    A = 1\n    B = {'x': 2}",
    "slots": "class M(ModelService):\n    __slots__ = ('a', '__b')",
    "super": "class M(ModelService):\n    def load(self):\n        super().load()",
    "a property": "class M(ModelService):\n    @property\n    def f(self): return 1",
    "a cached property": "class M(ModelService):\n    @functools.cached_property\n    def f(self): return 1",
    "a cached method": "class M:\n    @functools.lru_cache(maxsize=3)\n    def f(self): return 1",
    "a partial method": "class M:\n    f = functools.partialmethod(lambda self, x: x, 1)",
    "a dispatched method": """
class M:
    @functools.singledispatchmethod
    def f(self, x): return x
    @f.register
    def _(self, x: int): return 1
""",
    "nested classes and their instances": """
class M:
    class Inner:
        def __init__(self): self.x = [1]
    inner = Inner()
    class Called:
        def __call__(self): ...
    called = Called()
""",
    "what has no content": "class M:\n    lock = threading.Lock(), threading.RLock()\n    missing = object()",
    "a sentinel": "MISSING = object()\ndef M(x=MISSING): ...",
    "class attributes": """
class M:
    log = logging.getLogger("m")
    pattern = re.compile("x+")
    table = np.zeros(3000)
    root = Path("models")
    functions = [math.sin, len, np.add, print]
""",
    "a lambda": "M = lambda: 3",
    "nested functions and closures": """
def outer(k, table):
    def decorate(f):
        @functools.wraps(f)
        def wrapper(*args): return f(*args) * k + table[0]
        return wrapper
    return decorate
@outer(3, [1, 2])
def M(x): return [i for i in range(x)]
""",
    "a function that calls itself": """
def outer():
    def M(n): return M(n - 1)
    return M
M = outer()
""",
    "a partial": "M = functools.partial(lambda a, b: a, b=[1, 2])",
    "a bound method": """
class Maker:
    def __init__(self): self.size = 3
    def make(self): ...
M = Maker().make
""",
}


@pytest.mark.parametrize("cell", AGAIN.values(), ids=list(AGAIN))
def test_a_cell_that_is_run_again_defines_the_same_thing(cell: str) -> None:
    """New objects, same content: this is what keeps the model when a cell is rerun."""
    first, second = run(cell), run(cell)
    assert first is not second
    assert code_of(first) == code_of(second)


UNTOUCHED = [
    "class M(ModelService):\n  @task('m.f')\n  def f(self, x): return x + 1",
    "class M(ModelService):\n\n\n    # a comment\n    @task(\n        'm.f',\n    )\n"
    "    def f(self,  x):  # another\n        return (x\n                + 1)",
    "y = 1\nclass M(ModelService):\n    @task('m.f')\n    def f(self, x):\n        return x + 1\nz = 2",
]


@pytest.mark.parametrize("cell", UNTOUCHED)
def test_comments_blank_lines_and_layout_change_nothing(cell: str) -> None:
    """Neither does what else stands in the cell."""
    assert code_of(run(cell)) == code_of(run(METHOD))


# -- code: a cell that was edited ------------------------------------------------------------------

EDITS = {
    "a number in the body": (METHOD, METHOD.replace("+ 1", "+ 2")),
    "an operator": (METHOD, METHOD.replace("+ 1", "- 1")),
    "a name": (METHOD, METHOD.replace("x + 1", "x.y + 1")),
    "the task's type": (METHOD, METHOD.replace("m.f", "m.g")),
    "the task's replay": (METHOD, METHOD.replace('"m.f"', '"m.f", replay=False')),
    "no task any more": (METHOD, METHOD.replace('    @task("m.f")\n', "")),
    "another method": (METHOD, METHOD + "    def g(self): ...\n"),
    "a class attribute": (METHOD, METHOD + "    size = 3\n"),
    "one and True": ("def M(): return 1", "def M(): return True"),
    "one and 1.0": ("def M(): return 1", "def M(): return 1.0"),
    "zero and minus zero": ("def M(): return 0.0", "def M(): return -0.0"),
    "text and bytes": ("def M(): return 'x'", "def M(): return b'x'"),
    "a default": ("def M(x=1): ...", "def M(x=2): ..."),
    "a keyword's default": ("def M(*, x=1): ...", "def M(*, x=2): ..."),
    "a parameter's kind": ("def M(x): ...", "def M(*, x): ..."),
    "an annotation": ("def M(x: int): ...", "def M(x: float): ..."),
    "a check": (
        "def M(x: Annotated[float, within(0, 1)]): ...",
        "def M(x: Annotated[float, within(0, 2)]): ...",
    ),
    "what a function promises": ("def M() -> int: ...", "def M() -> float: ..."),
    "a nested function": (
        "def M():\n    def g(): return 1\n    return g",
        "def M():\n    def g(): return 2\n    return g",
    ),
    "a closure": (
        "def outer(k):\n    return lambda: k\nM = outer(1)",
        "def outer(k):\n    return lambda: k\nM = outer(2)",
    ),
    "a captured list": (
        "def outer(k):\n    return lambda: k\nM = outer([1, 2])",
        "def outer(k):\n    return lambda: k\nM = outer([1, 3])",
    ),
    "a decorator's argument": (
        "def times(k):\n    return lambda f: lambda x: f(x) * k\n@times(1)\ndef M(x): ...",
        "def times(k):\n    return lambda f: lambda x: f(x) * k\n@times(2)\ndef M(x): ...",
    ),
    "a cached method's body": (
        "class M:\n    @functools.lru_cache\n    def f(self): return 1",
        "class M:\n    @functools.lru_cache\n    def f(self): return 2",
    ),
    "a cached property's body": (
        "class M:\n    @functools.cached_property\n    def f(self): return 1",
        "class M:\n    @functools.cached_property\n    def f(self): return 2",
    ),
    "a property's setter": (
        "class M:\n    def g(self, v): self.x = 1\n    f = property(None, g)\n    del g",
        "class M:\n    def g(self, v): self.x = 2\n    f = property(None, g)\n    del g",
    ),
    "static or not": (
        "class M:\n    @staticmethod\n    def f(): ...",
        "class M:\n    @classmethod\n    def f(): ...",
    ),
    "a base's body": (
        "class Base:\n    def f(self): return 1\nclass M(Base): ...",
        "class Base:\n    def f(self): return 2\nclass M(Base): ...",
    ),
    "the order of the bases": (
        "class A: ...\nclass B: ...\nclass M(A, B): ...",
        "class A: ...\nclass B: ...\nclass M(B, A): ...",
    ),
    "a dataclass's default": (
        "@dataclasses.dataclass\nclass M:\n    x: float = 1",
        "@dataclasses.dataclass\nclass M:\n    x: float = 2",
    ),
    "a name of the class": (
        "class M: ...",
        "class N: ...\nM = N",
    ),
    "what a try guards": (
        "def M():\n    try:\n        a()\n    except ValueError:\n        c()\n    else:\n        b()",
        "def M():\n    try:\n        a()\n        b()\n    except ValueError:\n        c()",
    ),
    "the nesting of a constant": (
        "def M(): return ((1, 2), 3)",
        "def M(): return ((1, 2, 3),)",
    ),
    "the pairs of a set": (
        "def M(x): return x in {(1, 2), (3, 4)}",
        "def M(x): return x in {(1, 4), (3, 2)}",
    ),
    "where a default ends": ("def M(a=(1,), b=(2, 3)): ...", "def M(a=(1, 2), b=(3,)): ..."),
    "a sentinel that became a value": ("MISSING = object()\ndef M(x=MISSING): ...", "def M(x=None): ..."),
    "a class used as a value": (
        "class Layer:\n    size = 3\ndef M(kind=Layer): ...",
        "class Layer:\n    size = 4\ndef M(kind=Layer): ...",
    ),
    "the class of an instance": (
        "class Tok:\n    def go(self): return 1\ndef M(tok=Tok()): ...",
        "class Tok:\n    def go(self): return 2\ndef M(tok=Tok()): ...",
    ),
    "a bound method's object": (
        "class Maker:\n    def __init__(self, n): self.n = n\n    def make(self): ...\nM = Maker(1).make",
        "class Maker:\n    def __init__(self, n): self.n = n\n    def make(self): ...\nM = Maker(2).make",
    ),
    "a partial's argument": (
        "M = functools.partial(lambda a: a, 1)",
        "M = functools.partial(lambda a: a, 2)",
    ),
    "a table": (
        "class M:\n    table = np.zeros(3000)",
        "class M:\n    table = np.zeros(3000)\n    table[1500] = 1",
    ),
}


@pytest.mark.parametrize("before, after", EDITS.values(), ids=list(EDITS))
def test_an_edit_makes_another_thing(before: str, after: str) -> None:
    """Whatever the edit: a model that silently stays the old one is the worst of all."""
    assert code_of(run(before)) != code_of(run(after))


def test_a_global_value_is_not_part_of_the_code() -> None:
    """Only what was captured is: a global is looked up at each call, so its change is seen anyway."""
    assert code_of(run("k = 1\ndef M(): return k")) == code_of(run("k = 2\ndef M(): return k"))


def test_a_function_in_a_circle_comes_to_an_end() -> None:
    """Circles of values, and of classes through their methods, are walked once."""
    ring: list[Any] = [1]
    ring.append({"ring": ring})
    other: list[Any] = [1]
    other.append({"ring": other})
    assert code_of(ring) == code_of(other) != code_of([1, {"ring": [1]}])


def test_what_is_nested_very_deep_comes_to_an_end() -> None:
    """As does a list of a thousand lists; beyond that depth it is itself only."""
    deep: list[Any] = []
    for _ in range(1000):
        deep = [deep]
    assert code_of(deep) == code_of(deep)


def test_what_a_hash_is_a_part_of_does_not_count_in_it() -> None:
    """However a value leads back to it; everything else counts as ever."""

    def table(whole: type, size: int = 3) -> dict[str, Any]:
        return {"of": whole, "nested": [(whole(), size)]}

    whole, other = run(METHOD), run(METHOD.replace("x + 1", "x + 2"))
    assert code_of(table(whole)) != code_of(table(other))
    assert code_of(table(whole), within=whole) == code_of(table(other), within=other)
    assert code_of(table(whole), within=whole) != code_of(table(whole, 4), within=whole)
    assert code_of(3, within=whole) == code_of(3)


def test_what_cannot_be_read_is_itself_only() -> None:
    """Objects that raise at every touch do not keep a service from being registered."""

    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError

        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError

    one, other = Hostile(), Hostile()
    assert code_of(one) == code_of(one) != code_of(other)


# -- config: equal values and different ones -------------------------------------------------------


class Colour(Enum):
    RED = 1
    BLUE = 2


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Pair(NamedTuple):
    x: Any
    y: Any


@dataclass
class Shape:
    size: Any
    note: Any = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Slim:
    size: Any


class Plain:
    def __init__(self, size: Any) -> None:
        self.size = size


class Quiet(Plain):
    def __repr__(self) -> str:
        return "Quiet()"


class Called(Plain):
    def __call__(self) -> None: ...


class Slotted:
    __slots__ = ("__hidden", "size")

    def __init__(self, size: Any) -> None:
        self.size = size
        self.__hidden = size


class Password(str):
    def __repr__(self) -> str:
        return "***"


def array(at: int) -> np.ndarray:
    """Return an array whose repr does not show in what it differs."""
    made = np.zeros(5000)
    made[at] = 1.0
    return made


#: what is made twice must be the same, and none of a row may be the same as another of it
CONFIGS: dict[str, list[Callable[[], Any]]] = {
    "plain": [
        lambda: None, lambda: 1, lambda: True, lambda: 1.0, lambda: "1", lambda: b"1", lambda: (), lambda: [],
        lambda: {}, lambda: set(), lambda: ..., lambda: 1j, lambda: "", lambda: Decimal(1),
        lambda: Fraction(1),
    ],
    "subclasses of text": [lambda: Password("a"), lambda: Password("b"), lambda: "a"],
    "paths": [lambda: Path("a"), lambda: Path("b"), lambda: "a"],
    "paths that were used": [lambda: [str(p := Path("a/b")), hash(p), p.parts, p][3], lambda: Path("a/c")],
    "enums": [lambda: Colour.RED, lambda: Colour.BLUE, lambda: Level.LOW, lambda: Level.HIGH, lambda: 1],
    "repeated enums": [
        lambda: [Colour.RED, Colour.BLUE, Colour.RED],
        lambda: [Colour.RED, Colour.BLUE, Colour.BLUE],
    ],
    "tuples": [lambda: (1, 2), lambda: [1, 2], lambda: (2, 1), lambda: Pair(1, 2), lambda: ((1, 2),)],
    "nested lists": [lambda: [[1], 2], lambda: [[1, 2]], lambda: [1, 2], lambda: [1, [2]]],
    "dicts": [lambda: {"a": 1, "b": 2}, lambda: {"a": 2, "b": 1}, lambda: {"a": 1}, lambda: [("a", 1)]],
    "nested dicts": [lambda: {"a": {"b": 1}, "c": 2}, lambda: {"a": {"b": 1, "c": 2}}],
    "sets": [lambda: {(1, 2), (3, 4)}, lambda: {(1, 4), (3, 2)}, lambda: frozenset({(1, 2), (3, 4)})],
    "collections": [
        lambda: OrderedDict(a=1), lambda: Counter("a"), lambda: deque([1]), lambda: deque([1, 2]),
        lambda: MappingProxyType({"a": 1}), lambda: range(3), lambda: slice(3),
    ],
    "namespaces": [
        lambda: SimpleNamespace(a=array(1)), lambda: SimpleNamespace(a=array(2)), lambda: Namespace(a=1),
        lambda: Namespace(a=2),
    ],
    "arrays": [
        lambda: array(1), lambda: array(2), lambda: array(1).astype(np.float32),
        lambda: array(1).reshape(2, -1),
        lambda: np.arange(3), lambda: np.arange(3).astype(">i8"), lambda: [0, 1, 2], lambda: np.float32(1),
        lambda: np.float64(1), lambda: np.zeros((0, 3)), lambda: np.zeros((3, 0)),
    ],
    "arrays of objects": [
        lambda: np.array([Path("a"), None], object), lambda: np.array([Path("b"), None], object),
    ],
    "views": [lambda: np.arange(9)[::2], lambda: np.arange(9)[1::2]],
    "dataclasses": [
        lambda: Shape(array(1)), lambda: Shape(array(2)), lambda: Shape(array(1), note="x"), lambda: Slim(1),
        lambda: Slim([1]),
    ],
    "objects": [lambda: Plain(1), lambda: Plain([1]), lambda: Plain({"a": Plain(1)})],
    "objects whose repr tells nothing": [lambda: Quiet(1), lambda: Quiet(2)],
    "objects that can be called": [lambda: Called(1), lambda: Called(2)],
    "objects with slots": [lambda: Slotted(1), lambda: Slotted(2)],
    "patterns": [lambda: re.compile("x" * 300 + "a"), lambda: re.compile("x" * 300 + "b")],
    "clips": [lambda: Clip(np.zeros(9), 8), lambda: Clip(np.ones(9), 8), lambda: Clip(np.zeros(9), 9)],
    "functions": [lambda: len, lambda: max, lambda: np.add, lambda: np.subtract, lambda: (lambda x: x)],
    "other values": [lambda: timedelta(1), lambda: uuid.UUID(int=1), lambda: np.dtype("f4"), lambda: np.int8],
    "types": [lambda: int, lambda: list[int], lambda: list[str], lambda: int | None, lambda: Plain],
}  # fmt: skip


@pytest.mark.parametrize("row", CONFIGS.values(), ids=list(CONFIGS))
def test_equal_config_is_the_same_and_different_config_is_not(row: list[Callable[[], Any]]) -> None:
    """Made anew it is the same; and no two of a row are."""
    for make in row:
        assert code_of(make()) == code_of(make())
    told = {code_of(make()) for make in row}
    assert len(told) == len(row)


def test_shared_and_separate_equal_values_are_the_same() -> None:
    """Whether a path stands twice in a config as one object or as two is nobody's business."""
    path = Path("a")
    assert code_of([path, path]) == code_of([Path("a"), Path("a")])
    inner = {"x": [1]}
    assert code_of((inner, inner)) == code_of(({"x": [1]}, {"x": [1]}))


def test_the_order_of_a_dict_does_not_count() -> None:
    """Equal dicts are the same config."""
    assert code_of({"a": 1, "b": [2]}) == code_of({"b": [2], "a": 1})


def test_an_object_of_which_nothing_is_known_is_the_same_as_itself_only() -> None:
    """A random generator, an open file: another one counts as another config."""
    one, other = np.random.default_rng(1), np.random.default_rng(1)
    assert code_of(one) == code_of(one) != code_of(other)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def plainly(value: Any) -> Any:
    """Return a value that is equal to another such exactly when type and content are."""
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, *(plainly(inner) for inner in value))
    if isinstance(value, dict):
        return ("dict", frozenset((key, plainly(inner)) for key, inner in value.items()))
    return (type(value).__name__, repr(value))


@given(one=values, other=values)
def test_any_two_plain_values_are_the_same_exactly_when_they_are_equal(one: Any, other: Any) -> None:
    """Of equal types, all the way down."""
    assert (code_of(one) == code_of(other)) == (plainly(one) == plainly(other))


@given(value=values)
def test_the_hash_does_not_depend_on_identities(value: Any) -> None:
    """A copy is the same, so a result file is found again by another kernel."""
    copy = eval(repr(value), {"inf": float("inf")})
    assert code_of(value) == code_of(copy)
