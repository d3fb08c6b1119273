"""`%grym` in a kernel: every command, what it returns, and how it says no."""

from __future__ import annotations

import pytest
from IPython.core.interactiveshell import InteractiveShell

from grym_nb.errors import CommandError, ConfigError
from grym_nb.notebook.commands import COMMANDS, command
from grym_nb.notebook.extension import install
from grym_nb.notebook.magics import usage
from grym_nb.runtime import Runtime
from tests.kernel import Kernel

SERVICES = """
%load_ext grym_nb
import grym_nb as grym

class Echo(grym.ModelService):
    \"\"\"Says things again.\"\"\"
    @grym.task("text.echo")
    def echo(self, thing, *, times: int = 1, mark=""):
        self.last = thing
        return f"{thing}{mark}" * times if isinstance(thing, str) else thing

class Two(grym.ModelService):
    @grym.task("two.first")
    def first(self, value=None):
        return ["first", value]
    @grym.task
    def second(self, value=None):
        return ["second", value]
    @grym.task
    def fails(self, value):
        weight = [value] * 3
        raise ValueError(f"cannot use {value}")

echo = grym.register("echo", Echo)
two = grym.register("two", Two)
clip = object()
"""


@pytest.fixture(scope="module")
def ready(shared_kernel: Kernel) -> Kernel:
    """A kernel with two services."""
    shared_kernel.run(SERVICES).checked()
    return shared_kernel


def test_alone_it_is_the_table_of_services(ready: Kernel) -> None:
    """Text and HTML of the same rows, and nothing is loaded for it."""
    reply = ready.run("%grym").checked()
    assert reply.stdout == ""
    text, html = reply.result_text or "", reply.result_html or ""
    for name in ("dsp", "echo", "two"):
        assert name in text and f">{name}</td>" in html
    states = ready.run("{handle.state for handle in grym.current().registry.handles()}").result_text
    assert states == "{'registered'}"
    assert ready.run("%grym status").result_text.splitlines()[0] == "services"


def test_the_status_of_one_is_its_card(ready: Kernel) -> None:
    """In full, with its tasks."""
    assert "first, second, fails" in (ready.run("%grym status two").result_text or "")


def test_what_a_command_returns_can_be_kept(ready: Kernel) -> None:
    """An object, not a print; a semicolon shows nothing and returns nothing."""
    assert ready.run("st = %grym status").outputs == []
    assert ready.run("type(st).__name__, st['echo'].state").result_text == "('StatusTable', 'registered')"
    assert ready.run("%grym status;").outputs == []
    assert ready.run("quiet = %grym status; # nothing").outputs == []
    assert ready.run("quiet is None").result_text == "True"


def test_load_and_unload_return_what_they_worked_on(ready: Kernel) -> None:
    """One handle, or a table of several."""
    assert (ready.run("%grym load echo").result_text or "").startswith("<echo v1 ready")
    table = ready.run("%grym load echo two").result_text or ""
    assert "echo" in table and "two" in table and "dsp" not in table
    assert (ready.run("%grym unload two echo --timeout 1").result_text or "").count("registered") == 2
    assert ready.run("echo.state, two.state").result_text == "('registered', 'registered')"


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("run echo echo hello times=2", "'hellohello'"),
        ("run echo text.echo hello", "'hello'"),
        ("run echo hello", "'hello'"),
        ("run echo 'two words' mark='!'", "'two words!'"),
        ("run echo 3", "3"),
        ("run echo -3.5", "-3.5"),
        ("run echo -- --hello", "'--hello'"),
        ("run echo -- -h", "'-h'"),
        ("run echo [1,2]", "[1, 2]"),
        ("run echo '{\"a\": [1]}'", "{'a': [1]}"),
        ("run echo '\"3\"'", "'3'"),
        ("run two first", "['first', None]"),
        ("run two second $clip;", None),
        ("run two two.first value=None", "['first', None]"),
    ],
)
def test_run_calls_a_task(ready: Kernel, line: str, answer: str | None) -> None:
    """By method name or type, or neither where there is one task; arguments as in Python, or text."""
    assert ready.run(f"%grym {line}").checked().result_text == answer


def test_a_variable_is_passed_as_the_object_it_is(ready: Kernel) -> None:
    """By position and by name, with either spelling."""
    ready.run("answer = %grym run echo $clip").checked()
    assert ready.run("answer is clip").result_text == "True"
    ready.run("answer = %grym run two first value={clip}").checked()
    assert ready.run("answer[1] is clip").result_text == "True"


