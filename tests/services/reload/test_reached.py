"""A service from a cell is another one when what its code names is, not when its cell is only run again."""

from __future__ import annotations

import gc
import linecache
import sys
import weakref
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from grym_nb.services import ServiceHandle, ServiceRegistry
from grym_nb.services.reload.reached import Reached, reached_by

CELL = """
import collections, enum, functools, threading
import numpy as np
from grym_nb.services import ModelService, task
{head}
class S(ModelService):
    def __init__(self):
        {init}
    def load(self):
        self.weights = np.zeros(3)
        {load}
    @task
    def ask(self, x=1):
        return {ask}
"""
SAME, EDITED = False, True


def text(head: str = "", *, load: str = "pass", ask: str = "helper(x)", init: str = "pass") -> str:
    return CELL.format(head=head, load=load, ask=ask, init=init)


class Notebook:
    """Cells that share one namespace, and a service that one of them defines."""

    def __init__(self, registry: ServiceRegistry) -> None:
        self.names = vars(sys.modules["__main__"])
        self.registry = registry

    def run(self, cell: str) -> None:
        file = f"<cell {hash(cell)}>"
        linecache.cache[file] = len(cell), None, cell.splitlines(keepends=True), file
        exec(compile(cell, file, "exec", dont_inherit=True), self.names)

    def register(self, cell: str = "") -> ServiceHandle:
        self.run(cell)
        return self.registry.register("service", self.names["S"])

    def reached(self, cell: str) -> Reached:
        self.run(cell)
        found = reached_by(self.names["S"], self.names["S"])
        assert found is not None
        return found


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch, registry: ServiceRegistry) -> Notebook:
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    return Notebook(registry)


def weights(service: ServiceHandle) -> Any:
    with service.use() as model:
        return model.weights


#: a cell's helper, and an edit of it
HELPERS = {
    "a function": ("def helper(x): return x", "x\n", "-x\n"),
    "a function of a function": (
        "def deep(x): return x\ndef helper(x): return deep(x)",
        "(x): return x",
        "(x): return -x",
    ),
    "a circle": (
        "def helper(x): return x if x < 2 else other(x)\ndef other(x): return helper(x - 1)",
        "x - 1",
        "x - 2",
    ),
    "a function that calls itself": ("def helper(x): return x and helper(x - 1)", "x - 1", "x // 2"),
    "a lambda": ("helper = lambda x: x", "x: x", "x: -x"),
    "a default": ("def helper(x, y=1): return x", "y=1", "y=2"),
    "a decorated function": (
        "def twice(f):\n    @functools.wraps(f)\n    def g(x): return f(f(x))\n    return g\n"
        "@twice\ndef helper(x): return x",
        "helper(x): return x",
        "helper(x): return -x",
    ),
    "a decorator": (
        "def twice(f):\n    def g(x): return f(x)\n    return g\n@twice\ndef helper(x): return x",
        "return f(x)",
        "return f(f(x))",
    ),
    "what a decorator is given": (
        "def times(n):\n    return lambda f: lambda x: n * f(x)\n@times(2)\ndef helper(x): return x",
        "@times(2)",
        "@times(3)",
    ),
    "a cached function": ("@functools.lru_cache\ndef helper(x): return x", "return x", "return -x"),
    "a partial": ("helper = functools.partial(lambda x, y: x, y=1)", "x, y: x", "x, y: -x"),
    "what a partial is given": ("helper = functools.partial(lambda x, y: x, y=1)", "y=1", "y=2"),
    "a property of a class": (
        "class helper:\n    def __init__(self, x): pass\n    @property\n    def p(self): return 1",
        "return 1",
        "return 2",
    ),
    "a class": ("class helper:\n    def __init__(self, x): self.x = x", "= x", "= -x"),
    "a method that is gone": (
        "class helper:\n    def __init__(self, x): pass\n    def f(self): pass\n",
        "    def f(self): pass\n",
        "",
    ),
    "a base": (
        "class B:\n    def f(self): return 1\nclass helper(B):\n    def __init__(self, x): pass",
        "return 1",
        "return 2",
    ),
    "a metaclass": (
        "class M(type):\n    def f(self): return 1\n"
        "class helper(metaclass=M):\n    def __init__(self, x): pass",
        "return 1",
        "return 2",
    ),
    "a class with slots of an object": (
        "class P:\n    __slots__ = ('n',)\n    def f(self): return 1\nPART = P()\ndef helper(x): return PART",
        "return 1",
        "return 2",
    ),
    "a constant": ("N = 1\ndef helper(x): return N", "N = 1", "N = 2"),
    "one and True": ("N = 1\ndef helper(x): return N", "N = 1", "N = True"),
    "a constant tuple": ("N = (1, (2, 3))\ndef helper(x): return N", "(2, 3)", "(2, 4)"),
    "a table": ("N = {'a': [1, 2]}\ndef helper(x): return N['a']", "[1, 2]", "[1, 3]"),
    "a table of functions": ("N = {'a': lambda x: x}\ndef helper(x): return N['a'](x)", "x: x", "x: -x"),
    "an enum's member": (
        "class C(enum.Enum):\n    A = 1\nN = C.A\ndef helper(x): return N.value",
        "A = 1",
        "A = 2",
    ),
    "an object of the user's": (
        "class P:\n    def __init__(self, n): self.n = n\nN = P(1)\ndef helper(x): return N.n",
        "P(1)",
        "P(2)",
    ),
    "the shape of an array": ("N = np.zeros(3)\ndef helper(x): return N", "zeros(3)", "zeros(4)"),
    "a number of numpy": ("N = np.float32(1)\ndef helper(x): return N", "32(1)", "32(2)"),
    "what a defaultdict makes": (
        "N = collections.defaultdict(list)\ndef helper(x): return N",
        "(list)",
        "(set)",
    ),
    "what an array is made of": ("N = np.dtype('f4')\ndef helper(x): return N", "'f4'", "'f8'"),
    "a name that is missing": ("def helper(x): return x or nowhere", "nowhere", "nowhere_else"),
}


