"""Which statements run again after an edit, and which are carried over."""

from __future__ import annotations

from textwrap import dedent

import pytest

from grym_nb.services.reload.plan import Code, Plan, plan


def edited(before: str, after: str, **more: str) -> list[str]:
    """Return the first lines of what runs again in a module; `more` are helpers that stay as they are."""
    helpers = {name: Code(name, dedent(text)) for name, text in more.items()}
    old = {"m": Code("m", dedent(before)), **helpers}
    new = {"m": Code("m", dedent(after)), **helpers}
    return first_lines(plan(old, new), new["m"])


def first_lines(found: Plan, code: Code) -> list[str]:
    lines = code.text.split("\n")
    places = sorted(found.run.get(code.name, ()))
    nodes = [code.statements[at].node for at in places]
    firsts = [min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))]) for node in nodes]
    return [lines[first - 1] for first in firsts]


MODEL = """
    import torch
    from dataclasses import dataclass
    RATE = 16000
    W = torch.zeros(RATE)
    def scale(x):
        return x * 2
    def other(x):
        return x
    @dataclass
    class Result:
        value: float
    class Model:
        def run(self, x):
            return Result(scale(x))
        def second(self):
            return W
"""


@pytest.mark.parametrize(
    ("was", "now", "runs"),
    [
        ("return x * 2", "return x * 3", ["def scale(x):", "class Model:"]),
        ("return x\n", "return -x\n", ["def other(x):"]),
        ("return x * 2", "return x * 2  # why", []),
        ("RATE = 16000", "RATE =  16000", []),
        ("RATE = 16000", "RATE = 8000", ["RATE = 8000", "W = torch.zeros(RATE)", "class Model:"]),
        ("value: float", "value: int", ["@dataclass", "class Model:"]),
        ("return W", "return W + 1", ["class Model:"]),
        ("import torch", "import torch as torch", []),
    ],
)
def test_what_an_edit_runs_again(was: str, now: str, runs: list[str]) -> None:
    assert was in MODEL
    assert edited(MODEL, MODEL.replace(was, now)) == runs


REGISTRY = """
    HANDLERS = {}
    LIMIT = 3
    def register(name):
        def decorate(f):
            HANDLERS[name] = f
            return f
        return decorate
    @register("a")
    def first(x):
        return x
    @register("b")
    def second(x):
        return x + LIMIT
    def plain(x):
        return x
    def dispatch(name, x):
        return HANDLERS[name](x)
"""
BOTH = ["HANDLERS = {}", "def register(name):", '@register("a")', '@register("b")']


def test_a_registry_is_made_anew_with_all_that_is_in_it() -> None:
    was = '    @register("b")\n    def second(x):\n        return x + LIMIT\n'
    kept = [line for line in BOTH if '"b"' not in line]
    assert edited(REGISTRY, REGISTRY.replace(was, "")) == [*kept, "def dispatch(name, x):"]
    assert edited(REGISTRY, REGISTRY.replace("LIMIT\n", "1\n")) == [*BOTH, "def dispatch(name, x):"]
    assert edited(REGISTRY, REGISTRY.replace("LIMIT = 3", "LIMIT = 4")) == [
        *("HANDLERS = {}", "LIMIT = 4", *BOTH[1:]),
        "def dispatch(name, x):",
    ]
    plain = REGISTRY.replace("def plain(x):\n        return x", "def plain(x):\n        return 1")
    assert edited(REGISTRY, plain) == ["def plain(x):"]


@pytest.mark.parametrize(
    "line",
    [
        "R['b'] = f",
        "R.update(b=f)",
        "put(R, 'b', f)",
        "del R['a']",
        "R |= {'b': f}",
        "x = R.pop('a')",
        "for name in 'bc': R[name] = f",
        "[R.setdefault(name, f) for name in 'bc']",
        "class B(Base): pass",
        "Maker()",
        "Maker.make()",
        "later = Maker().make",
        "nested()",
    ],
)
def test_what_is_changed_in_place_is_made_anew(line: str) -> None:
    text = """
        def f(x): return x
        def put(where, name, what): where[name] = what
        R = {'a': f}
        class Base:
            def __init_subclass__(cls): R[cls.__name__] = cls
        class Maker:
            def __init__(self): R['made'] = self
            @classmethod
            def make(cls): R['made'] = cls
        def nested(): Maker()
        W = [0] * 1000
        %s
        def ask(name): return R[name]
    """
    with_it, without = edited(text % "pass", text % line), edited(text % line, text % "pass")
    assert "R = {'a': f}" in with_it and "def ask(name): return R[name]" in with_it and line in with_it
    assert "R = {'a': f}" in without and "def ask(name): return R[name]" in without
    assert "W = [0] * 1000" not in with_it + without


