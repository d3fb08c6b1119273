"""Edits of what a module has at its top: constants, registries, caches, what is made once and has to stay."""

from __future__ import annotations

from tests.services.reload.kinds.kind import Kind, kind, service

__all__ = ["NAMES"]

_WEIGHTS = """
    WEIGHTS = [object()]
    def more(x):
        return x + 1
"""
_REGISTRY = """
    R = {}
    def register(name):
        def decorate(f):
            R[name] = f
            return f
        return decorate
    @register("a")
    def first(x):
        return x + 1
    @register("b")
    def second(x):
        return x + 2
"""
_ITEMS = """
    R = {}
    def f(x):
        return x + 1
    R["a"] = f
    R["b"] = f
"""
_COUNTER = """
    COUNT = 0
    def count():
        global COUNT
        COUNT += 1
        return COUNT
    def more(x):
        return x + 1
"""
_CACHE = """
    from functools import lru_cache
    @lru_cache
    def slow(x):
        return x + 1
    def more(x):
        return x
    slow(1)
"""
_KEPT = """
    import threading
    from concurrent.futures import ThreadPoolExecutor
    from contextvars import ContextVar
    LOCK, POOL, VAR = threading.Lock(), ThreadPoolExecutor(1), ContextVar("VAR", default=1)
    def more(x):
        return x + 1
"""

