"""The plan of the house, read from the source: floors, circles, names and sizes.

A rule takes sources (module name -> text) and returns what breaks it, one line each. Every rule is shown
small examples that break it and small examples that keep it, so that none can pass by seeing nothing.
"""

from __future__ import annotations

import ast
import dis
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.util import find_spec
from pathlib import Path
from types import CodeType

import pytest

ROOT = "grym_nb"

#: Where each module or package of the root lives. The mezzanine, 0.5, may be used by floor 1.
FLOORS: dict[str, float] = {
    "errors": 0,
    "render": 0.5,
    "sizes": 0.5,
    "events": 1,
    "clock": 1,
    "devices": 1,
    "clip": 1,
    "priority": 1,
    "settings": 1,
    "pulse": 2,
    "metrics": 3,
    "hardening": 3,
    "context": 3,
    "services": 4,
    "audio": 5,
    "flow": 5,
    "health": 5,
    "runtime": 6,
    "notebook": 7,
    "api": 7,
    "testing": 7,
    "__main__": 8,
}
ROOT_FLOOR = 8.0

#: Never imported at module level: the import alone costs what a whole session should.
HEAVY = frozenset(
    "IPython accelerate anywidget asyncio diffusers ipykernel ipywidgets librosa matplotlib numpy psutil "
    "pydantic pydantic_settings pyloudnorm ray scipy soundfile soxr torch torchaudio torchsde transformers "
    "watchdog yaml".split()
)
#: But for these, in parts that are themselves imported lazily.
LIGHT_IN = {
    "audio": frozenset({"numpy", "asyncio"}),
    "notebook": frozenset({"IPython", "anywidget", "asyncio", "ipykernel", "ipywidgets"}),
    "api": frozenset({"asyncio"}),
}

BANNED_WORDS = frozenset(
    "Base Handler Handlers Helper Helpers Impl Manager Processor Util Utils Utility".split()
)
#: Original names that are kept because the word is exact. None so far.
ALLOWED_CLASSES: frozenset[str] = frozenset()
BANNED_MODULES = frozenset("common constants helper helpers misc types util utils".split())

MOST_LINES = 500

Rule = Callable[[Mapping[str, str]], list[str]]


@dataclass(frozen=True)
class Import:
    """One import statement's target, as far as it can be told from the text."""

    target: str  # the module, absolute
    names: tuple[str, ...]  # what is taken from it; empty for a plain `import`
    line: int
    lazy: bool  # inside a function
    typing: bool  # under TYPE_CHECKING


@cache
def _tree(text: str) -> ast.Module:
    return ast.parse(text)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _walk(node: ast.AST, lazy: bool = False, typing: bool = False) -> Iterator[tuple[ast.AST, bool, bool]]:
    for child in ast.iter_child_nodes(node):
        yield child, lazy, typing
        inside = lazy or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if _is_type_checking(child):
            assert isinstance(child, ast.If)
            for part in child.body:
                yield part, lazy, True
                yield from _walk(part, inside, True)
            for part in child.orelse:
                yield part, lazy, typing
                yield from _walk(part, inside, typing)
        else:
            yield from _walk(child, inside, typing)


def imports(module: str, text: str, modules: Mapping[str, str]) -> list[Import]:
    """Return every import in `text`, those in functions and under TYPE_CHECKING included."""
    is_package = any(other.startswith(f"{module}.") for other in modules)
    found = []
    for node, lazy, typing in _walk(_tree(text)):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, (), node.lineno, lazy, typing) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            if node.level == 0:
                target = node.module or ""
            else:
                home = module.split(".") if is_package else module.split(".")[:-1]
                home = home[: len(home) - node.level + 1]
                target = ".".join([*home, *([node.module] if node.module else [])])
            found.append(Import(target, names, node.lineno, lazy, typing))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in (
            "import_module",
            "__import__",
        ):
            match node.args[:1]:
                case [ast.Constant(value=str() as target)]:
                    found.append(Import(target, (), node.lineno, lazy, typing))
    return found


