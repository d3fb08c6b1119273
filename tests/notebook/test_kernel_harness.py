"""The kernel harness itself: it runs cells as a front end does and leaves nothing behind."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from tests.kernel import CellError, Kernel, KernelDied


def test_a_cell_gives_its_value_and_what_it_printed(shared_kernel: Kernel) -> None:
    """Text, html, stdout and stderr of one cell are told apart."""
    reply = shared_kernel.run(
        "import sys\n"
        "class Shown:\n"
        "    def __repr__(self): return 'plain'\n"
        "    def _repr_html_(self): return '<b>html</b>'\n"
        "print('out', flush=True); print('err', file=sys.stderr)\n"
        "Shown()"
    )
    assert (reply.stdout, reply.stderr) == ("out\n", "err\n")
    assert (reply.result_text, reply.result_html) == ("plain", "<b>html</b>")
    assert reply.error is None
    assert reply.checked() is reply


def test_a_cell_without_a_value_has_no_result(shared_kernel: Kernel) -> None:
    """A statement leaves nothing behind, and says so with None."""
    reply = shared_kernel.run("x = 1")
    assert (reply.outputs, reply.result_text, reply.result_html) == ([], None, None)


def test_an_error_comes_with_its_lines_in_plain_text(shared_kernel: Kernel) -> None:
    """Colours are removed; the rest is what the front end was sent."""
    reply = shared_kernel.run("{}['missing']")
    assert isinstance(reply.error, CellError)
    assert (reply.error.ename, reply.error.evalue) == ("KeyError", "'missing'")
    assert reply.error.traceback[-1] == "KeyError: 'missing'"
    with pytest.raises(AssertionError, match="KeyError: 'missing'"):
        reply.checked()


def test_one_of_our_errors_is_at_most_three_lines(shared_kernel: Kernel) -> None:
    """The whole way: raised in a kernel, rendered by `_render_traceback_`, sent as a real error."""
    reply = shared_kernel.run(
        "from grym_nb.errors import ServiceNotFound\n"
        "raise ServiceNotFound('no service \\'lod\\'', cause='the registry is empty')"
    )
    assert reply.error is not None
    assert reply.error.traceback == (
        "ServiceNotFound: no service 'lod'",
        "  the registry is empty",
        "→ %grym status lists the services",
    )


def test_the_kernel_is_this_interpreter_with_directories_of_its_own(shared_kernel: Kernel) -> None:
    """No kernel that happens to be installed, and no file of the user, is touched."""
    reply = shared_kernel.run(
        "import os, sys; print(sys.executable, os.getpid()); print(os.environ['IPYTHONDIR']); "
        "print(get_ipython().profile_dir.location)"
    )
    first, ipythondir, profile = reply.stdout.splitlines()
    assert first == f"{sys.executable} {shared_kernel.pid}"
    assert ipythondir.startswith(str(shared_kernel.home))
    assert profile.startswith(ipythondir)


def test_a_cell_that_asks_for_input_fails_and_does_not_hang(shared_kernel: Kernel) -> None:
    """Nobody is there to answer."""
    reply = shared_kernel.run("input('name? ')")
    assert reply.error is not None
    assert reply.error.ename == "StdinNotImplementedError"


def test_displays_are_updated_and_cleared_as_a_front_end_does(shared_kernel: Kernel) -> None:
    """What is left is what a saved notebook would hold."""
    reply = shared_kernel.run(
        "from IPython.display import clear_output, display\n"
        "print('gone'); clear_output()\n"
        "shown = display({'text/plain': 'first'}, raw=True, display_id=True)\n"
        "shown.update({'text/plain': 'second'}, raw=True)"
    )
    assert reply.displays == [{"text/plain": "second"}]
    assert reply.stdout == ""
    assert "update_display_data" in [kind for kind, _ in reply.messages]
    late = shared_kernel.run("shown.update({'text/plain': 'third'}, raw=True)")
    assert (late.outputs, reply.displays) == ([], [{"text/plain": "third"}])
    waited = shared_kernel.run("print('a'); clear_output(wait=True); print('b')")
    assert waited.stdout == "b\n"


def test_tab_offers_names_between_two_positions(shared_kernel: Kernel) -> None:
    """Completion works in the middle of a line as well as at its end."""
    shared_kernel.run("grym_harness_name = 1")
    code = "print(grym_harness_n)"
    completion = shared_kernel.complete(code, len(code) - 1)
    assert "grym_harness_name" in completion.matches
    assert code[completion.start : completion.end] == "grym_harness_n"
    assert "grym_harness_name" in shared_kernel.complete("grym_harness_").matches


def test_inspection_shows_the_docstring(shared_kernel: Kernel) -> None:
    """What Shift-Tab shows is text without colours."""
    shared_kernel.run("def told():\n    'Says it.'")
    assert "Says it." in shared_kernel.inspect("told")
    assert shared_kernel.inspect("nothing_of_that_name") == ""


def test_a_comm_carries_messages_down_and_up(shared_kernel: Kernel) -> None:
    """A widget can be driven without a page: its comm is opened by the cell and answered by the test."""
    opened = shared_kernel.run(
        "from comm import create_comm\n"
        "heard = []\n"
        "c = create_comm(target_name='t', data={'a': 1})\n"
        "c.on_msg(lambda m: (heard.append(m['content']['data']), c.send({'echo': 1})))"
    ).checked()
    [content] = [content for kind, content in opened.messages if kind == "comm_open"]
    answer = shared_kernel.send_comm(content["comm_id"], {"click": True})
    assert [c["data"] for kind, c in answer.messages if kind == "comm_msg"] == [{"echo": 1}]
    assert shared_kernel.run("heard").result_text == "[{'click': True}]"


def test_a_running_cell_can_be_watched_and_waited_for(shared_kernel: Kernel) -> None:
    """`run_async` comes back while the cell waits for a file that only then appears."""
    flag = shared_kernel.home / "go"
    job = shared_kernel.run_async(
        f"import pathlib, time\nprint('on', flush=True)\n"
        f"while not pathlib.Path({str(flag)!r}).exists(): time.sleep(0.01)\n"
        "'ended'"
    )
    assert shared_kernel.wait_for("on") is job
    assert not job.done
    flag.touch()
    assert shared_kernel.wait().result_text == "'ended'"
    assert job.done


def test_an_interrupt_stops_the_cell_and_keeps_the_variables(shared_kernel: Kernel) -> None:
    """SIGINT is a KeyboardInterrupt in the cell, and the kernel goes on."""
    shared_kernel.run_async("kept = 7; print('on', flush=True)\nwhile True: pass")
    shared_kernel.wait_for("on")
    shared_kernel.interrupt()
    reply = shared_kernel.wait(timeout=20)
    assert reply.error is not None
    assert reply.error.ename == "KeyboardInterrupt"
    assert shared_kernel.run("kept").result_text == "7"


def test_cells_queue_behind_one_another(shared_kernel: Kernel) -> None:
    """A second cell sent meanwhile runs after the first, and each reply has its own output."""
    first = shared_kernel.run_async("print('first')")
    second = shared_kernel.run_async("print('second')")
    shared_kernel.wait(second)
    assert (first.stdout, second.stdout) == ("first\n", "second\n")
    assert first.done


def test_a_cell_past_its_time_is_an_error_that_shows_the_cell(kernel: Kernel) -> None:
    """The kernel is left running, and closing it does not wait for the cell."""
    with pytest.raises(TimeoutError, match="while True"):
        kernel.run("while True: pass", timeout=0.5)
    assert kernel.alive


def test_a_kernel_that_dies_is_noticed(kernel: Kernel) -> None:
    """Its last words are in the error, not a timeout a minute later."""
    with pytest.raises(KernelDied, match="last words"):
        kernel.run("import os; os.write(2, b'last words'); os._exit(3)", timeout=20)
    assert not kernel.alive


def test_a_restart_is_a_new_process_without_the_old_variables(kernel: Kernel) -> None:
    """As the restart button: same connection, nothing kept."""
    before = kernel.pid
    kernel.run("x = 1").checked()
    kernel.restart()
    assert kernel.pid != before
    assert not psutil.pid_exists(before)
    reply = kernel.run("x")
    assert reply.error is not None
    assert reply.error.ename == "NameError"


def test_nothing_is_left_when_a_kernel_is_closed() -> None:
    """The process, its children and its folder are gone; closing twice is no error."""
    with Kernel() as kernel:
        home, pid = kernel.home, kernel.pid
        child = int(
            kernel.run(
                "import subprocess, sys\n"
                "child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
                "print(child.pid)"
            ).stdout
        )
        assert psutil.pid_exists(child)
        watched = psutil.Process(child)
        kernel.run_async("print('on', flush=True)\nwhile True: pass")
    assert not psutil.pid_exists(pid)
    psutil.wait_procs([watched], timeout=10)
    assert not watched.is_running() or watched.status() == psutil.STATUS_ZOMBIE
    assert not home.exists()
    kernel.close()
    with pytest.raises(AssertionError, match="not running"):
        kernel.run("1")


def test_environment_directory_and_arguments_reach_the_kernel(tmp_path: Path) -> None:
    """What a test asks for is what the kernel gets."""
    with Kernel(
        env={"GRYM_PROBE": "1"}, cwd=tmp_path, args=("--InteractiveShell.separate_in=probe",)
    ) as kernel:
        reply = kernel.run(
            "import os; print(os.environ['GRYM_PROBE'], get_ipython().separate_in, os.getcwd())"
        ).checked()
    assert reply.stdout == f"1 probe {tmp_path.resolve()}\n"
