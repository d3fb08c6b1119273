"""What code names outside of itself: told by content, wherever it hangs, but for what the code changes."""

from __future__ import annotations

import linecache
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from grym_nb.services.named import named_by

CELL = """
import abc, dataclasses, enum, functools, logging, math, re, threading, types, typing
from collections import OrderedDict
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Generic, NamedTuple, Optional, Protocol, TypeVar
import numpy as np
from grym_nb.services import ModelService, positive, task, within
T = TypeVar("T")
"""


def run(cell: str, name: str = "M") -> Any:
    """Run a cell as a notebook does, with its source at hand, and return what it defined as `M`."""
    return space_of(cell)[name]


def space_of(cell: str) -> dict[str, Any]:
    code = CELL + cell
    file = f"<cell {hash(code)}>"
    linecache.cache[file] = len(code), None, code.splitlines(keepends=True), file
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, file, "exec"), space)
    return space


#: a cell with a name that its code uses, and an edit of it that would change an answer
NAMED = {
    "a function": ("def h(x): return x", "def h(x): return x + 1"),
    "a number": ("h = 1", "h = 2"),
    "a table": ("h = {'a': [1, 2]}", "h = {'a': [1, 3]}"),
    "an array": ("h = np.zeros(3)", "h = np.ones(3)"),
    "a lambda": ("h = lambda: 1", "h = lambda: 2"),
    "a decorated function": (
        "@functools.lru_cache\ndef h(): return 1",
        "@functools.lru_cache\ndef h(): return 2",
    ),
    "a class": ("class h:\n    def f(self): return 1", "class h:\n    def f(self): return 2"),
    "an object of a class": (
        "class H:\n    def f(self): return 1\nh = H()",
        "class H:\n    def f(self): return 2\nh = H()",
    ),
    "a function of a function": (
        "def deep(): return 1\ndef h(): return deep()",
        "def deep(): return 2\ndef h(): return deep()",
    ),
    "a partial": ("h = functools.partial(lambda x: x, 1)", "h = functools.partial(lambda x: -x, 1)"),
    "what a partial holds": ("h = functools.partial(max, 1)", "h = functools.partial(max, 2)"),
    "a function in a dict": ("h = {'a': lambda: 1}", "h = {'a': lambda: 2}"),
    "a function in a list of others": ("h = [len, lambda: 1]", "h = [len, lambda: 2]"),
    "a function that a partial is given": (
        "h = functools.partial(map, lambda: 1)",
        "h = functools.partial(map, lambda: 2)",
    ),
    "a number beside what is not plain": ("h = {'gain': 1, 'log': print}", "h = {'gain': 2, 'log': print}"),
    "a number deep inside": ("h = [[[[[[1, len]]]]]]", "h = [[[[[[2, len]]]]]]"),
    "a dataclass": (
        "@dataclasses.dataclass(frozen=True)\nclass C:\n    x: int\nh = C(1)",
        "@dataclasses.dataclass(frozen=True)\nclass C:\n    x: int\nh = C(2)",
    ),
    "a dataclass with slots": (
        "@dataclasses.dataclass(slots=True)\nclass C:\n    x: int\nh = C(1)",
        "@dataclasses.dataclass(slots=True)\nclass C:\n    x: int\nh = C(2)",
    ),
    "a named tuple": (
        "class P(NamedTuple):\n    x: int\nh = P(1)",
        "class P(NamedTuple):\n    x: int\nh = P(2)",
    ),
    "a namespace": ("h = types.SimpleNamespace(x=1)", "h = types.SimpleNamespace(x=2)"),
    "an ordered dict": ("h = OrderedDict(x=1)", "h = OrderedDict(x=2)"),
    "a decimal": ("h = Decimal('1')", "h = Decimal('2')"),
    "an object of the user's": (
        "class H:\n    def __init__(self, n): self.n = n\nh = H(1)",
        "class H:\n    def __init__(self, n): self.n = n\nh = H(2)",
    ),
    "a function of a library": ("h = math.sin", "h = math.cos"),
    "a ufunc": ("h = np.add", "h = np.subtract"),
    "an enum": (
        "class h(enum.Enum):\n    A = 1",
        "class h(enum.Enum):\n    A = 2",
    ),
    "a default": ("def h(x=1): return x", "def h(x=2): return x"),
    "another name": ("h = math.sin", "h = 3"),
}

USES = {
    "in a method": "class M:\n    def f(self): return h",
    "in a method of a base": "class B:\n    def f(self): return h\nclass M(B): pass",
    "in a property": "class M:\n    @property\n    def f(self): return h",
    "in a static method": "class M:\n    @staticmethod\n    def f(): return h",
    "in a function within": "def M():\n    return [lambda: h]",
    "behind a decorator": (
        "def deco(f):\n    def g(*args): return f(*args)\n    return g\n"
        "class M:\n    @deco\n    def f(self): return h"
    ),
}


@pytest.mark.parametrize("use", USES.values(), ids=list(USES))
@pytest.mark.parametrize("before, after", NAMED.values(), ids=list(NAMED))
def test_what_code_names_is_told_by_content(before: str, after: str, use: str) -> None:
    """The same in another kernel, and different after an edit, wherever it is named."""
    assert named_by(run(f"{before}\n{use}")) == named_by(run(f"{before}\n{use}"))
    assert named_by(run(f"{before}\n{use}")) != named_by(run(f"{after}\n{use}"))