@pytest.mark.parametrize("head, was, now", HELPERS.values(), ids=list(HELPERS))
def test_an_edited_helper_is_in_force_with_the_same_weights(
    notebook: Notebook, head: str, was: str, now: str
) -> None:
    """Run again as it is, the cell has made nothing new; edited, the service goes on with the new."""
    head += "\n"
    assert head.count(was) == 1
    service = notebook.register(text(head))
    service.ask()
    there = weights(service)
    notebook.register(text(head))
    assert service.version == "v1"
    notebook.register(text(head.replace(was, now)))
    assert service.version == "v2" and service.reloads[-1].how == "in place"
    notebook.register(text(head.replace(was, now)))
    assert service.version == "v2"
    assert weights(service) is there and service.status().loads == 1


LOADS = {
    "what load calls": ("def made(): return 1", "self.net = made()", "return 1", "return 2"),
    "what that calls": (
        "def deep(): return 1\ndef made(): return deep()",
        "self.net = made()",
        "return 1",
        "return 2",
    ),
    "a constant": ("SIZE = 1", "self.net = SIZE", "= 1", "= 2"),
    "a table": ("SIZES = {'a': 1}", "self.net = SIZES['a']", "'a': 1", "'a': 2"),
    "what a partial is given": (
        "def of(n): return n\nmade = functools.partial(of, 1)",
        "self.net = made()",
        "of, 1",
        "of, 2",
    ),
    "how a class is made": (
        "class Net:\n    def __init__(self): self.n = 1",
        "self.net = Net()",
        "n = 1",
        "n = 2",
    ),
}