def test_minus_o_keeps_the_answer_in_a_variable(ready: Kernel) -> None:
    """And shows nothing."""
    assert ready.run("%grym run two first $clip -o kept").outputs == []
    assert ready.run("kept[1] is clip").result_text == "True"


def test_a_call_through_the_magic_counts_like_any_other(ready: Kernel) -> None:
    """`%grym calls` has it, the newest first."""
    ready.run("%grym run echo hello;").checked()
    text = ready.run("%grym calls").checked().result_text or ""
    assert text.startswith("calls under way: none")
    assert text.splitlines()[5].split()[1:4] == ["echo.echo", "v1", "ok"]


def test_calls_shows_what_runs_and_how_far_it_is(ready: Kernel) -> None:
    """From inside a submitted call: its progress and deadline."""
    reply = ready.run(
        "import threading\n"
        "on, go = threading.Event(), threading.Event()\n"
        "class Slow(grym.ModelService):\n"
        "    @grym.task\n"
        "    def count(self, n):\n"
        "        for i in grym.track(range(n)):\n"
        "            if i == 2: on.set(); go.wait(30)\n"
        "        return n\n"
        "slow = grym.register('slow', Slow)\n"
        "call = slow.count.with_(timeout=60).submit(4)\n"
        "_ = on.wait(30)\n"
        "seen = %grym calls\n"
        "go.set(); call.result()\n"
        "print(seen.parts[0].rows)"
    ).checked()
    [row] = eval(reply.stdout)
    assert (row[1], row[3]) == ("slow.count", "2/4")
    assert row[5].endswith("s left")
    assert reply.result_text is None


def test_calls_and_devices_show_who_has_a_card_and_who_waits_for_it(ready: Kernel) -> None:
    """Two services on one card: one computes, the other waits for its turn."""
    reply = ready.run(
        "import threading, time\n"
        "on, go = threading.Event(), threading.Event()\n"
        "class Hold(grym.ModelService):\n"
        "    @grym.task\n"
        "    def hold(self): on.set(); go.wait(30); return 1\n"
        "pool = grym.current().resources\n"
        "pool.declare('card:0')\n"
        "one, other = [grym.register(name, Hold, device='card:0') for name in ('one', 'other')]\n"
        "first = one.hold.submit()\n"
        "_ = on.wait(30)\n"
        "second = other.hold.submit()\n"
        "while not pool['card:0'].waiting: time.sleep(0.001)\n"
        "calls = %grym calls\n"
        "devices = %grym devices\n"
        "go.set(); first.result(), second.result()\n"
        "[row[1:4:2] for row in calls.parts[0].rows], {row[0]: row[1:4] for row in devices.rows}['card:0']"
    ).checked()
    rows, card = eval(reply.result_text or "")
    assert rows[0] == ("one.hold", "") and rows[1][0] == "other.hold"
    assert rows[1][1].startswith("waits for card:0, held by one.hold (call ")
    assert card[0] == "busy" and card[1].startswith("one.hold (call ") and card[2] == "1"


def test_cancel_ends_calls_by_their_numbers(ready: Kernel) -> None:
    """One that runs at its next step, one in line at once, and a stream that was left half read."""
    reply = ready.run(
        "import threading\n"
        "on, go = threading.Event(), threading.Event()\n"
        "class Slow(grym.ModelService):\n"
        "    @grym.task\n"
        "    def count(self, n):\n"
        "        for i in grym.track(range(n)): on.set(); go.wait(30)\n"
        "    @grym.task\n"
        "    def parts(self):\n"
        "        yield from range(3)\n"
        "held = grym.register('held', Slow, concurrency=2)\n"
        "stream = held.parts(); next(stream)\n"
        "calls = held.count.submit(4), held.count.submit(5)\n"
        "_ = on.wait(30)\n"
        "seen = %grym calls\n"
        "rows = seen.parts[0].rows\n"
        "first, last = int(rows[0][0]), calls[1]\n"
        "told = get_ipython().run_line_magic('grym', f'cancel $first {rows[1][0]} $last')\n"
        "go.set()\n"
        "ended = [call.exception(30).code for call in calls]\n"
        "ended, [row[1:4:2] for row in rows], [part.split(maxsplit=1)[1] for part in told.parts]"
    ).checked()
    codes, rows, told = eval(reply.result_text or "")
    assert codes == ["call.cancelled"] * 2
    assert rows == [("held.parts", ""), ("held.count", "0/4"), ("held.count", "waiting")]
    assert told == [
        "held.parts is cancelled; it has ended",
        "held.count is cancelled; it ends at its next track() step, or await",
        "held.count is cancelled; it has ended",
    ]
    assert ready.run("held._record.lane.free").result_text == "2"
    lines = ready.run("%grym cancel 123456").error
    assert lines is not None and lines.evalue.startswith("no call 123456 is under way")
    assert (ready.run("next(stream)").error or lines).ename == "CallCancelled"


