"""`%%grym service NAME`: a service in a cell, defined again as its cell is edited and run again."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from grym_nb.errors import CommandError, ConfigError, DependencyError
from grym_nb.notebook.cells import Defined, Names
from grym_nb.notebook.extension import install
from grym_nb.runtime import Runtime
from tests.kernel import Kernel

GAIN = """%%grym service gain --memory 10MB --concurrency 2 factor=3

FLOOR = 0.5

def scaled(x, factor):
    if x == "bad":
        raise ValueError("cannot scale it")
    return max(FLOOR, offset() + x * factor)

class Gain(grym.ModelService):
    def __init__(self, *, factor: float = 2.0):
        self.factor = factor
    def load(self):
        loads.append(self.factor)
    @grym.task("audio.gain")
    def apply(self, x):
        return scaled(x, self.factor)
"""


@pytest.fixture(scope="module")
def ready(shared_kernel: Kernel) -> Kernel:
    """A kernel in which the cell was run once."""
    shared_kernel.run(
        "%load_ext grym_nb\nimport grym_nb as grym\nloads, runs = [], []\ndef offset(): return 0"
    ).checked()
    reply = shared_kernel.run(GAIN).checked()
    assert reply.result_text == "gain v1 is new: it loads at the first call"
    assert reply.result_html == "<p>gain v1 is new: it loads at the first call</p>"
    return shared_kernel


def test_the_service_is_registered_with_what_the_first_line_says(ready: Kernel) -> None:
    """Options and config; it works like any other."""
    assert ready.run("gain = grym.get('gain'); gain.apply(2)").checked().result_text == "6"
    reply = ready.run("s = gain.status(); s.memory, s.concurrency, gain.config")
    assert reply.result_text == "(10000000, 2, {'factor': 3})"


def test_what_the_cell_defines_can_be_used_in_other_cells(ready: Kernel) -> None:
    """The class, helpers and constants; not the names that Python itself puts there."""
    reply = ready.run("scaled(1, 1), FLOOR, Gain.__module__, Gain is gain._record.spec.factory")
    assert reply.result_text == "(1, 0.5, '__main__', True)"
    reply = ready.run("__builtins__ is scaled.__globals__['__builtins__'], __name__")
    assert reply.result_text == "(False, '__main__')"


def test_it_sees_the_users_variables_as_they_are_at_the_call(ready: Kernel) -> None:
    """Its own globals come first: a `FLOOR` or `scaled` defined elsewhere is not its own."""
    ready.run("def offset(): return 100").checked()
    ready.run("scaled = None; FLOOR = 1000").checked()
    assert ready.run("gain.apply(2)").checked().result_text == "106"
    ready.run("def offset(): return 0").checked()
    ready.run("del offset").checked()
    error = ready.run("gain.apply(2)").error
    assert error is not None and "NameError: name 'offset' is not defined" in error.traceback[0]
    ready.run("def offset(): return 0").checked()


def test_run_again_it_is_unchanged_and_not_even_executed(ready: Kernel) -> None:
    """The model stays; nor does a comment, a blank line or another number of spaces change it."""
    before = ready.run("loads, id(Gain)").result_text
    assert ready.run(GAIN).checked().result_text == "gain v1 is unchanged: it is ready"
    edited = GAIN.replace("FLOOR = 0.5", "FLOOR  =  0.5  # never silent\n\n# nothing else")
    assert ready.run(edited).checked().result_text == "gain v1 is unchanged: it is ready"
    assert ready.run("loads, id(Gain)").result_text == before
    assert ready.run("gain.apply(2)").result_text == "6"


def test_tracebacks_point_at_the_lines_of_the_cell(ready: Kernel) -> None:
    """Counted from the `%%grym` line, as the front end does, also after a rerun that changed nothing."""
    count = ready.run(GAIN).execution_count
    error = ready.run("gain.apply('bad')").error
    assert error is not None
    line = GAIN.splitlines().index('        raise ValueError("cannot scale it")') + 1
    assert error.traceback[1].startswith(
        f'  at In[{count}]:{line} in scaled: raise ValueError("cannot scale it")'
    )


def test_the_source_of_what_a_cell_defines_can_be_read(ready: Kernel) -> None:
    """`inspect.getsource` finds the right lines, before and after a rerun."""
    ready.run(GAIN).checked()
    reply = ready.run("import inspect; print(inspect.getsource(Gain.apply), end='')").checked()
    assert reply.stdout == (
        '    @grym.task("audio.gain")\n    def apply(self, x):\n        return scaled(x, self.factor)\n'
    )


def test_a_changed_body_changes_the_service_in_place(ready: Kernel) -> None:
    """The handle that callers hold is the same, and so are the weights; the new code answers."""
    reply = ready.run(GAIN.replace("x * factor", "x * factor + 1")).checked()
    assert reply.result_text == "gain v2 changed (code): in place, nothing is loaded anew"
    assert ready.run("gain.apply(2), len(loads), grym.get('gain') is gain").result_text == "(7, 1, True)"


def test_a_changed_helper_or_constant_counts_as_changed_code(ready: Kernel) -> None:
    """The class alone is the same; what it uses from its cell is not."""
    reply = ready.run(GAIN.replace("FLOOR = 0.5", "FLOOR = 50")).checked()
    assert reply.result_text == "gain v3 changed (code): in place, nothing is loaded anew"
    assert ready.run("gain.apply(2)").result_text == "50"


def test_changed_options_need_no_new_code(ready: Kernel) -> None:
    """The class is not made again, and what takes effect in place does."""
    ready.run(GAIN).checked()
    ready.run("gain.apply(2); kept = Gain, len(loads)").checked()
    reply = ready.run(GAIN.replace("--memory 10MB", "--memory 20MB"))
    assert reply.checked().result_text == "gain v4 changed (memory): in place, nothing is loaded anew"
    assert ready.run("gain.apply(2), (Gain, len(loads)) == kept").result_text == "(6, True)"
    reply = ready.run(GAIN.replace("factor=3", "factor=4"))  # which `load` reads
    assert reply.checked().result_text == "gain v4 changed (config, memory): it loads at the next call"
    assert ready.run("gain.apply(2), Gain is kept[0], len(loads) - kept[1]").result_text == "(8, True, 1)"


@pytest.mark.parametrize(
    ("before", "after"),
    [("def apply(self, x):", "def apply(self, x:"), ("FLOOR = 0.5", "return 0.5")],
    ids=["parser", "compiler"],
)
def test_a_body_that_does_not_compile_is_told_by_its_line(ready: Kernel, before: str, after: str) -> None:
    """In three lines, where IPython would show its own frames; nothing is changed."""
    was = ready.run("gain.version, Gain, FLOOR").result_text
    reply = ready.run(GAIN.replace(before, after))
    assert reply.error is not None
    line = next(i for i, text in enumerate(GAIN.splitlines(), 1) if before in text)
    first, *rest = reply.error.traceback
    assert first.startswith("CommandError: the cell does not compile: ")
    assert first.endswith(f"line {line}")
    assert rest == [
        f"  line {line}: {after}",
        "→ nothing was changed; mend the line and run the cell again",
    ]
    assert ready.run("gain.version, Gain, FLOOR").result_text == was
    assert ready.run("gain.apply(2)").result_text == "8"


def test_a_body_that_raises_changes_nothing(ready: Kernel) -> None:
    """Neither the variables nor the service; the error is the user's own, at their line."""
    before = ready.run("gain.version, Gain, FLOOR").result_text
    reply = ready.run(GAIN.replace("FLOOR = 0.5", "FLOOR = 7; brand_new = 1; 1 / 0"))
    assert reply.error is not None
    assert reply.error.ename == "ZeroDivisionError"
    assert "----> 3 FLOOR = 7; brand_new = 1; 1 / 0" in reply.error.traceback
    assert not any("cells.py" in line or "commands.py" in line for line in reply.error.traceback)
    assert ready.run("gain.version, Gain, FLOOR, 'brand_new' in globals()").result_text == (
        before.removesuffix(")") + ", False)" if before else ""
    )
    assert ready.run("gain.apply(2)").result_text == "8"