@pytest.mark.parametrize("head, load, was, now", LOADS.values(), ids=list(LOADS))
def test_what_load_reaches_is_loaded_anew(
    notebook: Notebook, head: str, load: str, was: str, now: str
) -> None:
    """With its name in the reason; and not where anything else is edited beside it."""
    cell = text(head + "\ndef helper(x): return x\n", load=load)
    service = notebook.register(cell)
    service.ask()
    notebook.register(cell)
    notebook.register(cell.replace("helper(x): return x", "helper(x): return -x"))
    assert (service.ask(), service.version, service.status().loads) == (-1, "v2", 1)
    before = service._record.lifecycle.story
    notebook.register(cell.replace("helper(x): return x", "helper(x): return -x").replace(was, now))
    assert (service.ask(), service.version, service.status().loads) == (-1, "v3", 2), before


NODES = (
    "class Node:\n    def __init__(self, up=None):\n        self.up, self.down = up, []\n"
    "        if up is not None: up.down.append(self)\nROOT = Node()\nLEAF = Node(ROOT)"
)
TABLE = "ROOT = LEAF = {i: [i * 1000 + n for n in range(300)] for i in range(7)}"


@pytest.mark.parametrize("head", [NODES, TABLE], ids=["in a circle", "large"])
def test_what_else_is_named_makes_no_other_load(notebook: Notebook, head: str) -> None:
    """In whatever order it is looked at."""
    cell = text(head + "\ndef helper(x): return x\n", load="self.net = LEAF")
    service = notebook.register(cell)
    service.ask()
    notebook.register(cell.replace("return x\n", "return ROOT and -x\n"))
    assert (service.ask(), service.version, service.status().loads) == (-1, "v2", 1)


def test_a_factory_counts_with_all_that_it_makes(notebook: Notebook) -> None:
    """Though nobody knows what that is before it is called."""
    cell = text("def made(): return 1\ndef helper(x): return x\n", load="self.net = made()")

    def register(cell: str) -> ServiceHandle:
        notebook.run(cell + "def make(): return S()\n")
        return notebook.registry.register("service", notebook.names["make"])

    service = register(cell)
    service.load()
    register(cell)
    assert service.version == "v1"
    register(cell.replace("helper(x): return x", "helper(x): return -x"))
    assert (service.ask(), service.version, service.status().loads) == (-1, "v2", 1)
    register(cell.replace("return 1", "return 2"))
    service.ask()
    assert service.status().loads == 2


ALIVE = {
    "a counter": ("N = 0\ndef helper(x):\n    global N\n    N += 1\n    return N", "pass"),
    "a list": ("L = []\ndef helper(x):\n    L.append(x)\n    return x", "pass"),
    "a list that was not empty": ("L = ['a']\ndef helper(x):\n    L.append(x)\n    return x", "pass"),
    "a cache": ("C = {}\ndef helper(x):\n    C[x] = lambda: 1\n    return x", "self.cache = C"),
    "a cache by another name": (
        "C = {1: 2}\ndef helper(x):\n    mine = C\n    mine[x, 1] = x\n    return x",
        "self.c = C",
    ),
    "a cache that is bound anew": (
        "C = {}\ndef helper(x):\n    global C\n    C = {**C, x: x}\n    return x",
        "self.size = len(C)",
    ),
    "an attribute": (
        "class P:\n    n = 0\nP1 = P()\ndef helper(x):\n    P1.n += 1\n    P.n += 1\n    return x",
        "self.p = P1.n",
    ),
    "a deque": (
        "D = collections.deque(maxlen=3)\ndef helper(x):\n    D.append(x)\n    return x",
        "self.d = D",
    ),
    "a captured counter": (
        "def counter():\n    n = 0\n    def more(x):\n        nonlocal n\n        n += 1\n"
        "        return n\n    return more\n"
        "helper = counter()",
        "pass",
    ),
    "a cached function": ("@functools.lru_cache\ndef helper(x): return x", "self.c = helper"),
    "a dispatched function": (
        "@functools.singledispatch\ndef helper(x): return x\n@helper.register\ndef _(x: int): return 1",
        "pass",
    ),
    "an array": ("A = np.zeros(3)\ndef helper(x):\n    A[0] += 1\n    return x", "self.a = A"),
    "what has no content": (
        "LOCK, X = threading.Lock(), object()\ndef helper(x): return LOCK, X",
        "self.l = LOCK, X",
    ),
}


