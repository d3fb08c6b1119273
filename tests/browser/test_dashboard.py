"""The dashboard as people see it: in JupyterLab, in a browser, with a kernel that is busy."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.lab import Lab, Notebook

pytestmark = pytest.mark.browser

SETUP = """
%load_ext grym_nb
import grym_nb as grym, time

class Echo(grym.ModelService):
    @grym.task
    def say(self, x: int = 1) -> int:
        if x < 0:
            raise ValueError("not below nought")
        return x

    @grym.task
    def steps(self, n: int) -> int:
        for _ in grym.track(range(n)):
            time.sleep(0.01)
        return n

echo = grym.register("echo", Echo)
other = grym.register("other", Echo)
"""
BUSY = """
began = time.monotonic()
while time.monotonic() - began < 6:
    echo.say(1)
    time.sleep(0.001)
"""
EVIL = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


def row(board: Locator, name: str) -> Locator:
    return board.locator(".grym-services tbody tr").filter(has=board.page.get_by_text(name, exact=True))


def board_of(page: Page, at: int = 0) -> Locator:
    board = page.locator(".grym-board").nth(at)
    expect(board).to_be_visible()
    return board


def opened(notebook: Notebook, name: str, *cells: str, line: str = "%grym dashboard") -> Locator:
    notebook.open(name, SETUP, line, *cells)
    notebook.run(0)
    notebook.run(1)
    return board_of(notebook.page)


def test_the_table_of_services_is_there_after_loading_the_extension(notebook: Notebook) -> None:
    """`%load_ext` says nothing; `%grym` is a table and needs no widget."""
    notebook.open("status.ipynb", SETUP, "%grym")
    notebook.run(0)
    expect(notebook.page.locator(".jp-OutputArea-output")).to_have_count(0)
    notebook.run(1)
    table = notebook.page.locator("table.grym-table")
    expect(table.locator("caption")).to_have_text("services")
    expect(table.locator("tbody tr")).to_have_count(5)


def test_it_is_drawn_in_light_and_in_dark_and_axe_finds_nothing_serious(notebook: Notebook) -> None:
    """Colours, names and roles; six panels."""
    from axe_playwright_python.sync_playwright import Axe

    board = opened(notebook, "themes.ipynb", "echo.say(1); call = echo.steps.submit(5000)")
    notebook.run(2)
    expect(board.locator(".grym-panel")).to_have_count(6)
    expect(row(board, "echo").locator(".grym-state")).to_have_text("ready")
    expect(board.locator(".grym-running li")).to_have_count(1)
    expect(board).to_have_attribute("data-theme", "light")
    light = board.evaluate("(node) => getComputedStyle(node).color")
    found = Axe().run(notebook.page, context=".grym-board")
    notebook.theme("JupyterLab Dark")
    expect(board).to_have_attribute("data-theme", "dark")
    assert board.evaluate("(node) => getComputedStyle(node).color") != light
    dark = Axe().run(notebook.page, context=".grym-board")
    notebook.theme("JupyterLab Light")
    for response in (found.response, dark.response):
        grave = [
            (one["id"], one["nodes"][0]["html"], one["nodes"][0]["failureSummary"])
            for one in response["violations"]
            if one["impact"] in ("serious", "critical")
        ]
        assert grave == []
        assert len(response["passes"]) > 10


def test_values_change_while_a_cell_runs(notebook: Notebook) -> None:
    """Several times, in a cell that never gives the kernel's loop a turn."""
    board = opened(notebook, "busy.ipynb", "while True:\n    echo.say(1)\n    time.sleep(0.001)")
    calls = row(board, "echo").locator("td.grym-number").first
    seen: list[str] = []
    notebook.start(2)
    for _ in range(5):
        seen.append(calls.inner_text())
        expect(calls).not_to_have_text(seen[-1].strip())
    prompt = notebook.page.locator(".jp-CodeCell").nth(2).locator(".jp-InputPrompt").first
    assert "*" in prompt.inner_text(), "the cell runs still"
    assert len(set(seen)) == 5