def test_magics_and_display_work_in_the_body(ready: Kernel) -> None:
    """It is a cell like any other."""
    reply = ready.run(
        "%%grym service shown\nwhere = %pwd\ndisplay(1)\nclass Shown:\n"
        "    @grym.task\n    def place(self):\n        return where, get_ipython() is not None"
    ).checked()
    assert reply.displays == [{"text/plain": "1"}]
    assert (ready.run("%grym run shown").result_text or "").endswith("True)")


def test_a_class_body_may_use_the_users_variables(ready: Kernel) -> None:
    """Decorators, defaults and bases: the names that `__missing__` on globals would not find."""
    ready.run("KIND, DEFAULT = 'my.kind', 5\nclass Base(grym.ModelService):\n    pass").checked()
    ready.run(
        "%%grym service late\nclass Late(Base):\n    constant = DEFAULT\n"
        "    @grym.task(KIND)\n"
        "    def give(self, n=DEFAULT): return n, [DEFAULT for _ in range(2)], self.constant"
    ).checked()
    assert ready.run("%grym run late my.kind").result_text == "(5, [5, 5], 5)"


# -- in this process -------------------------------------------------------------------------------


@pytest.fixture
def loaded(shell: InteractiveShell, runtime: Runtime) -> InteractiveShell:
    """A shell with the extension, and `grym` as its user would have it."""
    import grym_nb

    shell.user_ns["grym"] = grym_nb
    install(shell)
    return shell