def part(module: str) -> str:
    """Return the module or package directly under the root: ``grym_nb.a.b`` -> ``a``; the root: empty."""
    return module.split(".")[1] if "." in module else ""


def _floor(module: str) -> float | None:
    return FLOORS.get(part(module)) if part(module) else ROOT_FLOOR


def _targets(imported: Import, modules: Mapping[str, str]) -> list[str]:
    """Return the modules that an import reaches: a name taken from a package may be one itself."""
    if not imported.names:
        return [imported.target]
    reached = []
    for name in imported.names:
        inner = f"{imported.target}.{name}"
        reached.append(inner if inner in modules else imported.target)
    return sorted(set(reached))


def _ours(module: str) -> bool:
    return module == ROOT or module.startswith(f"{ROOT}.")


def floors(modules: Mapping[str, str]) -> list[str]:
    """A module imports only lower floors, or its own package."""
    broken = []
    for module, text in modules.items():
        here = _floor(module)
        if here is None:
            broken.append(f"{module} has no floor: give it one in DESIGN.md and in FLOORS")
            continue
        for imported in imports(module, text, modules):
            for target in filter(_ours, _targets(imported, modules)):
                there = _floor(target)
                if part(target) == part(module) or there is None:
                    continue
                if there >= here:
                    broken.append(
                        f"{module}:{imported.line} (floor {here:g}) imports {target} (floor {there:g}): "
                        "take it as an argument, through Ports or the bus, and wire it in runtime.py"
                    )
    return broken


def no_import_of_the_root(modules: Mapping[str, str]) -> list[str]:
    """Nothing imports the package root: neither its names nor, through it, its modules."""
    broken = []
    for module, text in modules.items():
        for imported in imports(module, text, modules):
            plain = not imported.names and _ours(imported.target)
            if imported.target == ROOT or plain:
                broken.append(
                    f"{module}:{imported.line} imports the root: write `from grym_nb.module import name`"
                )
    return broken


def no_circles(modules: Mapping[str, str]) -> list[str]:
    """No module imports itself through others; imports in functions count, those for typing do not."""
    graph: dict[str, set[str]] = {}
    for module, text in modules.items():
        graph[module] = {
            target
            for imported in imports(module, text, modules)
            if not imported.typing
            for target in _targets(imported, modules)
            if target in modules and target != module
        }
    broken: list[str] = []
    while True:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            circle: list[str] = error.args[1][::-1]
            broken.append(f"imports in a circle: {' -> '.join(circle)}")
            graph[circle[0]].discard(circle[1])  # go on and look for the next
        else:
            return broken


def thin_packages(modules: Mapping[str, str]) -> list[str]:
    """A package's `__init__` holds a docstring, imports from its own modules and `__all__`."""
    broken = []
    for package, text in _packages(modules).items():
        body = _tree(text).body
        if not (body and ast.get_docstring(_tree(text))):
            broken.append(f"{package}/__init__.py has no docstring")
        for node in body:
            match node:
                case ast.Expr(value=ast.Constant(value=str())):
                    continue
                case ast.ImportFrom(module="__future__") | ast.ImportFrom(level=1):
                    continue
                case ast.ImportFrom(level=0, module=str(source)) if source.startswith(f"{package}."):
                    continue
                case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List()):
                    continue
                case ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.List()):
                    continue
            broken.append(f"{package}/__init__.py:{node.lineno} holds more than imports: move it to a module")
    return broken


def _packages(modules: Mapping[str, str]) -> dict[str, str]:
    """The packages under the root, with the text of their `__init__`."""
    return {
        name: text
        for name, text in modules.items()
        if name != ROOT and any(other.startswith(f"{name}.") for other in modules)
    }


def no_module_named_like_an_export(modules: Mapping[str, str]) -> list[str]:
    """No module bears the name of something that its package exports: Python would hand out the module."""
    broken = []
    for package, text in {**_packages(modules), ROOT: modules.get(ROOT, "")}.items():
        for name in exported(text):
            if f"{package}.{name}" in modules:
                broken.append(f"{package} exports {name!r}, and {package}.{name} is a module: rename it")
    return broken