@pytest.mark.parametrize("head, load", ALIVE.values(), ids=list(ALIVE))
def test_what_changes_as_calls_run_is_no_edit(notebook: Notebook, head: str, load: str) -> None:
    """Whether it stands in the cell that is run again, and is made anew, or in another one, and lives on."""
    service = notebook.register(text(head, load=load))
    for _ in range(2):
        service.ask()
        notebook.register(text(head, load=load))
    for _ in range(2):
        service.ask()
        notebook.register(text(load=load))
        service.ask()
        notebook.register()
    assert (service.version, service.status().loads) == ("v1", 1)


SET_ON_CLASSES = {
    "a count": "class Net:\n    n = 0\n    def __init__(self): Net.n += 1",
    "the only one": (
        "class Net:\n    one = None\n    def __new__(cls):\n"
        "        if cls.one is None: cls.one = super().__new__(cls)\n        return cls.one"
    ),
    "the only one, not declared": (
        "class Net:\n    def __new__(cls):\n"
        "        if not hasattr(cls, 'one'): cls.one = super().__new__(cls)\n        return cls.one"
    ),
}


@pytest.mark.parametrize("head", SET_ON_CLASSES.values(), ids=list(SET_ON_CLASSES))
@pytest.mark.parametrize("apart", [True, False])
def test_what_code_sets_on_a_class_is_no_edit(notebook: Notebook, head: str, apart: bool) -> None:
    """Neither where its service is run again in a cell of its own, nor where it is only registered again."""
    cell = text("" if apart else head, load="self.net = Net()", ask="setattr(type(self), 'calls', x)")
    notebook.run(head)
    service = notebook.register(cell)
    for again in (cell if apart else "", "", cell if apart else ""):
        service.ask()
        notebook.register(again)
    assert (service.version, service.status().loads) == ("v1", 1)


def test_a_model_of_pydantic_is_no_edit_when_its_cell_is_run_again(notebook: Notebook) -> None:
    """What it compiles has the address of the class in it."""
    head = "import pydantic\nclass C(pydantic.BaseModel):\n    n: int = 1\ndef helper(x): return C().n\n"
    cell = text(head)
    service = notebook.register(cell)
    service.ask()
    notebook.register(cell)
    assert service.version == "v1"
    notebook.register(cell.replace("n: int = 1", "n: int = 2"))
    assert service.version == "v2"


MAKING = """
from grym_nb.services import ModelService, task
{first}
def made(given, factor=1):
    class S(ModelService):
        its = given
        def load(self):
            self.weights = [object()]
        @task
        def ask(self, x=1, also=given):
            {change}
            return factor * x
    return S
"""
CAPTURED = {
    "a dict": ("CACHE = {}", "given[x] = x"),
    "a list": ("CACHE = []", "given.append(x)"),
    "one inside of a tuple": ("CACHE = ({},)", "given[0][x] = x"),
    "one of the user's": (
        "class C:\n    n = 0\nCACHE = C()",
        "given.n += x",
    ),
    "a defaultdict": ("import collections\nCACHE = collections.defaultdict(list)", "given[x].append(x)"),
}


@pytest.mark.parametrize("first, change", CAPTURED.values(), ids=list(CAPTURED))
def test_what_calls_change_of_what_was_captured_is_no_edit(
    notebook: Notebook, first: str, change: str
) -> None:
    """Made again of the same; of other constants, or of another table with other content, it is one."""
    notebook.run(MAKING.format(first=first, change=change))
    service = notebook.register("S = made(CACHE)")
    service.ask(3)
    there = weights(service)
    notebook.register("S = made(CACHE)")
    assert service.version == "v1"
    assert service.ask(2) == 2
    notebook.register("S = made(CACHE, 5)")
    assert (service.version, service.ask(2), weights(service)) == ("v2", 10, there)
    notebook.register("S = made(CACHE, 5)")
    assert service.version == "v2"
    notebook.run(first)
    notebook.register("S = made(CACHE, 5)")
    assert service.version == "v3"


