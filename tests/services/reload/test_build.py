"""New code beside the old: what is made anew, what is carried over, and who sees which of it."""

from __future__ import annotations

import gc
import importlib
import inspect
import linecache
import sys
import traceback
import weakref
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest

from grym_nb.services.reload.build import Built, build
from grym_nb.services.reload.plan import Code
from grym_nb.services.reload.versions import Versions


class Files:
    """Modules in a folder that are imported, followed and edited."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.versions = Versions()
        self.texts: dict[str, str] = {}

    def write(self, **texts: str) -> None:
        for name, text in texts.items():
            self.texts[name] = dedent(text)
            (self.folder / f"{name}.py").write_text(self.texts[name])

    def start(self, **texts: str) -> ModuleType:
        """Import modules, and follow them; returns the last of them."""
        self.write(**texts)
        importlib.invalidate_caches()
        found = [importlib.import_module(name) for name in texts]
        self.versions.follow({name: self.code(name) for name in texts})
        return found[-1]

    def code(self, name: str) -> Code:
        return Code(name, self.texts[name], path=str(self.folder / f"{name}.py"))

    def edit(self, name: str, was: str, now: str, *, publish: bool = True) -> Built:
        assert was in self.texts[name]
        self.write(**{name: self.texts[name].replace(was, now)})
        built = build(self.versions, {name: self.code(name)})
        if publish:
            self.versions.publish(built.version, built.rebound)
        return built


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield Files(tmp_path)
    for name in set(sys.modules) - before:
        del sys.modules[name]


SERVICE = """
    import helper
    from helper import scale
    LOADED = [object()]
    class Other:
        pass
    class Model:
        def run(self, x):
            return scale(x) + helper.offset()
        def note(self, x):
            import helper
            return helper.scale(x)
    def plain():
        return LOADED
"""
HELPER = """
    OFFSET = 1
    def scale(x):
        return x * 2
    def offset():
        return OFFSET
    def other():
        return "other"
"""


def test_old_code_keeps_its_helpers_and_new_code_has_new_ones(files: Files) -> None:
    module = files.start(helper=HELPER, service=SERVICE)
    old, loaded, other, plain = module.Model, module.LOADED, module.Other, module.plain
    assert old().run(1) == 3
    built = files.edit("helper", "x * 2", "x * 10")
    assert [(one.module, *one.binds) for one in built.ran] == [
        ("helper", "scale"),
        ("service", "scale"),
        ("service", "Model"),
    ]
    assert module.Model is not old and module.Model().run(1) == 11 and module.Model().note(1) == 10
    assert old().run(1) == 3
    assert (module.LOADED, module.Other, module.plain) == (loaded, other, plain)
    assert sys.modules["helper"].scale(1) == 10 and sys.modules["helper"].offset() == 1
    files.edit("helper", "return OFFSET", "return OFFSET + 100")
    assert module.Model().run(1) == 111 and old().run(1) == 3


def test_a_module_that_an_edit_did_not_concern_has_the_helpers_of_the_next(files: Files) -> None:
    helper = "OFFSET = 1\n"
    module = files.start(helper=helper, service="import helper\ndef run(): return helper.OFFSET\n")
    built = files.edit("helper", "OFFSET = 1", "OFFSET = 1\nUNUSED = 2")
    assert built.fresh == {"helper"} and module.run() == 1
    files.edit("helper", "OFFSET = 1", "OFFSET = 5")
    assert module.run() == 5 and module.helper.OFFSET == 5


def test_nobody_sees_what_is_not_published(files: Files) -> None:
    module = files.start(helper=HELPER, service=SERVICE)
    old = module.Model
    with pytest.raises(ZeroDivisionError):
        files.edit("helper", "OFFSET = 1", "OFFSET = 1 // 0")
    assert module.Model is old and module.Model().run(1) == 3 and sys.modules["helper"].OFFSET == 1
    built = files.edit("helper", "OFFSET = 1 // 0", "OFFSET = 5", publish=False)
    assert module.Model is old and module.Model().run(1) == 3
    assert built.version.modules["service"].Model().run(1) == 7
    files.versions.publish(built.version, built.rebound)
    assert module.Model().run(1) == 7


def test_each_version_shows_its_own_text(files: Files) -> None:
    module = files.start(helper=HELPER, service=SERVICE)
    first = module.Model
    files.edit("service", "return scale(x) + helper.offset()", "raise ValueError('new')")
    second = module.Model
    files.edit("service", "raise ValueError('new')", "\n        raise ValueError('newer')")
    assert "scale(x) + helper" in inspect.getsource(first.run)
    assert "raise ValueError('new')" in inspect.getsource(second.run)
    for made, line in ((second, "raise ValueError('new')"), (module.Model, "raise ValueError('newer')")):
        with pytest.raises(ValueError, match="new") as error:
            made().run(1)
        assert traceback.extract_tb(error.value.__traceback__)[-1].line == line


CLASSES = """
    from enum import Enum

    class Kind(Enum):
        A = "ONE"

    class Bare:
        x = "ONE"

        class Inner:
            y = "ONE"

    if True:
        class Within(Bare):
            z = "ONE"

    def made():
        class Local:
            def run(self):
                return "ONE"
        return Local

    class Model:
        def run(self):
            return "ONE"

    def other():
        return 0