def _cell(shell: InteractiveShell, text: str) -> Any:
    line, _, body = text.removeprefix("%%grym ").partition("\n")
    return shell.run_cell_magic("grym", line, body)


ONE = "class One:\n    @grym.task\n    def f(self): return 1\n"


def test_a_definition_is_the_handle_and_what_happened(loaded: InteractiveShell, runtime: Runtime) -> None:
    """New, unchanged, changed."""
    first = _cell(loaded, f"service one\n{ONE}")
    assert isinstance(first, Defined)
    assert first.handle is runtime.registry["one"]
    again = _cell(loaded, f"service one\n{ONE}# the same\n")
    changed = _cell(loaded, f"service one --ttl 5\n{ONE.replace('1', '2')}")
    assert [d.outcome for d in (first, again, changed)] == ["new", "unchanged", "changed"]
    assert changed.note == "one v2 changed (code, ttl): it loads at the first call"
    assert changed.handle is first.handle
    assert changed.handle.f() == 2


TAKEN = """service x
{before}
class X{base}:
    {within}
    @grym.task({of})
    def f(self, n={default}): return n, limit
"""

PLACES = {
    "a default": {"default": "limit"},
    "a class attribute": {"within": "limit = limit"},
    "an argument of a decorator": {"of": "f'x.{limit}'"},
    "an annotation": {"within": "size: Annotated[float, within(0, limit)] = 1"},
    "an annotation that is put off": {
        "before": "from __future__ import annotations",
        "within": "@grym.task\n    def g(self, n: Annotated[float, within(0, limit)]): ...",
    },
    "a constant beside the class": {"before": "most = limit"},
    "a function that is called while the cell runs": {"before": "def most(): return limit\nmost()"},
    "a name that is used if it is there": {
        "before": "try:\n    most = limit\nexcept NameError:\n    most = 0"
    },
}


def _taking(*, before: str = "", within: str = "", **rest: str) -> str:
    given = {"base": "", "of": "'x.f'", "default": "1", **rest}
    return TAKEN.format(before=before, within=within or "pass", **given)


@pytest.fixture
def outcomes(loaded: InteractiveShell) -> Callable[..., list[str]]:
    """Gives ``outcomes(cell, code, ...)``: what the same cell comes to at first, and after each code."""
    loaded.run_cell("from typing import Annotated; from grym_nb.services import within").raise_error()

    def run(cell: str, *between: str) -> list[str]:
        found = [_cell(loaded, cell).outcome]
        for code in between:
            loaded.run_cell(code).raise_error()
            found.append(_cell(loaded, cell).outcome)
        return found

    return run