def test_what_the_code_counts_itself_and_what_no_other_kernel_has_is_left_out() -> None:
    """A counter, a generator: with them no later run would ever find its results again."""
    cell = "n = 0\nrandom = np.random.default_rng()\n"
    cell += "def M():\n    global n\n    n += 1\n    return random"
    made = run(cell)
    before = named_by(made)
    made()
    assert named_by(made) == before == named_by(run(cell))


def test_of_a_module_what_is_named_of_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the user's own, imported at the top or inside; of a package only that it is named."""

    def told(cell: str, **content: Any) -> tuple[tuple[str, str], ...]:
        mine = ModuleType("mine")
        exec("def helper(): return 1\ndef other(): return 1", vars(mine))
        for name, code in content.items():
            exec(code, vars(mine))
            assert name in vars(mine)
        monkeypatch.setitem(sys.modules, "mine", mine)
        return named_by(run(cell))

    for cell in (
        "import mine\ndef M(): return mine.helper()",
        "def M():\n    import mine\n    return mine.helper()",
    ):
        assert told(cell) == told(cell, other="def other(): return 2")
        assert told(cell) != told(cell, helper="def helper(): return 2")
    assert len(named_by(run("def M(): return np.zeros(3), math.pi"))) == 2


def test_a_circle_of_names_comes_to_an_end() -> None:
    """Functions that call one another."""
    told = named_by(run("def a(): return M()\ndef M(): return a()"))
    assert [place for place, _ in told] == ["", "__main__ M", "__main__ a", "__main__.M", "__main__.a"]


def test_a_stranger_among_the_names_is_let_be() -> None:
    """A proxy that raises whatever it is asked, before it is bound to something."""
    cell = (
        "class Proxy:\n    @property\n    def __class__(self): raise RuntimeError('not bound')\n"
        "    def __getattr__(self, name): raise RuntimeError('not bound')\n"
        "p = Proxy()\ndef M(): return p"
    )
    assert named_by(run(cell)) == named_by(run(cell))


#: cells whose task changes what it names when it runs
CHANGING = {
    "a list": "log = []\ndef M(): log.append(1)",
    "a dict": "memo = {}\ndef M(): memo[1, 2] = 3",
    "a dict in a dict": "memo = {'a': {}}\ndef M(): memo['a'][len(memo['a'])] = 3",
    "a set, by a bound method": "seen = set()\ndef M():\n    add = seen.add\n    add(1)",
    "a number of a helper": "n = 0\ndef up():\n    global n\n    n += 1\ndef M():\n    up()\n    return n",
    "a cache of a helper": "memo = {}\ndef make(x): memo[x] = object()\ndef M(): make(len(memo))",
    "a memo in a closure": (
        "def memo(f):\n    known = {}\n    def g(x):\n        known[x] = f(x)\n    return g\n"
        "@memo\ndef slow(x): return x\ndef M(): slow(1)"
    ),
    "a memo of functools": "@functools.lru_cache\ndef slow(x): return x\ndef M(): slow(1)",
    "a dispatcher": (
        "@functools.singledispatch\ndef f(x): return x\n@f.register\ndef _(x: int): return 1\ndef M(): f(1)"
    ),
    "a default": "def M(known=[]): known.append(1)",
    "a count of the class": "class M:\n    n = 0\n    def __init__(self): type(self).n += 1",
    "a list of the class": "class M:\n    seen = []\n    def __init__(self): self.seen.append(1)",
    "a count of an object": (
        "class C:\n    def __init__(self): self.n = 0\n    def up(self): self.n += 1\n"
        "c = C()\ndef M(): c.up()"
    ),
    "an attribute of an object": "c = types.SimpleNamespace(n=0)\ndef M(): c.n += 1",
}


@pytest.mark.parametrize("cell", CHANGING.values(), ids=list(CHANGING))
def test_what_the_code_changes_itself_does_not_count(cell: str) -> None:
    """A list of timings, a cache, a counter: with them no later run would find its results again."""
    made = run(cell)
    before = named_by(made)
    made()
    made()
    assert named_by(made) == before == named_by(run(cell))


@pytest.mark.parametrize(
    "cell",
    [
        "mean = {}\ndef M(x): return x.mean()",
        "words = {}\nclass M:\n    def f(self): return self.words",
        "x = {}\ndef M(x): return [x for x in x]",
    ],
)
def test_a_variable_that_only_bears_the_name_of_an_attribute_or_a_local_is_none(cell: str) -> None:
    """It is looked up at no call."""
    assert named_by(run(cell.format(1))) == named_by(run(cell.format([2])))


def test_another_process_tells_the_same() -> None:
    """A result file is read by the next kernel: nothing may hang on an address or a seed of hashing."""
    cell = """
class Colour(enum.Flag):
    RED = 1
    BLUE = 2
class Pair(NamedTuple):
    x: int = 1
class Plain:
    pass
rng, log, lock, plain = np.random.default_rng(), logging.getLogger("x"), threading.Lock(), Plain()
normal, names, sets = rng.normal, {"b", "a", Colour.RED}, [set("abc"), rng]
def M(rng=rng):
    return Colour, Pair, rng, log, lock, plain, normal, names, sets, [].append, str.join, math
"""
    here = named_by(run(cell))
    script = f"from tests.services.test_named import run, named_by; print(repr(named_by(run({cell!r}))))"
    for seed in ("1", "2"):
        told = subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout.strip() == repr(here)