def test_cancel_all_ends_what_is_under_way(ready: Kernel) -> None:
    """Here a stream that was left half read; then there is nothing more to end."""
    ready.run(
        "class Parts(grym.ModelService):\n"
        "    @grym.task\n"
        "    def parts(self):\n"
        "        yield from range(3)\n"
        "parted = grym.register('parted', Parts)\n"
        "stream = parted.parts(); next(stream)"
    ).checked()
    assert "parted.parts is cancelled; it has ended" in (ready.run("%grym cancel $stream").result_text or "")
    ready.run("stream = parted.parts(); next(stream)").checked()
    assert "parted.parts is cancelled; it has ended" in (ready.run("%grym cancel all").result_text or "")
    assert ready.run("%grym cancel all").result_text == "no call is under way"


@pytest.mark.parametrize(
    ("line", "name", "lines"),
    [
        (
            "%grym statu",
            "CommandError",
            ["there is no command 'statu'. Did you mean 'status'?", "→ %grym help lists the commands"],
        ),
        (
            "%grym echo",
            "CommandError",
            [
                "there is no command 'echo'.",
                "→ echo is a service: %grym status echo, or %grym run echo ...",
            ],
        ),
        ("%grym status ecko", "ServiceNotFound", ["no service 'ecko'. Did you mean 'echo'?", None]),
        ("%grym load echo ecko", "ServiceNotFound", ["no service 'ecko'. Did you mean 'echo'?", None]),
        (
            "%grym run two frist 1",
            "TaskNotFound",
            ["two has no task 'frist'. Did you mean 'first'?", "→ it has: first, second, fails"],
        ),
        (
            "%grym run two",
            "CommandError",
            ["%grym run two: which task?", "→ it has several: first, second, fails"],
        ),
        (
            "%grym run",
            "CommandError",
            [
                "%grym run: which service?",
                "→ usage: %grym run SERVICE [TASK] ARG... [name=value ...] [-o VAR]",
            ],
        ),
        (
            "%grym run echo $clap",
            "CommandError",
            ["there is no variable 'clap'. Did you mean 'clip'?", None],
        ),
        ("%grym run echo a times=1 times=2", "CommandError", ["%grym run echo: times is given twice", None]),
        (
            "%grym run echo a -o 2x",
            "CommandError",
            ["%grym run -o needs a variable's name, not '2x'", "→ -o result"],
        ),
        (
            "%grym run echo a --outt x",
            "CommandError",
            ["%grym run does not take '--outt'. Did you mean '--out'?", None],
        ),
        (
            "%grym unload echo --timout 3",
            "CommandError",
            ["%grym unload does not take '--timout'. Did you mean '--timeout'?", None],
        ),
        ("%grym unload", "CommandError", [None, "→ usage: %grym unload SERVICE... [--timeout S]"]),
        ("%grym calls now", "CommandError", ["%grym calls does not take 'now'.", "→ usage: %grym calls"]),
        ("%grym service x", "CommandError", ["%grym service takes the class from the lines below it", None]),
        ("%%grym status\nx", "CommandError", ["%%grym status takes no cell.", None]),
        ("%%grym\nx", "CommandError", ["%%grym: which command?", None]),
        ("%grym help lod", "CommandError", ["there is no command 'lod'. Did you mean 'load'?", None]),
        ("%grym run echo 'a", "CommandError", [None, "  run echo 'a", None]),
        ("%grym run two fails 7", "TaskFailed", ["two.fails raised ValueError: cannot use 7", None, None]),
        ("%grym run echo times=x", "ValidationError", [None, None, None]),
    ],
)
def test_an_error_is_at_most_three_lines_and_a_real_one(
    ready: Kernel, line: str, name: str, lines: list[str | None]
) -> None:
    """It arrives as an `error` message with our name, so that nbval and nbclient fail the cell."""
    reply = ready.run(line)
    assert reply.stderr == ""
    assert reply.error is not None
    assert reply.error.ename == name
    told = list(reply.error.traceback)
    assert told[0].startswith(f"{name}: ")
    told[0] = told[0].removeprefix(f"{name}: ")
    assert len(told) == len(lines)
    assert [one for one, wanted in zip(told, lines, strict=True) if wanted is not None] == [
        wanted for wanted in lines if wanted is not None
    ]