@pytest.mark.parametrize(
    "line", ["print(W)", "np.random.seed(0)", "x = len(W)", "y = W[0]", "z = scaled(W)", "assert W"]
)
def test_what_is_only_looked_at_stays(line: str) -> None:
    text = """
        import numpy as np
        def scaled(w): return [one * 2 for one in w]
        W = [np.zeros(3)]
        %s
    """
    assert edited(text % "pass", text % line) == [line]
    assert edited(text % line, text % "pass") == ["pass"]


def test_functions_that_share_what_one_of_them_binds_see_it_in_one_place() -> None:
    text = """
        COUNT = 0
        def bump():
            global COUNT
            COUNT += 1
        def show():
            return COUNT
        def other():
            return 1
    """
    assert edited(text, text.replace("+= 1", "+= 2")) == ["def bump():", "def show():"]
    assert edited(text, text.replace("return COUNT", "return -COUNT")) == ["def bump():", "def show():"]
    assert edited(text, text.replace("return 1", "return 2")) == [
        "def bump():",
        "def show():",
        "def other():",
    ]
    assert edited(text, text.replace("COUNT = 0", "COUNT = 5"))[0] == "COUNT = 5"


def test_an_order_that_matters_is_an_edit() -> None:
    assert edited("x = 1\nx = x + 1\ny = 0", "x = x + 1\nx = 1\ny = 0") == ["x = x + 1", "x = 1"]
    assert edited("x = 1\ny = x\nx = 2", "x = 1\nx = 2\ny = x") == ["x = 1", "x = 2", "y = x"]
    assert edited("x = 1\ny = 2", "y = 2\nx = 1") == []
    assert edited("x = []\nx.append(1)\nx.append(1)", "x = []\nx.append(1)") == ["x = []", "x.append(1)"]


def test_what_is_set_up_once_is_not_made_anew_for_what_uses_it_later() -> None:
    text = """
        W = load()
        W.eval()
        SIZE = W.numel()
        class Model:
            def run(self, x): return W + x
    """
    assert edited(text, text.replace("W + x", "W - x")) == ["class Model:"]
    assert edited(text, text.replace("W.eval()", "W.train()")) == [
        *("W = load()", "W.train()", "SIZE = W.numel()", "class Model:"),
    ]


@pytest.mark.parametrize(
    "reads",
    [
        "first = make(path)",
        "first = (lambda: make(path))()",
        "def again(): return make(path)\nfirst = again()",
        "def first(x, at=make(path)): return x",
        "class First:\n    at = make(path)",
    ],
)
def test_what_is_made_in_steps_is_made_anew_for_what_reads_it_in_between(reads: str) -> None:
    text = f"def make(at): return at\npath = 'a'\n{reads}\npath = 'b'\nsecond = make(path)"
    runs = edited(text, text.replace("return at", "return [at]"))
    assert runs == ["def make(at): return [at]", *text.split("\n")[1:2], *firsts_of(reads), *runs[-2:]]
    assert runs[-2:] == ["path = 'b'", "second = make(path)"]


def firsts_of(text: str) -> list[str]:
    return [line for line in text.split("\n") if line[:1] != " "]


def test_names_of_functions_are_not_those_of_the_module() -> None:
    text = """
        x = 1
        def f(x): return [y for y in x]
        def g():
            x = 2
            return x
        class C:
            x = 3
            def h(self): return self.x
        def uses(): return x
    """
    assert edited(text, text.replace("x = 1", "x = 0")) == ["x = 0", "def uses(): return x"]


def modules(**texts: str) -> dict[str, Code]:
    return {name: Code(name, dedent(text)) for name, text in texts.items()}


