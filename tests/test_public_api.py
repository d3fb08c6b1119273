"""What users may rely on: the names are there, the lists of them are true, and each says what it is."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import grym_nb
from grym_nb import errors

#: What DESIGN.md promises at the root, besides the errors.
PROMISED = frozenset(
    "current register get submit run track ModelService task Task TaskResult Clip Runtime Settings "
    "load_ipython_extension unload_ipython_extension".split()
)


def _module_names() -> list[str]:
    found = pkgutil.walk_packages(grym_nb.__path__, prefix="grym_nb.")
    return ["grym_nb", *sorted(module.name for module in found if not module.name.endswith("__main__"))]


def _raised() -> set[str]:
    """The names of all errors in the tree."""
    return {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, BaseException) and not name.startswith("_")
    }


@cache
def _tree(name: str) -> ast.Module:
    spec = find_spec(name)
    assert spec is not None and spec.origin is not None
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def public_names(tree: ast.Module, *, package: bool) -> set[str]:
    """Return what a module makes public: what it defines, or, for a package, what it takes from its own."""
    names: set[str] = set()
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar" | "ParamSpec"))):
                continue
            case ast.Assign(targets=targets):
                for target in targets:
                    names |= {n.id for n in ast.walk(target) if isinstance(n, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.ImportFrom(names=aliases) if package and not _from_future(node):
                names |= {alias.asname or alias.name for alias in aliases}
    return {name for name in names if not name.startswith("_")}


def _from_future(node: ast.ImportFrom) -> bool:
    return node.module == "__future__"


def undocumented(tree: ast.Module, public: set[str]) -> list[str]:
    """Return the public classes, functions and methods that have no docstring."""
    missing = []
    for node in tree.body:
        if not isinstance(node, _DEFINITIONS) or node.name not in public:
            continue
        missing += _silent(node, node.name)
        for method in node.body if isinstance(node, ast.ClassDef) else []:
            if isinstance(method, _DEFINITIONS) and not method.name.startswith("_"):
                missing += _silent(method, f"{node.name}.{method.name}")
    return missing


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _silent(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, name: str) -> list[str]:
    told_elsewhere = any(
        ast.unparse(mark).endswith(("overload", ".setter", ".deleter")) for mark in node.decorator_list
    )
    return [] if told_elsewhere or ast.get_docstring(node) else [name]


def resolve(path: str) -> Any:
    """Return what a dotted path names: a module, something in it, or something in that."""
    return pkgutil.resolve_name(path)


def _public_of(name: str) -> tuple[ModuleType, list[str]]:
    module = importlib.import_module(name)
    assert hasattr(module, "__all__"), f"{name} has no __all__"
    return module, list(module.__all__)


@pytest.mark.parametrize("name", _module_names())
def test_every_name_in_all_resolves(name: str) -> None:
    """`from module import *` would work, once for each name."""
    module, names = _public_of(name)
    assert [wanted for wanted in names if not hasattr(module, wanted)] == []
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", [name for name in _module_names() if name != "grym_nb"])
def test_all_is_what_is_public(name: str) -> None:
    """A name without an underscore is in `__all__`, and nothing else is."""
    module, names = _public_of(name)
    public = public_names(_tree(name), package=hasattr(module, "__path__"))
    unlisted, foreign = sorted(public - set(names)), sorted(set(names) - public)
    assert not unlisted, f"{name}: add to __all__, or begin with an underscore: {unlisted}"
    assert not foreign, f"{name}: is defined elsewhere, take it from there: {foreign}"


@pytest.mark.parametrize("name", _module_names())
def test_everything_public_says_what_it_is(name: str) -> None:
    """Modules, classes, functions and public methods have a docstring of their own."""
    module, names = _public_of(name)
    assert inspect.getdoc(module), f"{name} has no docstring"
    assert undocumented(_tree(name), set(names)) == []


@pytest.mark.parametrize("name", sorted(PROMISED | _raised()))
def test_the_root_has_what_the_design_promises(name: str) -> None:
    """Each promised name resolves, and is listed by `dir` and `__all__`."""
    assert getattr(grym_nb, name) is not None
    assert name in dir(grym_nb)
    assert name in _public_of("grym_nb")[1]


def test_the_root_promises_nothing_else() -> None:
    """A public name at the root is a promise: it is added here, too."""
    assert set(_public_of("grym_nb")[1]) - PROMISED - _raised() <= {"__version__"}


def test_the_root_refuses_an_unknown_name() -> None:
    """A misspelt name is an AttributeError and an ImportError, not a KeyError of the lazy table."""
    with pytest.raises(AttributeError, match="registr"):
        getattr(grym_nb, "registr")  # noqa: B009
    with pytest.raises(ImportError, match="registr"):
        exec("from grym_nb import registr")


def test_the_errors_make_one_tree() -> None:
    """All but Ctrl-C are GrymErrors, each with a code."""
    outside = {name for name in _raised() if not issubclass(getattr(errors, name), errors.GrymError)}
    assert outside == {"Interrupted"}
    assert all(getattr(errors, name).code for name in _raised() - outside)


def _rows() -> Iterator[Any]:
    yield from importlib.import_module("grym_nb.notebook.glossary").GLOSSARY


def test_every_row_of_the_glossary_leads_somewhere() -> None:
    """The last column is a dotted path to something that exists."""
    rows = list(_rows())
    assert rows
    lost = []
    for row in rows:
        assert row.original and row.here
        try:
            resolve(row.where)
        except (ImportError, AttributeError) as error:
            lost.append(f"{row.original}: {row.where} ({error})")
    assert lost == []


def test_no_name_of_the_glossary_is_explained_twice() -> None:
    """Whoever looks for an original name finds one row."""
    originals = [name.strip() for row in _rows() for name in row.original.split(",")]
    assert sorted(originals) == sorted(set(originals))


SAMPLE = '''
from __future__ import annotations
import os
from .a import taken
T = TypeVar("T")
CONSTANT: int = 1
left, right = 1, 2
_hidden = 3
class Told:
    """Doc."""
    def said(self):
        """Doc."""
    def unsaid(self): ...
    def _inner(self): ...
    @overload
    def many(self): ...
    @width.setter
    def width(self, value): ...
@overload
def silent(x): ...
def silent(): ...
def _private(): ...
'''


def test_the_readers_of_source_see_what_is_there() -> None:
    """The two readers above are right about a small module: they cannot pass by seeing nothing."""
    tree = ast.parse(SAMPLE)
    assert public_names(tree, package=False) == {"CONSTANT", "left", "right", "Told", "silent"}
    assert public_names(tree, package=True) == {"CONSTANT", "left", "right", "Told", "silent", "taken"}
    assert undocumented(tree, {"Told", "silent"}) == ["Told.unsaid", "silent"]
    assert resolve("os.path.join").__name__ == "join"
    with pytest.raises((ImportError, AttributeError)):
        resolve("grym_nb.errors.NoSuchError")
