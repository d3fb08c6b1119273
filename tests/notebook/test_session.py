"""A notebook session as a user has it: reruns, Ctrl-C, await, progress; the service stays ready."""

from __future__ import annotations

import pytest

from tests.kernel import Kernel

CELL = """
class Net(grym.ModelService):
    def load(self):
        loads.append(1)
    @grym.task
    def answer(self, x):
        return x + 1
    @grym.task
    def spin(self, n):
        print("on", flush=True)
        for i in grym.track(range(n)):
            if i == 5: print("five", flush=True)
            time.sleep(0.001)  # as work would
        return n
    @grym.task
    async def later(self, x):
        return x + 2
net = grym.register("net", Net)
"""


@pytest.fixture(scope="module")
def ready(shared_kernel: Kernel) -> Kernel:
    """A kernel with one service whose loads are counted."""
    shared_kernel.run("%load_ext grym_nb\nimport time\nimport grym_nb as grym\nloads = []").checked()
    shared_kernel.run(CELL).checked()
    return shared_kernel


def test_running_the_registering_cell_again_keeps_one_model(ready: Kernel) -> None:
    """Rerun, edit of a comment, rerun: the model that is loaded stays, and so does the handle."""
    assert ready.run("net.answer(1)").checked().result_text == "2"
    ready.run("first, calls = net, net.status().calls").checked()
    for code in (CELL, CELL, "# a comment\n" + CELL):
        ready.run(code).checked()
        assert ready.run("net.answer(1)").checked().result_text == "2"
    assert ready.run("len(loads), net is first, net.status().calls - calls").result_text == "(1, True, 3)"


def test_a_submitted_call_can_be_awaited_in_a_cell(ready: Kernel) -> None:
    """The kernel's loop runs already; plain and async tasks."""
    assert ready.run("await net.answer.submit(4)").checked().result_text == "5"
    assert ready.run("await net.later.submit(4)").checked().result_text == "6"
    ready.run("import asyncio").checked()
    reply = ready.run("await asyncio.gather(*(net.answer.submit(i) for i in range(5)))").checked()
    assert reply.result_text == "[1, 2, 3, 4, 5]"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("grym.regster('x', Net)", "grym_nb has no 'regster'. Did you mean 'register'?"),
        ("grym.remove('net')", "grym_nb has no 'remove'."),
        ("grym.register('x')", "register missing 1 required positional argument: 'factory'"),
        ("grym.register(Net)", "register missing 1 required positional argument: 'factory'"),
        ("grym.register('x', Net, gain=2)", "'x' cannot be registered"),
        ("grym.register('x', Net, memory='200')", "'x' cannot be registered"),
        ("grym.get()", "get missing 1 required positional argument: 'name'"),
        ("grym.submit('nothing', 1)", "no service answers 'nothing'."),
        ("grym.submit(grym.Task('answer', 1), 2)", "has its arguments already"),
        ("grym.run()", "run missing 1 required positional argument: 'type'"),
        ("grym.Task('answer', 1, priority='urgent')", "unknown priority"),
        ("grym.Task('answer', dta=1)", "Task got an unexpected keyword argument 'dta'. Did you mean 'data'?"),
        ("grym.track(5)", "track goes over several items, not over 5"),
        (
            "net.answer.with_(timout=5)",
            "BoundTask.with_ got an unexpected keyword argument 'timout'. Did you mean 'timeout'?",
        ),
        ("net.answer.with_(5)", "BoundTask.with_ takes 1 positional argument but 2 were given"),
        ("net.answer.with_(priority='urgent')", "unknown priority"),
        ("net.answer.with_(retries=-1)", "these options of a call do not fit"),
        ("net.map('answer')", "ServiceHandle.map missing 1 required positional argument: 'items'"),
        ("net.map('answer', 5)", "map goes over several items, not over 5"),
        ("net.map('answer', grym.Clip([0.0], 8))", "map goes over several items, not over Clip("),
        ("net.map('answer', 'text')", "map goes over several items, not over 'text'"),
        ("net.map('answer', [1], errors='ignore')", "map does not know what to do with errors"),
        ("net.map(3, [1])", "this names no task"),
        ("net.map('answer', [1], erors='raise')", "net.answer does not take these arguments"),
        ("net.map('answer', [1], save=3)", "map cannot save its results there"),
        ("net.run(grym.Task('answer', 1))", "this names no task"),
        ("net.execute(3)", "this is no task"),
        ("net.load(1)", "ServiceHandle.load takes 1 positional argument but 2 were given"),
        ("net.answer.sbmit(1)", "the task net.answer has no 'sbmit'. Did you mean 'submit'?"),
        ("net.answer.map([1])", "the task net.answer has no 'map'."),
        ("import pickle; pickle.dumps(net)", "net cannot be pickled: a service lives in its kernel"),
        ("grym.get([])", "no service []."),
        ("grym.Task('answer', 1, params=3)", "this is no task"),
        ("grym.Runtime('x')", "this runtime cannot be made"),
        ("grym.current(3)", "this runtime cannot be made"),
        ("grym.Clip.read(3)", "3 is not the path of a file"),
        ("grym.Clip([0.0], 8).write(None)", "None is not the path of a file"),
        ("grym.Clip([0.0], 8).cut('a')", "the cut has start='a': seconds are needed"),
        ("from grym_nb.audio import features; features.loudness('x')", "loudness takes a Clip, not 'x'"),
        ("from grym_nb.audio import features; features.mel(None)", "mel takes a Clip, not None"),
        ("features.loudness(grym.Clip([0.0], 8), block_s=-1)", "these parameters do not fit"),
        ("from grym_nb.audio import synth; synth.tone('a')", "hz is 'a': it must be a number"),
        ("synth.tone(440.0, second=1)", "Did you mean 'seconds'?"),
        ("synth.noise(seconds=-1)", "seconds is -1: it must be a number from 0"),
        ("from grym_nb.services import within, one_of; within('a', 2)", "this check could never pass"),
        ("within(2, 1)", "this check could never pass"),
        ("one_of()", "this check could never pass"),
        ("grym.task(3)", "@task stands above what is no task"),
        ("net.unload(timout=1)", "ServiceHandle.unload got an unexpected keyword argument 'timout'."),
        ("net.answr(1)", "net has no task 'answr'. Did you mean 'answer'?"),
        ("net.answer()", "net.answer does not take these arguments"),
        ("grym.Clip([0.0])", "Clip missing 1 required positional argument: 'rate'"),
        ("grym.Clip.read('nosuch.wav')", "nosuch.wav' cannot be opened."),
        ("grym.Clip([0.0], 8).cut(end=1)", "Clip.cut missing 1 required positional argument: 'start'"),
        ("grym.run('audio.loudness', 'song.wav')", "dsp.loudness does not take these arguments"),
        ("%grym run dsp loudness song.wav", "dsp.loudness does not take these arguments"),
        ("%grym cancel abc", "%grym cancel takes numbers of calls, not 'abc'"),
        ("%grym cancel $loads", "%grym cancel takes numbers of calls, not '$loads'"),
        ("grym.current().registry.remove()", "ServiceRegistry.remove missing 1 required"),
    ],
)
def test_what_a_user_gets_wrong_is_told_in_three_lines(ready: Kernel, code: str, told: str) -> None:
    """What happened, and what to do next; no traceback, and the service is as it was."""
    error = ready.run(code).error
    assert error is not None
    assert told in error.traceback[0]
    assert len(error.traceback) <= 3 and error.traceback[-1].startswith("→ ")
    assert ready.run("net.state, len(loads)").result_text == "('ready', 1)"