NAMES: tuple[Kind, ...] = (
    kind("a constant", service("return x + N", head="N = 1"), ("N = 1", "N = 2"), 4, 5),
    kind(
        "a constant by way of another",
        service("return x + M", head="N = 1\nM = N * 10"),
        ("N = 1", "N = 2"),
        *(13, 23),
    ),
    kind(
        "a function beside a module's weights",
        service("return more(x)", head=_WEIGHTS, held="self.weights, WEIGHTS, WEIGHTS[0]"),
        ("x + 1", "x + 2"),
        *(4, 5),
    ),
    kind(
        "what a module's weights are made by",
        service("return len(WEIGHTS)", head="WEIGHTS = [object()]"),
        ("WEIGHTS = [object()]", "WEIGHTS = [object(), object()]"),
        *(1, 2),
    ),
    kind(
        "a module's weights that load takes",
        service("return self.net is NET, self.net", head="NET = ['one']", load="self.net = NET"),
        ("'one'", "'two'"),
        *((True, ["one"]), (True, ["two"])),
        how="loaded",
    ),
    kind(
        "an entry of a dictionary",
        service("return TABLE['a'] + x", head="TABLE = {'a': 1, 'b': 2}"),
        ("'a': 1", "'a': 10"),
        *(4, 13),
    ),
    kind(
        "an item that is set later",
        service("return TABLE['a'] + x", head="TABLE = {}\nTABLE['a'] = 1"),
        ("['a'] = 1", "['a'] = 10"),
        *(4, 13),
    ),
    kind(
        "a registration that is removed",
        service("return [*R]", head=_ITEMS),
        ('R["b"] = f\n', ""),
        *(["a", "b"], ["a"]),
    ),
    kind(
        "a registered function",
        service("return [one(x) for one in R.values()]", head=_REGISTRY),
        ("x + 2", "x + 20"),
        *([4, 5], [4, 23]),
    ),
    kind(
        "a registered function, deleted",
        service("return [*R]", head=_REGISTRY),
        ('@register("b")\ndef second(x):\n    return x + 2\n', ""),
        *(["a", "b"], ["a"]),
    ),
    kind(
        "a registered function, by another name",
        service("return [*R]", head=_REGISTRY),
        ('@register("b")', '@register("c")'),
        *(["a", "b"], ["a", "c"]),
    ),
    kind(
        "a function beside a counter",
        service("return COUNT, more(x)", head=_COUNTER),
        ("x + 1", "x + 2"),
        *((0, 4), (0, 5)),
    ),
    kind(
        "a module's name that is deleted",
        service("try:\n    return N\nexcept NameError:\n    return None", head="N = 1"),
        ("N = 1\n", ""),
        *(1, None),
        cell=False,
    ),
    kind(
        "a try around an import",
        service(
            "return NAME",
            head="""
                try:
                    import nowhere_at_all
                    NAME = "there"
                except ImportError:
                    NAME = "missing"
            """,
        ),
        ('"missing"', '"gone"'),
        *("missing", "gone"),
    ),
    kind(
        "an if at the top",
        service("return f(x)", head="if True:\n    def f(x):\n        return x + 1"),
        ("x + 1", "x + 2"),
        *(4, 5),
    ),
    kind(
        "a loop at the top",
        service("return MADE", head="MADE = []\nfor n in range(3):\n    MADE.append(n)"),
        ("range(3)", "range(2)"),
        *([0, 1, 2], [0, 1]),
    ),
    kind(
        "if TYPE_CHECKING",
        service(
            "return more(x)",
            head="""
                from typing import TYPE_CHECKING
                if TYPE_CHECKING:
                    from decimal import Decimal
                def more(x: "Decimal") -> "Decimal":
                    return x + 1
            """,
        ),
        [("from decimal import Decimal", "from fractions import Fraction"), ("x + 1", "x + 2")],
        *(4, 5),
    ),
    kind(
        "from __future__",
        "from __future__ import annotations\n"
        + service("return more.__annotations__['x'], x", head="def more(x: Nobody):\n    return x"),
        ("], x", "], x + 1"),
        *(("Nobody", 3), ("Nobody", 4)),
    ),
    kind(
        "from __future__, added",
        service("return more.__annotations__['x']", head="def more(x: int):\n    return x"),
        ("from grym_nb", "from __future__ import annotations\nfrom grym_nb"),
        *(int, "int"),
        cell=False,
    ),
    kind(
        "a type alias and a TypeVar",
        service(
            "return first([x]), Box[int](x).value",
            head="""
                from typing import Generic, TypeVar
                T = TypeVar("T")
                Many = list[T]
                def first(many: Many[int]) -> int:
                    return many[0]
                class Box(Generic[T]):
                    def __init__(self, value: T) -> None:
                        self.value = value
            """,
        ),
        [("Many = list[T]", "Many = tuple[T, ...]"), ("many[0]", "many[0] + 1")],
        *((3, 3), (4, 3)),
    ),
    kind(
        "a function that is cached",
        service("return slow(1), slow.cache_info().currsize", head=_CACHE),
        ("x + 1", "x + 2"),
        *((2, 1), (3, 1)),
    ),
    kind(
        "a function beside one that is cached",
        service("return more(x)", head=_CACHE, held="self.weights, slow"),
        ("    return x\n", "    return -x\n"),
        *(3, -3),
    ),
    kind(
        "a function beside a lock, a pool and a contextvar",
        service("return POOL.submit(more, x).result()", head=_KEPT, held="self.weights, LOCK, POOL, VAR"),
        ("x + 1", "x + 2"),
        *(4, 5),
    ),
    kind(
        "a module's __getattr__",
        service(
            "import m\nreturn m.anything",
            head="def __getattr__(name):\n    return 'no ' + name",
        ),
        ("'no '", "'still no '"),
        *("no anything", "still no anything"),
        cell=False,
    ),
    kind(
        "a huge literal",
        service("return sum(BIG) + x", head=f"BIG = {[*range(20_000)]}"),
        (") + x", ") - x"),
        *(199_990_003, 199_989_997),
    ),
    kind(
        "tabs and carriage returns",
        "from grym_nb import ModelService, task\r\nclass S(ModelService):\r\n"
        "\tdef load(self):\r\n\t\tself.weights = [object()]\r\n"
        '\t@task("held")\r\n\tdef held(self):\r\n\t\treturn (self.weights,)\r\n'
        '\t@task("ask")\r\n\tdef ask(self, x=3):\r\n\t\treturn x + 1\r\n',
        ("x + 1", "x + 2"),
        *(4, 5),
    ),
    kind(
        "a comment",
        service("return x + 1"),
        ("x + 1", "x + 1  # or so"),
        *(4, 4),
        how="unchanged",
        cell=False,
    ),
    kind("an empty line", service("return x"), ("class S", "\n\nclass S"), 3, 3, how="unchanged", cell=False),
    kind(
        "another encoding is said",
        "# -*- coding: latin-1 -*-\n" + service("return 'é', x"),
        ("'é', x", "'ü', x"),
        *(("é", 3), ("ü", 3)),
        cell=False,
    ),
)