def test_help_shows_the_commands_and_each_of_them(ready: Kernel) -> None:
    """With examples to copy; `-h` behind a command is the same."""
    text = ready.run("%grym help").result_text or ""
    for known in COMMANDS:
        assert f"grym {known.name}" in text
        shown = ready.run(f"%grym help {known.name}").checked().result_text or ""
        assert all(example in shown for example in known.examples)
    assert ready.run("%grym run --help").result_text == ready.run("%grym help run").result_text
    assert ready.run("%grym --help").result_text == text
    assert ready.run("%grym help %%service").result_text == ready.run("%grym help service").result_text


def test_a_question_mark_shows_how_everything_is_typed(ready: Kernel) -> None:
    """The docstring is made of the same table."""
    ready.run("del grym")  # IPython shows a variable rather than the magic under Shift-Tab
    assert "%grym run dsp loudness $clip" in ready.inspect("%grym")
    ready.run("import grym_nb as grym")
    assert all(known.about in usage() and known.line in usage() for known in COMMANDS)


def test_the_glossary_and_the_doctor_answer(ready: Kernel) -> None:
    """Their own tests look closer."""
    assert "ServiceFacade" in (ready.run("%grym glossary").checked().result_text or "")
    assert "front end" in (ready.run("report = %grym doctor\nreport").checked().result_text or "")
    assert ready.run("report.broken").result_text == "False"


def test_every_static_repr_is_small_and_without_styles(ready: Kernel) -> None:
    """What an untrusted notebook, GitHub and nbconvert would keep."""
    lines = [
        "%grym",
        "%grym status two",
        "%grym calls",
        "%grym context",
        "%grym context stats",
        "%grym devices",
        "%grym why",
        "%grym glossary",
        "%grym zoo",
        "%grym zoo dtmf",
        "%grym help",
        "%grym doctor",
    ]
    for line in lines:
        html = ready.run(line).checked().result_html or ""
        assert 0 < len(html.encode()) < 20_000, line
        assert "<style" not in html and "<script" not in html and "<svg" not in html, line


# -- the same in this process: quick, and counted by coverage ---------------------------------------


class One:
    """A service made by a factory that says nothing of what it makes."""

    def __init__(self) -> None:
        self.calls = 0

    from grym_nb.services import task as _task

    @_task
    def only(self, value: object = None) -> object:
        """Return the value."""
        return value


def test_the_tasks_of_an_unknown_factory_are_known_after_loading(
    shell: InteractiveShell, runtime: Runtime
) -> None:
    """A factory without a return type has to be called to know."""
    runtime.registry.register("one", lambda: One())
    install(shell)
    assert shell.run_line_magic("grym", "run one 5") == 5
    assert shell.run_line_magic("grym", "run one only 6") == 6
    shell.run_line_magic("grym", "run one 7 -o seven")
    assert shell.user_ns["seven"] == 7


def test_the_lines_of_a_command_table_are_what_the_parsers_take() -> None:
    """Every option that a usage line shows is one that the parser knows, and the other way round."""
    from grym_nb.notebook.commands import parser_of

    for known in COMMANDS:
        flags = {flag for flag in parser_of(known).flags if flag.startswith("--")}
        shown = {word.strip("[]") for word in known.usage.split() if word.startswith("[--")}
        assert flags == shown, known.name


def test_commands_are_found_by_name() -> None:
    """With one sign or two."""
    assert command("status").line == "%grym status [SERVICE]"
    assert command("service", cell=True).line.startswith("%%grym service NAME")
    with pytest.raises(CommandError, match="two % signs"):
        command("service")


def test_a_cell_without_a_class_is_refused_in_process(shell: InteractiveShell) -> None:
    """The whole way through the cell magic."""
    install(shell)
    with pytest.raises(ConfigError, match="one class with a @task method"):
        shell.run_cell_magic("grym", "service x", "1\n")
    assert shell.run_cell_magic("grym", "service --help", "1\n") is not None