def test_helpers_are_followed_by_attribute() -> None:
    service = """
        import helpers
        from helpers import scale as s
        def one(x): return helpers.scale(x)
        def two(x): return s(x)
        def three(x): return helpers.offset(x)
        def four(): return dir(helpers)
        def five(x):
            from helpers import scale
            return scale(x)
        W = helpers.offset(0)
    """
    helper = """
        import deeper
        def scale(x): return deeper.times(x, 2)
        def offset(x): return x + deeper.OFFSET
    """
    deeper = "OFFSET = 1\ndef times(x, n): return x * n"
    before = modules(m=service, helpers=helper, deeper=deeper)
    after = modules(m=service, helpers=helper, deeper=deeper.replace("x * n", "n * x"))
    found = plan(before, after)
    assert first_lines(found, after["deeper"]) == ["def times(x, n): return x * n".replace("x * n", "n * x")]
    assert first_lines(found, after["helpers"]) == ["def scale(x): return deeper.times(x, 2)"]
    assert first_lines(found, after["m"]) == [
        "from helpers import scale as s",
        "def one(x): return helpers.scale(x)",
        "def two(x): return s(x)",
        "def four(): return dir(helpers)",
        "def five(x):",
    ]


def test_helpers_that_import_one_another_are_followed() -> None:
    a = "import b\ndef even(n): return n == 0 or b.odd(n - 1)\ndef alone(): return 1"
    b = "import a\ndef odd(n): return n != 0 and a.even(n - 1)"
    before = modules(a=a, b=b)
    after = modules(a=a.replace("n == 0", "not n"), b=b)
    found = plan(before, after)
    assert first_lines(found, after["a"]) == ["def even(n): return not n or b.odd(n - 1)"]
    assert first_lines(found, after["b"]) == ["def odd(n): return n != 0 and a.even(n - 1)"]


def test_a_helper_that_registers_here_has_all_made_anew() -> None:
    helper = "R = {}\ndef register(f):\n    R[f.__name__] = f\n    return f\nUNTOUCHED = [1]"
    service = (
        "from helpers import R, register\n@register\ndef one(): return 1\n@register\ndef two(): return 2\n"
    )
    before, after = (
        modules(m=service, helpers=helper),
        modules(m=service.replace("return 1", "return 3"), helpers=helper),
    )
    found = plan(before, after)
    assert first_lines(found, after["helpers"]) == ["R = {}", "def register(f):"]
    assert len(first_lines(found, after["m"])) == 4 and found.gone == {
        "m": frozenset(),
        "helpers": frozenset(),
    }


def test_all_that_a_helper_has_is_followed() -> None:
    helper = "def scale(x): return x\ndef other(x): return x\n"
    service = "from helpers import *\ndef one(x): return scale(x)\ndef two(x): return other(x)\n"
    before = modules(m=service, helpers=helper)
    after = modules(m=service, helpers=helper.replace("scale(x): return x", "scale(x): return -x"))
    assert first_lines(plan(before, after), after["m"]) == [
        "from helpers import *",
        "def one(x): return scale(x)",
        "def two(x): return other(x)",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "globals()['z'] = 1",
        "vars().update(z=1)",
        "exec('z = 1')",
        "def __getattr__(name): return name, 1",
        "def put(name): globals()[name] = 1\nput('z')",
    ],
)
def test_what_is_bound_by_no_statement_is_followed(line: str) -> None:
    helper = f"{line}\nOTHER = []\ndef within(): return z\ndef plain(x): return len(x)\n"
    service = (
        "import helpers\nfrom helpers import z\nW = [0]\ndef one(): return helpers.z\ndef two(): return W\n"
    )
    before = modules(m=service, helpers=helper)
    after = modules(m=service, helpers=helper.replace("1", "2"))
    found = plan(before, after)
    assert first_lines(found, after["helpers"])[-1] == "def within(): return z"
    assert first_lines(found, after["m"]) == ["from helpers import z", "def one(): return helpers.z"]


def test_all_that_a_helper_has_of_another_is_followed() -> None:
    texts = {"p": "from deep import *\n", "m": "from p import *\ndef one(x): return scale(x)\n"}
    before = modules(deep="def scale(x): return x\n", **texts)
    after = modules(deep="def scale(x): return -x\n", **texts)
    assert first_lines(plan(before, after), after["m"]) == ["from p import *", "def one(x): return scale(x)"]