"""


def test_the_source_of_a_class_is_that_of_its_own_version(files: Files) -> None:
    first = files.start(classes=CLASSES)
    seen = {"ONE": vars(first).copy()}
    for was, now in (("ONE", "TWO"), ("TWO", "THREE")):
        files.edit("classes", f'"{was}"', f'"{now}"')
        seen[now] = vars(files.versions.newest.modules["classes"]).copy()
    for said, names in seen.items():
        made = [names[name] for name in ("Kind", "Bare", "Within", "Model", "made")]
        for one in (*made, names["Bare"].Inner, names["made"](), names["Model"].run):
            assert f'"{said}"' in inspect.getsource(one), (said, one)
    assert '"THREE"' in inspect.getsource(sys.modules["classes"])  # the module is the newest
    assert sys.modules["classes"].__file__ == files.code("classes").path  # for all others it is as it was


def test_a_class_that_is_carried_over_shows_its_text_when_that_version_is_gone(files: Files) -> None:
    files.start(classes=CLASSES)
    files.edit("classes", 'x = "ONE"', 'x = "TWO"')
    bare = sys.modules["classes"].Bare
    for at in range(3):
        files.edit("classes", f"return {at}", f"return {at + 1}")
    gc.collect()
    assert sys.modules["classes"].Bare is bare and 'x = "TWO"' in inspect.getsource(bare)
    assert inspect.getsource(sys.modules["classes"].Model) == (
        'class Model:\n    def run(self):\n        return "ONE"\n'
    )


def test_what_is_set_from_outside_is_seen_by_all_that_shared_it(files: Files) -> None:
    module = files.start(helper=HELPER, service=SERVICE)
    files.edit("helper", '"other"', '"another"')
    helper = importlib.import_module("helper")
    helper.OFFSET = 50  # read by a function of the first version, which was carried over
    assert helper.offset() == 50 and module.Model().run(1) == 52
    helper.added = 1
    assert helper.added == 1 and "added" in dir(helper)
    del helper.added
    with pytest.raises(AttributeError, match="added"):
        helper.added  # noqa: B018
    with pytest.raises(AttributeError, match="added"):
        del helper.added


IMPORTING = """
    import functools
    def whole(x):
        import helper
        return [(lambda: helper.scale(one))() for one in (x,)][0] + helper.OFFSET
    @functools.lru_cache(maxsize=None)
    def part(x):
        from helper import scale as by
        return by(x)
    def unnamed(x):
        import importlib
        return importlib.import_module("helper").scale(x)
    def other():
        from helper import other
        return other(), unnamed(1)
    def add(x):
        import helper
        helper.OFFSET += x
        return helper.OFFSET