def test_a_button_loads_a_service_and_another_lets_it_go(notebook: Notebook) -> None:
    """What came of it stands in its row."""
    board = opened(notebook, "buttons.ipynb")
    its = row(board, "other")
    its.get_by_role("button", name="Load other", exact=True).click()
    expect(its.locator(".grym-state")).to_have_text("ready")
    assert notebook.run_code("print(other.state)") == "ready\n"
    its.get_by_role("button", name="Unload other", exact=True).click()
    expect(its.locator(".grym-state")).to_have_text("registered")
    expect(its.locator(".grym-now")).to_have_text("unloaded")


def test_what_fails_is_in_the_row_and_in_the_log_with_why(notebook: Notebook) -> None:
    """The text of the error, in full, behind its line."""
    board = opened(
        notebook,
        "fails.ipynb",
        "class Broken(grym.ModelService):\n    def load(self): raise OSError('no weights')\n"
        "    @grym.task\n    def say(self): ...\nbroken = grym.register('broken', Broken)",
    )
    notebook.run(2)
    its = row(board, "broken")
    its.get_by_role("button", name="Load broken", exact=True).click()
    expect(its.locator(".grym-now")).to_contain_text("load failed")
    line = board.locator(".grym-log summary").filter(has_text="load:").first
    line.click()
    expect(board.locator(".grym-log pre").filter(has_text="OSError: no weights").first).to_be_visible()


def test_cancel_stops_a_task_while_a_cell_is_busy(notebook: Notebook) -> None:
    """On the first click, and long before the cell ends."""
    board = opened(notebook, "cancel.ipynb", "call = echo.steps.submit(100_000)\ntime.sleep(600)")
    notebook.start(2)
    running = board.locator(".grym-running li").filter(has_text="echo.steps")
    expect(running).to_have_count(1)
    running.get_by_role("button").click()
    expect(running).to_have_count(0)
    expect(board.locator(".grym-ended li").first).to_contain_text("cancelled")
    prompt = notebook.page.locator(".jp-CodeCell").nth(2).locator(".jp-InputPrompt").first
    assert "*" in prompt.inner_text(), "the cell runs still"


def test_a_file_that_is_saved_under_watch_shows_its_new_version(notebook: Notebook, lab: Lab) -> None:
    """Without a cell, and while one is busy."""
    text = (
        "import grym_nb as grym\nclass Spoken(grym.ModelService):\n"
        "    @grym.task\n    def say(self): return 1\n"
    )
    (lab.root / "spoken.py").write_text(text)
    board = opened(
        notebook,
        "watch.ipynb",
        "import spoken\nspoken_ = grym.register('spoken', spoken.Spoken)\nspoken_.say()",
        "%grym watch on",
        "time.sleep(600)",
    )
    notebook.run(2)
    notebook.run(3)
    its = row(board, "spoken")
    expect(its.locator(".grym-tag")).to_have_text("v1")
    notebook.start(4)
    (lab.root / "spoken.py").write_text(text.replace("return 1", "return 2"))
    expect(its.locator(".grym-tag")).to_have_text("v2")
    expect(board.locator(".grym-log")).to_contain_text("v1 → v2")


def test_a_page_that_is_loaded_again_goes_on(notebook: Notebook) -> None:
    """With what has happened meanwhile, and with what comes."""
    board = opened(notebook, "refresh.ipynb")
    notebook.save()
    notebook.run_code("for _ in range(7): echo.say(1)")
    notebook.open("refresh.ipynb")
    board = board_of(notebook.page)
    calls = row(board, "echo").locator("td.grym-number").first
    expect(calls).to_contain_text("7")
    notebook.run_code("echo.say(1)")
    expect(calls).to_contain_text("8")
    row(board, "other").get_by_role("button", name="Load other", exact=True).click()
    expect(row(board, "other").locator(".grym-state")).to_have_text("ready")