@pytest.mark.parametrize(
    "service",
    [
        "import helpers\nhelpers.R['a'] = 1\nhelpers.R['b'] = 2\n",
        "from helpers import R\nR['a'] = 1\nR['b'] = 2\n",
        "from helpers import R as S\nS['a'] = 1\nS['b'] = 2\n",
        "S = {}\nfrom helpers import R as S\nS['a'] = 1\nS['b'] = 2\n",
        "from helpers import R\nR |= {'a': 1}\nR |= {'b': 2}\n",
        "from helpers import *\nR['a'] = 1\nR['b'] = 2\n",
        "from helpers import *\nput('a', 1)\nput('b', 2)\n",
        "from between import *\nR['a'] = 1\nR['b'] = 2\n",
    ],
)
def test_what_a_module_changes_of_a_helper_by_its_name_is_made_anew_there(service: str) -> None:
    helper = "R = {}\nOTHER = []\ndef put(name, value): R[name] = value\n"
    *kept, second, _ = service.split("\n")
    for was, now in (
        (service, service.replace(second, "")),
        (service, service.replace("2", "3")),
        ("\n".join(kept), service),
    ):
        before = modules(m=was, helpers=helper, between="from helpers import R\n")
        after = modules(m=now, helpers=helper, between="from helpers import R\n")
        found = plan(before, after)
        assert first_lines(found, after["helpers"])[0] == "R = {}"
        assert "OTHER = []" not in first_lines(found, after["helpers"])
        assert kept[-1] in first_lines(found, after["m"])


def test_packages_are_followed_by_their_parts() -> None:
    before = {
        "p": Code("p", "from .util import scale\n", package=True),
        "p.util": Code(
            "p.util", "from . import deep\ndef scale(x): return deep.times(x)\ndef rest(): pass\n"
        ),
        "p.deep": Code("p.deep", "def times(x): return x\nN = 1\n"),
        "m": Code(
            "m",
            "import p.util\nimport p.deep as d\ndef one(x): return p.util.scale(x)\ndef two(): return d.N\n",
        ),
    }
    after = {**before, "p.deep": Code("p.deep", "def times(x): return 2 * x\nN = 1\n")}
    found = plan(before, after)
    assert {name: first_lines(found, after[name]) for name in after} == {
        "p": ["from .util import scale"],
        "p.util": ["def scale(x): return deep.times(x)"],
        "p.deep": ["def times(x): return 2 * x"],
        "m": ["def one(x): return p.util.scale(x)"],
    }


def test_what_is_gone_is_told() -> None:
    before, after = modules(m="x = 1\ny = 2\ndef f(): return y"), modules(m="x = 1\ndef f(): return y")
    found = plan(before, after)
    assert found.gone == {"m": frozenset({"y"})} and first_lines(found, after["m"]) == ["def f(): return y"]


def test_what_stands_as_it_did_is_not_read_again() -> None:
    before = Code("m", dedent(MODEL))
    text = "\n" + dedent(MODEL).replace("return W", "return W + 1")
    again, anew = Code("m", text, before=before), Code("m", text)
    same = [one.uses is other.uses for one, other in zip(again.statements, before.statements, strict=True)]
    assert same == [True] * (len(same) - 1) + [False]
    assert [one.node.lineno for one in again.statements] == [one.node.lineno for one in anew.statements]
    assert [one.text for one in again.statements] == [one.text for one in anew.statements]
    assert [(one.binds, one.uses, one.by.keys()) for one in again.statements] == [
        (one.binds, one.uses, one.by.keys()) for one in anew.statements
    ]


def test_lines_are_those_of_python() -> None:
    text = 'A = "a\u2028b"\n\x0c\nB = A\nC = 1; D = C\n'
    assert [sorted(one.binds) for one in Code("m", text).statements] == [["A"], ["B"], ["C"], ["D"]]
    assert edited(text, text.replace("C = 1", "C = 2")) == ["C = 2; D = C"] * 2


def test_what_is_annotated_runs_again_with_another_future() -> None:
    text = "\nW = 1\ndef f(x: int) -> int:\n    return x\ndef g(x):\n    return x\n"
    future = "from __future__ import annotations"
    assert edited(text, future + text) == [future, "def f(x: int) -> int:"]