def test_a_class_that_was_not_made_again_sees_constants_anyway(notebook: Notebook) -> None:
    """But functions may be in its state, and its load may depend on either."""
    notebook.run("N, SIZE = 1, 1\ndef helper(x): return x * N")
    service = notebook.register(text(load="self.net = SIZE"))
    assert service.ask() == 1
    notebook.run("N = 2")
    assert notebook.register().version == "v1" and service.ask() == 2
    notebook.run("def helper(x): return x * N + 1")
    assert notebook.register().version == "v2" and service.status().loads == 1
    notebook.run("SIZE = 2")
    assert notebook.register().version == "v3"
    service.load()
    assert service.status().loads == 2


def test_an_attribute_that_init_takes_from_a_constant(notebook: Notebook) -> None:
    """What the old `__init__` has set is not known any more, so it is loaded with the new one."""
    cell = text("GAIN = 2\nOTHER = 1", init="self.gain, self.calls = GAIN, 0", ask="self.gain * OTHER")
    service = notebook.register(cell)
    assert service.ask() == 2
    notebook.register(cell.replace("OTHER = 1", "OTHER = 3"))
    assert service.ask() == 6 and service.status().loads == 1
    notebook.register(cell.replace("OTHER = 1", "OTHER = 3").replace("GAIN = 2", "GAIN = 5"))
    assert service.ask() == 15


def test_a_cached_property_is_computed_anew_where_its_helper_was_edited(notebook: Notebook) -> None:
    """Others keep what they have."""
    head = "def one(): return object()\ndef two(): return [1]\n"
    cell = text(head, ask="(self.one, self.two[0])") + "\n".join(
        f"    @functools.cached_property\n    def {name}(self): return {name}()" for name in ("one", "two")
    )
    service = notebook.register(cell)
    one, _ = service.ask()
    notebook.register(cell.replace("[1]", "[2]"))
    assert service.ask() == (one, 2) and service.status().loads == 1


def test_a_rollback_brings_back_what_was_noted(notebook: Notebook) -> None:
    """The cell that is run again after it is the edit once more."""
    cell = text("def helper(x): return x\n")
    edited = cell.replace("return x\n", "return -x\n")
    service = notebook.register(cell)
    service.ask()
    notebook.register(edited)
    assert service.rollback().after == service.version == "v1"
    assert notebook.register(edited).version == "v3"
    assert service.configure() == "unchanged" and service.status().loads == 1


def test_nothing_large_is_looked_into_or_kept(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor what is installed; whatever it is, nothing is raised."""

    class Hostile:
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError

        def __repr__(self) -> str:
            raise RuntimeError

    class Big(np.ndarray):
        def tobytes(self, *_: Any) -> bytes:
            raise AssertionError("hashed")

        tolist = __array__ = __iter__ = tobytes  # type: ignore[assignment]

    big = np.zeros(3).view(Big)
    gone = [weakref.ref(big), weakref.ref(hostile := Hostile())]
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    notebook.names.update(
        BIG=big, HOSTILE=hostile, DEEP=deep, MANY=[*range(2_000_000)], MODELS=[big], LONG="x" * 10**7
    )
    notebook.run("def helper(x): return BIG, HOSTILE, DEEP, MANY, MODELS, LONG, np.linalg")
    found = notebook.reached(text(load="self.all = BIG, HOSTILE, MODELS"))
    found = notebook.reached(text())
    assert not found.differs(notebook.reached(text()), made_anew=True)
    assert not [place for place in found.found if "numpy" in place]
    for name in ("BIG", "HOSTILE", "MODELS"):
        del notebook.names[name]
    del big, hostile
    gc.collect()
    assert [one() for one in gone] == [None, None]


def test_only_code_of_a_notebook_is_looked_at(notebook: Notebook) -> None:
    """A file is reloaded; what is behind a `partial` counts as it does without."""
    assert reached_by(Notebook, Notebook) is None
    notebook.run(text("def helper(x): return x\n"))
    made: Callable[..., Any] = partial(notebook.names["S"])
    assert reached_by(made, notebook.names["S"]) is not None