@pytest.mark.parametrize("place", PLACES)
def test_a_value_that_the_cell_took_from_the_notebook_is_a_part_of_it(
    loaded: InteractiveShell, outcomes: Callable[..., list[str]], place: str
) -> None:
    """The cell is run again when that is another value by now, and not when it is an equal one."""
    loaded.user_ns["limit"] = 3
    codes = ["pass", "limit = 1 + 2", "limit = 4", "other = 5", "limit = 3"]
    expected = ["new", "unchanged", "unchanged", "changed", "unchanged", "changed"]
    assert outcomes(_taking(**PLACES[place]), *codes) == expected


def test_the_cell_takes_the_value_there_is_now(loaded: InteractiveShell, runtime: Runtime) -> None:
    """What comes of it is as if the cell were new."""
    cell = _taking(**PLACES["a default"])
    for limit in (3, 4):
        loaded.user_ns["limit"] = limit
        _cell(loaded, cell)
        assert runtime.registry["x"].f() == (limit, limit)
    assert runtime.registry["x"].version == "v2"


def test_a_base_from_the_notebook_is_a_part_of_the_cell(
    loaded: InteractiveShell, outcomes: Callable[..., list[str]]
) -> None:
    """By its content: to define it again without a change is none here."""
    base = "class Base(grym.ModelService):\n    def g(self): return {}"
    loaded.run_cell(base.format(1)).raise_error()
    codes = [base.format(1), base.format(2), "pass"]
    assert outcomes(_taking(base="(Base)"), *codes) == ["new", "unchanged", "changed", "unchanged"]


def test_what_is_read_only_at_the_call_changes_nothing(
    loaded: InteractiveShell, outcomes: Callable[..., list[str]], runtime: Runtime
) -> None:
    """It is as it is at the call, without a new definition."""
    loaded.user_ns["limit"] = 3
    assert outcomes(_taking(), "limit = 4") == ["new", "unchanged"]
    assert runtime.registry["x"].f() == (1, 4)
    assert outcomes(_taking(), "limit = 5", "del limit") == ["unchanged"] * 3


@pytest.mark.parametrize(
    "value", ["(i for i in ())", "lambda: 3", "[iter('ab'), threading.Lock()]", "threading.local()"]
)
def test_a_value_that_is_only_itself_is_the_same_as_long_as_it_is_there(
    loaded: InteractiveShell, outcomes: Callable[..., list[str]], value: str
) -> None:
    """Nothing tells the content of a generator."""
    loaded.run_cell(f"import threading\nlimit = {value}").raise_error()
    cell = _taking(**PLACES["a class attribute"])
    assert outcomes(cell, "pass", "other = limit", "limit = iter('ab')") == [
        "new", "unchanged", "unchanged", "changed",
    ]  # fmt: skip


def test_a_value_that_is_gone_is_missed(loaded: InteractiveShell, runtime: Runtime) -> None:
    """As in a notebook that is run from its beginning; what is served goes on."""
    loaded.user_ns["limit"] = 3
    cell = _taking(**PLACES["a default"])
    _cell(loaded, cell)
    del loaded.user_ns["limit"]
    with pytest.raises(NameError, match="limit"):
        _cell(loaded, cell)
    loaded.user_ns["limit"] = 3
    assert _cell(loaded, cell).outcome == "unchanged"
    assert runtime.registry["x"].f() == (3, 3)


def test_a_name_that_was_not_there_and_then_is_counts(outcomes: Callable[..., list[str]]) -> None:
    """So does a builtin once the notebook has one of its own."""
    cell = _taking(**PLACES["a name that is used if it is there"])
    assert outcomes(cell, "pass", "limit = 3", "del limit") == ["new", "unchanged", "changed", "changed"]
    cell = _taking(before="most = max(1, 2)").replace("x\n", "y\n", 1)
    assert outcomes(cell, "pass", "max = min") == ["new", "unchanged", "changed"]