def exported(text: str) -> set[str]:
    """Return the names of `__all__`, and those of a lazy table (a module-level dict with string keys)."""
    names: set[str] = set()
    for node in _tree(text).body:
        value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
        keys: list[ast.expr | None] = []
        if isinstance(value, (ast.List, ast.Tuple)) and "__all__" in ast.unparse(node).split("=")[0]:
            keys = list(value.elts)
        elif isinstance(value, ast.Dict):
            keys = list(value.keys)
        names |= {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    return names


def honest_class_names(modules: Mapping[str, str]) -> list[str]:
    """No class is a Manager, a Helper, a Base…: such a name does not say what the thing is."""
    broken = []
    for module, text in modules.items():
        for node in ast.walk(_tree(text)):
            if isinstance(node, ast.ClassDef) and node.name not in ALLOWED_CLASSES:
                words = set(re.findall(r"[A-Z][a-z0-9]*|[A-Z]+(?![a-z])|[a-z]+", node.name))
                if bad := words & BANNED_WORDS:
                    broken.append(f"{module}:{node.lineno} class {node.name}: name it without {min(bad)}")
    return broken


def honest_module_names(modules: Mapping[str, str]) -> list[str]:
    """No utils.py, helpers.py, types.py, constants.py: what is in it has a better place."""
    return [
        f"{module}: a module's name says what is in it"
        for module in modules
        if BANNED_MODULES & set(module.split("."))
    ]


def no_print(modules: Mapping[str, str]) -> list[str]:
    """The library does not print; `__main__` may."""
    return [
        f"{module}:{node.lineno} prints: return it, or log it"
        for module, text in modules.items()
        if part(module) != "__main__"
        for node in ast.walk(_tree(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def bare_locks(modules: Mapping[str, str]) -> list[str]:
    """A lock is taken by itself, not through its condition.

    A condition's enter and exit are Python: Ctrl-C inside of them leaves the lock taken by nobody.
    """
    return [
        f"{module}:{node.lineno} enters a condition: enter its lock, which is C and cannot be interrupted"
        for module, text in modules.items()
        if part(module) != "testing"
        for node in ast.walk(_tree(text))
        if isinstance(node, ast.With)
        for item in node.items
        if ast.unparse(item.context_expr).endswith("condition")
    ]


#: what stands behind `with` and is a lock; and the instructions at which Python looks for Ctrl-C
_LOCKS = ("lock", "mutex", "_wake", "_graph")
_LOOKS = ("JUMP_BACKWARD", "CALL", "CALL_KW", "CALL_FUNCTION_EX")


def covered_locks(modules: Mapping[str, str]) -> list[str]:
    """What runs with a lock is left by it, wherever Ctrl-C comes.

    From 3.12 on the jump back of a loop, or of a comprehension with an `if`, may stand outside of what the
    `with` covers: an interrupt there leaves the lock taken by nobody. In a function of its own it is safe.
    """
    broken = set()
    for module, text in modules.items():
        bodies = [
            range(node.body[0].lineno, (node.end_lineno or 0) + 1)
            for node in ast.walk(_tree(text))
            if isinstance(node, ast.With)
            and any(ast.unparse(item.context_expr).endswith(_LOCKS) for item in node.items)
        ]
        for code in _codes(compile(text, module, "exec")):
            covered = dis._parse_exception_table(code)  # type: ignore[attr-defined]
            for step in dis.get_instructions(code):
                line = step.positions.lineno if step.positions is not None else None
                held = any(line in body and code.co_firstlineno < body.start for body in bodies)
                looks = step.opname in _LOOKS and code.co_name not in ("<lambda>", "<genexpr>")
                if held and looks and not any(at.start <= step.offset < at.end for at in covered):
                    broken.add(f"{module}:{line} loops with a lock held: put the loop in a function")
    return sorted(broken)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _codes(inner)


def short_modules(modules: Mapping[str, str]) -> list[str]:
    """A module has at most 500 lines."""
    return [
        f"{module} has {lines} lines, more than {MOST_LINES}: it does more than one thing"
        for module, text in modules.items()
        if (lines := len(text.splitlines())) > MOST_LINES
    ]


def heavy_imports_are_lazy(modules: Mapping[str, str]) -> list[str]:
    """What costs much to import is imported in the function that needs it."""
    broken = []
    for module, text in modules.items():
        banned = HEAVY - LIGHT_IN.get(part(module), frozenset())
        for imported in imports(module, text, modules):
            top = imported.target.split(".")[0]
            if top in banned and not imported.lazy and not imported.typing:
                broken.append(
                    f"{module}:{imported.line} imports {top} at module level: move it to its function"
                )
    return broken


@cache
def _house() -> dict[str, str]:
    """The sources of the grym_nb that is imported: this tree's, or an installed wheel's."""
    spec = find_spec(ROOT)
    assert spec is not None and spec.origin is not None
    root = Path(spec.origin).parent
    modules = {}
    for path in sorted(root.rglob("*.py")):
        inner = path.relative_to(root).with_suffix("").parts
        if inner[-1] == "__init__":
            inner = inner[:-1]
        modules[".".join([ROOT, *inner])] = path.read_text(encoding="utf-8")
    return modules


RULES: list[Rule] = [
    floors,
    no_import_of_the_root,
    no_circles,
    thin_packages,
    no_module_named_like_an_export,
    honest_class_names,
    honest_module_names,
    no_print,
    bare_locks,
    short_modules,
    heavy_imports_are_lazy,
]


if sys.version_info >= (3, 12):  # the compilers before leave no such hole
    RULES.append(covered_locks)


def test_the_house_was_found() -> None:
    """The rules below look at real modules, not at nothing."""
    assert {"grym_nb", "grym_nb.errors", "grym_nb.events", "grym_nb.services.model"} <= _house().keys()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(rule: Rule) -> None:
    """Each rule holds for every module of grym_nb."""
    broken = rule(_house())
    assert not broken, "\n".join([str(rule.__doc__), *broken])


_PACKAGE = '"""Doc."""'

#: rule, sources that break it, what it says about them
BROKEN: list[tuple[Rule, dict[str, str], str]] = [
    (floors, {"grym_nb.events": "from .runtime import Runtime", "grym_nb.runtime": ""}, "floor 1.*floor 6"),
    (floors, {"grym_nb.events": "from grym_nb.pulse import Pulse"}, "imports grym_nb.pulse"),
    (floors, {"grym_nb.clock": "from .events import Event"}, r"floor 1\) imports grym_nb.events"),
    (floors, {"grym_nb.errors": "from .render import brief"}, "floor 0.5"),
    (floors, {"grym_nb.health.monitor": "from ..flow.router import x", "grym_nb.health": ""}, "grym_nb.flow"),
    (floors, {"grym_nb.metrics.series": "from ..services import task"}, "imports grym_nb.services"),
    (floors, {"grym_nb.pulse": "def f():\n    from .services.handle import x"}, "grym_nb.pulse:2"),
    (
        floors,
        {"grym_nb.pulse": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .runtime import R"},
        "grym_nb.pulse:3",
    ),
    (floors, {"grym_nb.pulse": "try:\n    from .runtime import R\nexcept ImportError:\n    pass"}, "pulse:2"),
    (floors, {"grym_nb.events": "import_module('grym_nb.runtime')"}, "imports grym_nb.runtime"),
    (floors, {"grym_nb.__main__": "from grym_nb import x"}, "imports grym_nb"),
    (floors, {"grym_nb.cellar": ""}, "has no floor"),
    (no_import_of_the_root, {"grym_nb.runtime": "import grym_nb"}, "imports the root"),
    (no_import_of_the_root, {"grym_nb.runtime": "import grym_nb.errors"}, "imports the root"),
    (no_import_of_the_root, {"grym_nb.runtime": "def f():\n    from grym_nb import get"}, "runtime:2"),
    (no_import_of_the_root, {"grym_nb.runtime": "from . import errors", "grym_nb.errors": ""}, "the root"),
    (no_import_of_the_root, {"grym_nb.flow.router": "from .. import current"}, "imports the root"),
    (no_import_of_the_root, {"grym_nb.flow": "from .. import x", "grym_nb.flow.router": ""}, "the root"),
    (
        no_circles,
        {"grym_nb.flow.a": "from .b import x", "grym_nb.flow.b": "from .a import y", "grym_nb.flow": ""},
        "a circle",
    ),
    (
        no_circles,
        {"grym_nb.flow.a": "from .b import x", "grym_nb.flow.b": "def f():\n    from . import a"},
        "a circle",
    ),
    (
        no_circles,
        {"grym_nb.flow": "from .a import x", "grym_nb.flow.a": "from . import x"},
        "a circle",
    ),
    (
        no_circles,
        {
            "grym_nb.flow.a": "from .b import x",
            "grym_nb.flow.b": "from .c import x",
            "grym_nb.flow.c": "import grym_nb.flow.a",
        },
        r"(?=.*flow\.a)(?=.*flow\.b)(?=.*flow\.c)",
    ),
    (thin_packages, {"grym_nb.flow": "def f(): ...", "grym_nb.flow.a": ""}, "no docstring"),
    (thin_packages, {"grym_nb.flow": f"{_PACKAGE}\ndef f(): ...", "grym_nb.flow.a": ""}, "py:2 holds more"),
    (thin_packages, {"grym_nb.flow": f"{_PACKAGE}\nx = 1", "grym_nb.flow.a": ""}, "holds more"),
    (thin_packages, {"grym_nb.flow": f"{_PACKAGE}\nfrom ..clock import x", "grym_nb.flow.a": ""}, "more"),
    (
        no_module_named_like_an_export,
        {"grym_nb.services": "from .model import task\n__all__ = ['task']", "grym_nb.services.task": ""},
        "exports 'task'",
    ),
    (
        no_module_named_like_an_export,
        {"grym_nb": "_WHERE: dict[str, str] = {'submit': 'flow'}", "grym_nb.submit": ""},
        "exports 'submit'",
    ),
    (honest_class_names, {"grym_nb.flow.a": "class ContextManager: ..."}, "without Manager"),
    (honest_class_names, {"grym_nb.flow.a": "def f():\n    class BaseThing: ..."}, "without Base"),
    (honest_class_names, {"grym_nb.flow.a": "class _HTTPHandler: ..."}, "without Handler"),
    (honest_class_names, {"grym_nb.flow.a": "class AudioProcessor: ..."}, "without Processor"),
    (honest_module_names, {"grym_nb.flow.utils": ""}, "grym_nb.flow.utils"),
    (honest_module_names, {"grym_nb.types": ""}, "grym_nb.types"),
    (no_print, {"grym_nb.flow.a": "def f():\n    print('x')"}, "a:2 prints"),
    (bare_locks, {"grym_nb.flow.a": "def f(self):\n    with self._condition: ..."}, "a:2 enters a condition"),
    (short_modules, {"grym_nb.flow.a": "x = 1\n" * 501}, "has 501 lines"),
    (heavy_imports_are_lazy, {"grym_nb.flow.a": "import torch.nn as nn"}, "imports torch"),
    (heavy_imports_are_lazy, {"grym_nb.clip": "import numpy as np"}, "imports numpy"),
    (heavy_imports_are_lazy, {"grym_nb.audio.a": "from librosa import load"}, "imports librosa"),
    (heavy_imports_are_lazy, {"grym_nb.a": "try:\n    import soxr\nexcept ImportError:\n    pass"}, "soxr"),
    (heavy_imports_are_lazy, {"grym_nb.services.a": "class X:\n    import asyncio"}, "asyncio"),
]

#: rule, sources that keep it
KEPT: list[tuple[Rule, dict[str, str]]] = [
    (floors, {"grym_nb.runtime": "from .events import Event\nfrom .services.handle import x"}),
    (floors, {"grym_nb.events": "from .render import brief\nfrom .errors import GrymError"}),
    (floors, {"grym_nb.services.lane": "from .call import Call\nfrom ..clock import wait\nimport threading"}),
    (floors, {"grym_nb.services.engines.inline": "from ..call import Call\nfrom ...errors import X"}),
    (floors, {"grym_nb": "from .runtime import current"}),
    (no_import_of_the_root, {"grym_nb.runtime": "from .errors import X\nfrom grym_nb.clock import y"}),
    (
        no_import_of_the_root,
        {
            "grym_nb.flow.a": "from . import b\nfrom ..errors import X",
            "grym_nb.flow.b": "",
            "grym_nb.flow": "",
        },
    ),
    (
        no_circles,
        {
            "grym_nb.flow": "from .a import x\nfrom .b import y",
            "grym_nb.flow.a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .b import y",
            "grym_nb.flow.b": "from .a import x\nfrom . import a",
        },
    ),
    (
        thin_packages,
        {
            "grym_nb.flow": f"{_PACKAGE}\nfrom .a import x\nfrom grym_nb.flow.a import y\n__all__ = ['x']",
            "grym_nb.flow.a": "def f(): ...",
            "grym_nb": "def __getattr__(name): ...",
        },
    ),
    (
        no_module_named_like_an_export,
        {"grym_nb.services": "from .model import task\n__all__ = ['task']", "grym_nb.services.model": ""},
    ),
    (honest_class_names, {"grym_nb.flow.a": "class Database(BaseException): ...\nclass Basement: ..."}),
    (honest_module_names, {"grym_nb.flow.router": ""}),
    (no_print, {"grym_nb.__main__": "print(1)", "grym_nb.render": "'print(1)'\nself.print(1)"}),
    (bare_locks, {"grym_nb.flow.a": "with self.lock:\n    self.condition.notify_all()"}),
    (short_modules, {"grym_nb.flow.a": "x = 1\n" * 500}),
    (
        heavy_imports_are_lazy,
        {
            "grym_nb.clip": "def f():\n    import numpy as np",
            "grym_nb.audio.features": "import numpy as np",
            "grym_nb.notebook.board": "import ipywidgets",
            "grym_nb.services.a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch",
        },
    ),
]

_LOOP = "def f(self):\n    with self.lock:\n        "
if sys.version_info >= (3, 12):
    BROKEN += [
        (
            covered_locks,
            {"grym_nb.flow.a": _LOOP + "x = [i for i in self.x if i]"},
            "a:3 loops with a lock held",
        ),
        (covered_locks, {"grym_nb.flow.a": _LOOP + "while self.x: self.y()"}, "a:3 loops with a lock held"),
    ]
    KEPT += [
        (covered_locks, {"grym_nb.flow.a": _LOOP + "x = [i for i in self.x]\n        self.y()"}),
        (covered_locks, {"grym_nb.flow.a": "def f(self):\n    while self.x: self.y()"}),
    ]


@pytest.mark.parametrize(("rule", "sources", "told"), BROKEN)
def test_a_rule_sees_what_breaks_it(rule: Rule, sources: dict[str, str], told: str) -> None:
    """Each example breaks its rule once, and the message names the place."""
    broken = rule({"grym_nb": "", **sources})
    assert broken, f"{rule.__name__} saw nothing wrong in {sources}"
    assert any(re.search(told, line) for line in broken), broken


@pytest.mark.parametrize(("rule", "sources"), KEPT)
def test_a_rule_leaves_good_code_alone(rule: Rule, sources: dict[str, str]) -> None:
    """Each example keeps its rule."""
    assert rule({"grym_nb": "", **sources}) == []


def test_every_rule_has_examples_of_both_kinds() -> None:
    """A rule that is added comes with code that breaks it and code that keeps it."""
    assert {rule for rule, *_ in BROKEN} == set(RULES) == {rule for rule, _ in KEPT}