def test_the_cell_run_again_is_a_second_view_and_closing_ends_both(notebook: Notebook) -> None:
    """Both show the same; each has its own panels; no widget is left."""
    before = "from ipywidgets.widgets.widget import _instances; print(len(_instances))"
    first = opened(notebook, "views.ipynb", "%grym dashboard services", "%grym dashboard off")
    notebook.run(2)
    second = board_of(notebook.page, 1)
    expect(second.locator(".grym-panel")).to_have_count(1)
    expect(first.locator(".grym-panel")).to_have_count(6)
    notebook.run_code("echo.say(1)")
    for board in (first, second):
        expect(row(board, "echo").locator("td.grym-number").first).to_contain_text("1")
    second.get_by_role("button", name="log", exact=True).click()
    expect(second.locator(".grym-panel")).to_have_count(2)
    expect(first.locator(".grym-panel")).to_have_count(6)
    assert notebook.run_code(before) == "2\n"
    notebook.run(3)
    assert notebook.run_code(before) == "0\n"
    threads = "import threading; print([t.name for t in threading.enumerate() if 'dashboard' in t.name])"
    assert notebook.run_code(threads) == "[]\n"


def test_many_updates_are_few_messages(notebook: Notebook) -> None:
    """Five hundred calls a second inside, four messages a second on the wire."""
    opened(notebook, "rate.ipynb", "began = time.monotonic()\n" + BUSY + "print(time.monotonic() - began)")
    notebook.page.evaluate(
        """() => {
            window.grymMessages = 0;
            const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
            kernel.anyMessage.connect((_, {msg}) => {
                if (msg.header.msg_type === 'comm_msg' && msg.channel === 'iopub') window.grymMessages += 1;
            });
        }"""
    )
    notebook.run(2)
    text = notebook.page.locator(".jp-CodeCell").nth(2).locator(".jp-OutputArea-output").inner_text()
    messages = notebook.page.evaluate("() => window.grymMessages")
    assert 4 <= messages <= 4 * float(text) + 1


def test_hostile_names_do_no_harm(notebook: Notebook) -> None:
    """Markup, and 200 characters: shown as they are, in a table that stays as wide as its cell."""
    board = opened(
        notebook,
        "names.ipynb",
        f"evil = grym.register({EVIL!r}, Echo)\nlong = grym.register('n' * 200, Echo)\n"
        "evil.say(1)\ntry: evil.say(-1)\nexcept Exception: pass",
    )
    notebook.run(2)
    expect(row(board, EVIL).locator(".grym-state")).to_have_text("ready")
    expect(row(board, "n" * 200)).to_have_count(1)
    assert board.locator("script, img").count() == 0
    assert notebook.page.title() != "taken"
    assert board.evaluate("(node) => node.scrollWidth <= node.clientWidth + 1")
    row(board, EVIL).get_by_role("button", name=f"{EVIL}: show its metrics", exact=True).click()
    expect(board.locator(".grym-select")).to_have_value(EVIL)


def test_charts_tell_their_values_to_the_keyboard(notebook: Notebook) -> None:
    """An arrow moves a cursor, whose time and values are told; one that has none says so."""
    board = opened(notebook, "charts.ipynb", "for n in range(200): echo.say(1); time.sleep(0.01)")
    board.get_by_role("button", name="1 min", exact=True).click()
    expect(board.get_by_role("button", name="1 min", exact=True)).to_have_attribute("aria-pressed", "true")
    notebook.run(2)
    chart = board.get_by_role("slider", name="Latency, over time")
    expect(chart).to_have_attribute("aria-valuetext", re.compile(r"p50 .*p95 .*p99"))
    chart.focus()
    chart.press("ArrowLeft")
    expect(chart).to_have_attribute("aria-valuenow", "98")
    chart.press("Home")
    expect(chart).to_have_attribute("aria-valuetext", "no value")
    expect(chart.locator(".grym-cursor")).to_have_count(1)


def test_an_untrusted_notebook_shows_the_tables(notebook: Notebook, lab: Lab) -> None:
    """What was saved by somebody else: no script of it is run, and no kernel is asked."""
    opened(notebook, "shared.ipynb")
    notebook.run_code("echo.say(1)")
    notebook.run(1)
    notebook.save()
    shared = nbformat.read(lab.root / "shared.ipynb", as_version=4)
    shared.cells[0].source += "# changed by another hand"
    path = Path(lab.root / "untrusted.ipynb")
    nbformat.write(shared, path)
    notebook.open("untrusted.ipynb")
    tables = notebook.page.locator(".jp-OutputArea-output table")
    expect(tables.first.locator("caption")).to_contain_text("Services, all together")
    expect(tables.first).to_contain_text("echo")
    expect(notebook.page.locator(".grym-board")).to_have_count(0)