def test_what_the_cell_itself_does_to_the_notebook_is_no_change(
    loaded: InteractiveShell, outcomes: Callable[..., list[str]]
) -> None:
    """It counts on, or puts its class into a table: run again unchanged, there is nothing new."""
    loaded.run_cell("count, table = 1, {}").raise_error()
    cell = _taking(before="count = count + 1") + "table['x'] = [X, count]\n"
    assert outcomes(cell, "pass", "table['y'] = 1", "pass", "count = 7") == [
        "new", "unchanged", "changed", "unchanged", "changed",
    ]  # fmt: skip
    assert loaded.user_ns["table"] == {"x": [loaded.user_ns["X"], 8], "y": 1}


@pytest.mark.parametrize("before", ["where = %pwd", "ran = len(In)", "shell = get_ipython()", "ip"])
def test_what_ipython_keeps_is_no_part_of_the_cell(
    loaded: InteractiveShell, outcomes: Callable[..., list[str]], before: str
) -> None:
    """A magic in the body asks for the shell, which is another with every cell that runs."""
    loaded.user_ns["ip"] = loaded
    assert outcomes(_taking(before=before), "1 + 1", "x = 1") == ["new", "unchanged", "unchanged"]


def test_what_the_code_of_a_cell_calls_is_a_part_of_it(
    loaded: InteractiveShell, runtime: Runtime, outcomes: Callable[..., list[str]]
) -> None:
    """Also when it stands in another cell: in place, or loaded anew where `load` calls it."""
    made = "def made(): return [{}]"
    helper = "def helper(): return {}"
    loaded.run_cell(made.format(1) + "\n" + helper.format(1)).raise_error()
    cell = (
        "service y\nclass Part:\n    def more(self): return 1\n"
        "class Y(grym.ModelService):\n"
        "    def load(self): self.net, self.part = made(), Part()\n"
        "    @grym.task\n    def f(self): return helper(), self.net, self.part.more()\n"
    )
    assert _cell(loaded, cell).outcome == "new"
    handle = runtime.registry["y"]
    _, net, _ = handle.f()
    assert outcomes(cell, helper.format(1), helper.format(2)) == ["unchanged", "unchanged", "changed"]
    assert _cell(loaded, cell.replace("return 1", "return 3")).outcome == "changed"
    assert handle.f()[0] == 2 and handle.f()[1] is net and handle.f()[2] == 3
    assert handle.status().loads == 1
    loaded.run_cell(made.format(5)).raise_error()
    assert _cell(loaded, cell.replace("return 1", "return 3")).outcome == "changed"
    assert handle.f() == (2, [5], 3) and handle.status().loads == 2


def test_a_semicolon_keeps_the_note_to_itself(loaded: InteractiveShell, runtime: Runtime) -> None:
    """It is defined all the same."""
    assert _cell(loaded, f"service one;\n{ONE}") is None
    assert "one" in runtime.registry


def test_a_service_that_was_removed_is_defined_anew(loaded: InteractiveShell, runtime: Runtime) -> None:
    """The same text again is not taken for the service that is gone."""
    _cell(loaded, f"service one\n{ONE}")
    runtime.registry.remove("one")
    assert _cell(loaded, f"service one\n{ONE}").outcome == "new"


def test_one_that_was_registered_otherwise_is_redefined(loaded: InteractiveShell, runtime: Runtime) -> None:
    """The cell has the last word."""
    _cell(loaded, f"service one\n{ONE}")
    runtime.registry.register("one", lambda: None)
    assert _cell(loaded, f"service one\n{ONE}").outcome == "changed"
    assert runtime.registry["one"].f() == 1


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("x = 1", "none (no class in the cell)"),
        ("class A: pass", "none (A in the cell)"),
        ("from grym_nb.audio.dsp import Dsp", "none (no class in the cell)"),
        ("Alias = Elsewhere", "none (no class in the cell)"),
        (ONE + ONE.replace("One", "Two"), "2: One, Two"),
    ],
)
def test_there_is_one_class_with_tasks(loaded: InteractiveShell, body: str, found: str) -> None:
    """None or several is an error that names them, and nothing is left behind."""
    loaded.run_cell(ONE.replace("One", "Elsewhere"))
    names = set(loaded.user_ns)
    with pytest.raises(ConfigError) as caught:
        _cell(loaded, f"service x\n{body}\n")
    assert f"found {found}, expected one class with a @task method" in caught.value.cause
    assert set(loaded.user_ns) == names