def test_ctrl_c_in_an_inline_call_leaves_the_service_ready(ready: Kernel) -> None:
    """It says how far it came, in one line, and the next call works."""
    ready.run_async("net.spin(100_000)")
    ready.wait_for("five")
    ready.interrupt()
    error = ready.wait(timeout=30).error
    assert error is not None
    assert error.ename == "Interrupted"
    line, hint = error.traceback
    assert hint == "→ run it again when you want it after all"
    assert line.startswith("Interrupted: net.spin interrupted at ")
    assert line.endswith("/100000; the service is still ready")
    assert ready.run("net.state, net.answer(1), len(loads)").result_text == "('ready', 2, 1)"


def test_ctrl_c_while_waiting_for_a_submitted_call_cancels_it(ready: Kernel) -> None:
    """It ends at its next step, in its own thread."""
    ready.run("call = net.spin.submit(100_000)").checked()
    ready.run_async("print('waits', flush=True); call.result()")
    ready.wait_for("waits")
    ready.interrupt()
    error = ready.wait(timeout=30).error
    assert error is not None
    # The signal may come before the wait has begun: then it is a plain one.
    assert error.ename in ("Interrupted", "KeyboardInterrupt")
    ready.run("call.cancel(); call.exception(30)").checked()
    assert ready.run("net.state, net.answer(1), len(loads)").result_text == "('ready', 2, 1)"
    assert ready.run("net.status().running").result_text == "()"


@pytest.mark.parametrize(
    "code", ["await net.spin.submit(100_000)", "await asyncio.gather(*(net.spin.submit(100_000),))"]
)
def test_ctrl_c_in_an_await_cancels_the_call(ready: Kernel, code: str) -> None:
    """asyncio's own error would be forty lines; it stays what it is, and is shown in one."""
    ready.run("import asyncio").checked()
    ready.run_async(code)
    ready.wait_for("five")
    ready.interrupt()
    error = ready.wait(timeout=30).error
    assert error is not None and error.ename == "CancelledError"
    line, _ = error.traceback
    assert line.startswith("Interrupted: net.spin asked to stop at ") and line.endswith(
        "track() step, or await"
    )
    assert (ready.run("%grym why").result_text or "").startswith(line)
    ready.run("grym.current().registry['net'].unload().load(); del loads[1:]").checked()
    assert ready.run("net.state, net.answer(1), net.status().running").result_text == "('ready', 2, ())"


def test_ctrl_c_in_the_magic_is_the_same(ready: Kernel) -> None:
    """`%grym run` is a call."""
    ready.run_async("%grym run net spin 100000")
    ready.wait_for("five")
    ready.interrupt()
    error = ready.wait(timeout=30).error
    assert error is not None and error.ename == "Interrupted"
    assert ready.run("%grym run net answer 1").result_text == "2"


def test_nothing_of_a_failed_call_is_pinned(ready: Kernel) -> None:
    """The traceback that IPython keeps does not hold what the service had in its hands."""
    ready.run(
        "import gc, weakref\n"
        "class Big: pass\n"
        "class Holds(grym.ModelService):\n"
        "    @grym.task\n"
        "    def f(self, x):\n"
        "        big = Big()\n"
        "        seen.append(weakref.ref(big))\n"
        "        raise ValueError('no')\n"
        "seen = []\n"
        "holds = grym.register('holds', Holds)"
    ).checked()
    assert ready.run("%grym run holds 1").error is not None
    ready.run("shown = %grym why").checked()
    ready.run("holds.unload();").checked()
    assert ready.run("_ = gc.collect(); [ref() for ref in seen]").result_text == "[None]"