"""


def test_what_old_code_imports_as_it_runs_is_of_its_time(files: Files) -> None:
    module: Any = files.start(helper=HELPER, importing=IMPORTING)
    first = module.whole, module.part, module.other
    files.edit("helper", "x * 2", "x * 10")
    second = module.whole, module.part, module.other
    part = first[1].__wrapped__  # not what it has cached
    assert (first[0](1), part(1), second[0](1), second[1](1)) == (3, 2, 11, 10)
    assert first[2] is second[2], "it names nothing that was edited"
    assert first[2]() == ("other", 10), "what no import says by name is the newest"
    files.edit("helper", "x * 10", "x * 100")
    files.edit("helper", '"other"', '"another"')
    assert (first[0](1), part(1), first[2]()) == (3, 2, ("other", 100))
    assert (second[0](1), second[1].__wrapped__(1), module.whole(1)) == (11, 10, 101)
    assert module.other() == ("another", 100)


def test_what_old_code_sets_in_a_module_that_it_imports_is_of_its_time(files: Files) -> None:
    module: Any = files.start(helper=HELPER, importing=IMPORTING)
    first = module.add
    files.edit("helper", "x * 2", "x * 10")
    assert first(1) == 2
    assert sys.modules["helper"].OFFSET == 2, "nobody has edited it: it is one for all"
    files.edit("helper", "OFFSET = 1", "OFFSET = 50")
    assert (first(1), module.add(1), sys.modules["helper"].OFFSET) == (3, 51, 51)


def test_what_old_code_imports_of_a_package_as_it_runs_is_of_its_time(files: Files) -> None:
    (files.folder / "pack").mkdir()
    for name, text in (("__init__", "ROOT = 1\n"), ("inner", "def f():\n    return 1\n")):
        (files.folder / "pack" / f"{name}.py").write_text(text)
    ways = (
        "import pack.inner",
        "import pack.inner as by",
        "from pack import inner",
        "from pack.inner import f",
    )
    asks = ("pack.inner.f()", "by.f()", "inner.f()", "f()")
    text = "".join(
        f"def f{at}():\n    {way}\n    return {ask}\n"
        for at, (way, ask) in enumerate(zip(ways, asks, strict=True))
    )
    module: Any = files.start(user=text)
    importlib.import_module("pack.inner")
    codes = {
        "pack": Code("pack", "ROOT = 1\n", package=True, path=str(files.folder / "pack" / "__init__.py")),
        "pack.inner": Code(
            "pack.inner", "def f():\n    return 1\n", path=str(files.folder / "pack" / "inner.py")
        ),
    }
    files.versions.follow(codes)
    first = [getattr(module, f"f{at}") for at in range(4)]
    assert [one() for one in first] == [1, 1, 1, 1]
    built = build(files.versions, {"pack.inner": Code("pack.inner", "def f():\n    return 2\n")})
    files.versions.publish(built.version, built.rebound)
    assert [one() for one in first] == [1, 1, 1, 1]
    assert [getattr(module, f"f{at}")() for at in range(4)] == [2, 2, 2, 2]


def test_a_count_goes_on(files: Files) -> None:
    module = files.start(
        counter="""
        COUNT = 0
        def bump():
            global COUNT
            COUNT += 1
            return COUNT
        def show():
            return COUNT
        def other():
            return 1
        """
    )
    assert module.bump() == 1
    files.edit("counter", "return 1", "return 2")
    assert (module.bump(), module.show(), module.COUNT) == (2, 2, 2)
    built = files.edit("counter", "+= 1", "+= 10", publish=False)
    assert module.bump() == 3, "by the code that still serves"
    files.versions.publish(built.version, built.rebound)
    assert (module.bump(), module.show(), module.COUNT) == (13, 13, 13)


def test_a_count_goes_on_where_something_else_is_taken_out(files: Files) -> None:
    other = "def other():\n    return 1\n"
    module = files.start(
        counter=f"COUNT = 0\ndef bump():\n    global COUNT\n    COUNT += 1\n    return COUNT\n{other}"
    )
    assert module.bump() == 1
    files.edit("counter", other, "")
    assert not hasattr(module, "other") and (module.bump(), module.COUNT) == (2, 2)


def test_a_count_of_a_package_goes_on_as_its_modules_are_edited(files: Files) -> None:
    (files.folder / "counts").mkdir()
    texts = {
        "counts": "COUNT = 0\ndef bump():\n    global COUNT\n    COUNT += 1\n    return COUNT\n",
        "counts.inner": "def f():\n    return 1\n",
    }
    paths = {name: str(files.folder / "counts" / f"{name[7:] or '__init__'}.py") for name in texts}
    for name, path in paths.items():
        Path(path).write_text(texts[name])
    module: Any = importlib.import_module("counts.inner") and sys.modules["counts"]
    files.versions.follow({name: Code(name, texts[name], path=paths[name]) for name in texts})
    assert module.bump() == 1
    built = build(files.versions, {"counts.inner": Code("counts.inner", "def f():\n    return 2\n")})
    files.versions.publish(built.version, built.rebound)
    assert (module.inner.f(), module.bump(), module.COUNT) == (2, 2, 2)


def test_what_functions_bind_in_a_module_that_was_not_edited_is_seen(files: Files) -> None:
    counter = """
        COUNT = 0
        def bump():
            global COUNT
            COUNT += 1
            return COUNT
    """
    user: Any = files.start(
        counter=counter, other="N = 1\n", user="import counter\ndef show():\n    return counter.COUNT\n"
    )
    module: Any = importlib.import_module("counter")
    for n in (1, 2):
        files.edit("other", f"N = {n}", f"N = {n + 1}")
        assert (module.bump(), module.COUNT, user.show()) == (n, n, n)
    first = user.show, module.bump
    built = files.edit("counter", "+= 1", "+= 10", publish=False)
    assert module.bump() == 3, "by the code that still serves"
    files.versions.publish(built.version, built.rebound)
    assert (module.COUNT, user.show(), module.bump(), module.COUNT) == (3, 3, 13, 13)
    assert (first[1](), first[0]()) == (4, 4), "as a call that is under way"
    older = first[0].__globals__["counter"]
    older.COUNT = 7
    assert first[0]() == 7 and isinstance(older, ModuleType) and {"COUNT", "bump"} <= set(dir(older))
    del older.COUNT
    with pytest.raises(AttributeError):
        first[0]()
    assert module.COUNT == 13 and "counter.py" in repr(older)


def test_modules_that_import_one_another(files: Files) -> None:
    files.start(
        even="import odd\ndef even(n): return n == 0 or odd.odd(n - 1)\n",
        odd="import even\ndef odd(n): return n != 0 and even.even(n - 1)\n",
    )
    files.edit("even", "n == 0", "n < 1")
    assert sys.modules["odd"].odd(7) and sys.modules["even"].even(-3)


def test_future_flags_hold_for_each_statement(files: Files) -> None:
    module: Any = files.start(future="from __future__ import annotations\ndef f(x: Missing): return 1\n")
    files.edit("future", "return 1", "return 2")
    assert module.f(0) == 2 and module.f.__annotations__ == {"x": "Missing"}


def test_what_is_carried_over_keeps_nothing_of_what_was_beside_it(files: Files) -> None:
    module = files.start(helper=HELPER, service=SERVICE)
    files.edit("helper", "x * 2", "x * 3")
    scale, beside = importlib.import_module("helper").scale, weakref.ref(module.Model)
    files.edit("service", "scale(x) + helper.offset()", "scale(x)")
    assert importlib.import_module("helper").scale is scale and module.Model().run(1) == 3
    gc.collect()
    assert beside() is None
    shown = sorted(Path(file).name for file in linecache.cache if file.startswith(str(files.folder)))
    assert shown == ["helper.py", "helper.py (edit 1)", "service.py", "service.py (edit 1)"]
    assert inspect.getsource(scale) == "def scale(x):\n    return x * 3\n"


def test_two_hundred_edits_leave_nothing_behind(files: Files) -> None:
    module = files.start(helper=HELPER, service=SERVICE)
    made = []
    for at in range(200):
        files.edit("helper", f"x * {at or 2}", f"x * {at + 1}")
        made.append(weakref.ref(module.Model))
        assert module.Model().run(1) == at + 2
    gc.collect()
    assert sum(one() is not None for one in made) <= 2


def test_what_a_module_imports_is_there_before_what_follows_the_import(files: Files) -> None:
    files.start(base="class Base:\n    n = 1\n", used="import base\nclass Used(base.Base):\n    pass\n")
    files.edit("base", "n = 1", "n = 2")
    assert sys.modules["used"].Used.n == 2


def test_what_is_imported_by_a_star_no_more_is_gone(files: Files) -> None:
    helper = "__all__ = ['a', 'b']\na = b = 1\n"
    used = "from helper_ import *\ndef both():\n    return a, b\n"
    module = files.start(helper_=helper, used=used)
    files.edit("helper_", "['a', 'b']", "['a']")
    assert module.a == 1 and not hasattr(module, "b")


def test_what_runs_again_is_compiled_as_it_was(files: Files) -> None:
    """To ask a module for something is other bytecode than to call a method: the imports tell, also alone."""
    module = files.start(
        m="""
        import sys
        try:
            import json
        except ImportError:
            json = None
        LIMIT = 1
        def ask():
            return sys.getsizeof(LIMIT), json.dumps(LIMIT)
        """
    )
    before = module.ask.__code__
    files.edit("m", "LIMIT = 1", "LIMIT = 2")
    assert module.ask()[1] == "2"
    assert module.ask.__code__ is not before and module.ask.__code__.co_code == before.co_code