def test_a_base_of_the_class_does_not_count(loaded: InteractiveShell) -> None:
    """The one that is derived from the others is the service."""
    body = ONE + "class More(One):\n    @grym.task\n    def g(self): return 2\nAgain = More\n"
    handle = _cell(loaded, f"service x\n{body}").handle
    assert (handle.f(), handle.g()) == (1, 2)


@pytest.mark.parametrize(
    ("line", "error", "told"),
    [
        ("service one nonsense", CommandError, "%%grym service one does not take 'nonsense'"),
        ("service one x=1", ConfigError, "config.x"),
        ("service one a=$nothing", CommandError, "no variable 'nothing'"),
        ("service one --needs nobody", DependencyError, "one needs nobody"),
        ("service one --memory lots", ConfigError, "lots"),
        ("service one --ttl x", CommandError, "invalid float value"),
        ("service", CommandError, "the following arguments are required: NAME"),
    ],
)
def test_a_first_line_that_does_not_fit_defines_nothing(
    loaded: InteractiveShell, runtime: Runtime, line: str, error: type[Exception], told: str
) -> None:
    """Neither the service nor a variable."""
    names = set(loaded.user_ns)
    with pytest.raises(error, match=told):
        _cell(loaded, f"{line}\n{ONE}")
    assert "one" not in runtime.registry
    assert set(loaded.user_ns) == names


def test_needs_and_variables_reach_the_registration(loaded: InteractiveShell, runtime: Runtime) -> None:
    """As with `register`."""
    loaded.user_ns["where"] = thing = object()
    body = ONE.replace("    @", "    def __init__(self, *, a=None): self.a = a\n    @")
    _cell(loaded, f"service one --needs dsp,other? a=$where\n{body}")
    assert runtime.registry["one"].status().needs == ("dsp", "other?")
    runtime.registry["one"].configure()
    with runtime.registry["one"].use() as model:
        assert model.a is thing


def test_the_names_behind_a_cell_are_the_users_and_then_pythons() -> None:
    """The user's own `sum` comes before the builtin one; an unknown name is a KeyError."""
    variables: dict[str, Any] = {"sum": "mine"}
    names = Names(variables)
    own = {"__builtins__": names, "__name__": "cell"}
    exec("import math\nclass A:\n    x = sum\ndef f(): return sum, len, later", own)
    variables["later"] = 3
    assert own["A"].x == "mine"  # type: ignore[attr-defined]
    assert own["f"]() == ("mine", builtins.len, 3)  # type: ignore[operator]
    with pytest.raises(NameError, match="name 'later' is not defined"):
        del variables["later"]
        own["f"]()  # type: ignore[operator]


def test_the_names_behind_a_cell_note_what_they_are_asked_for_while_that_is_wanted() -> None:
    """Found in the notebook, in Python or nowhere; not what the cell has itself, and not later."""
    names = Names({"mine": 1})
    own: dict[str, Any] = {"__builtins__": names, "__name__": "cell"}
    with names.noted() as asked, pytest.raises(NameError):
        exec("here = 1\ndef f(): return later\nclass A: x = mine, here, len\nnowhere", own)
    assert asked - {"__build_class__"} == {"mine", "len", "nowhere"}
    with pytest.raises(NameError):
        own["f"]()
    assert "later" not in asked


def test_a_future_statement_stays_in_its_cell(loaded: InteractiveShell) -> None:
    """The session's own flags are what they were."""
    before = loaded.compile.flags
    body = "from __future__ import annotations\n" + ONE.replace("self)", "self) -> Unknown")
    assert _cell(loaded, f"service one\n{body}").handle.f() == 1
    assert loaded.compile.flags == before
