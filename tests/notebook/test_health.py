"""`%grym health`, `%grym metrics`, `%grym alerts`, `%grym topology` in a real kernel."""

from __future__ import annotations

import base64
import json
import re
import urllib.request
from argparse import Namespace
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from grym_nb.errors import TaskFailed
from grym_nb.notebook.health import health
from grym_nb.runtime import Runtime
from grym_nb.services import ModelService, task
from grym_nb.testing import FakeClock
from tests.kernel import Kernel

SERVICES = """
%load_ext grym_nb
import grym_nb as grym

class Base(grym.ModelService):
    @grym.task
    def ask(self, x: int = 1) -> int:
        if x < 0:
            raise ValueError("not below nought")
        return x

class Top(grym.ModelService):
    needs = ("base",)
    @grym.task
    def ask(self, x: int = 1) -> int:
        return self.needs.base.ask(x)

base, top = grym.register("base", Base), grym.register("top", Top)
"""


@pytest.fixture
def kernel(shared_kernel: Kernel) -> Iterator[Kernel]:
    shared_kernel.run(SERVICES).checked()
    yield shared_kernel
    shared_kernel.run("grym.current().close()\n%unload_ext grym_nb")


def shown(kernel: Kernel, line: str) -> str:
    text = kernel.run(line).checked().result_text
    assert text is not None
    return text


def test_nothing_is_judged_before_it_is_there_and_then_it_is(kernel: Kernel) -> None:
    assert "nobody is judged" in shown(kernel, "%grym health")
    kernel.run("top.ask(3)").checked()
    text = shown(kernel, "%grym health")
    assert "all together: healthy" in text and re.search(r"^base +healthy", text, re.MULTILINE)
    assert "nothing speaks against it" in shown(kernel, "%grym health base")
    html = kernel.run("%grym health").checked().result["text/html"]
    assert "<table" in html and "healthy" in html
    error = kernel.run("%grym health bass").error
    assert error is not None and "base" in "".join(error.traceback)


def test_what_speaks_against_a_service_is_said_in_words(kernel: Kernel) -> None:
    kernel.run("top.load()").checked()
    kernel.run(
        "import contextlib\n"
        "for _ in range(8):\n"
        "    with contextlib.suppress(grym.GrymError): base.ask(-1)\n"
        "grym.current().history.step()"
    ).checked()
    text = shown(kernel, "%grym health base")
    assert "8 of 8 calls failed in the last" in text and "ValueError the most often" in text


def test_figures_of_the_calls_as_a_table_and_to_files(kernel: Kernel, tmp_path: Path) -> None:
    assert "no service has been called yet" in shown(kernel, "%grym metrics")
    kernel.run("for n in range(20): top.ask(n)").checked()
    text = shown(kernel, "%grym metrics --since 5m")
    assert re.search(r"^top +20 ", text, re.MULTILINE) and "the last 5 min\n" in text
    assert re.search(r"^ask +20 ", shown(kernel, "%grym metrics top"), re.MULTILINE)
    for form, looks in (("prometheus", "# TYPE grym_"), ("openmetrics", "# EOF"), ("csv", "name,kind,tags")):
        file = tmp_path / f"figures.{form}"
        assert f"series as {form}" in shown(kernel, f"%grym metrics --export {form} {file}")
        assert looks in file.read_text()
    told = json.loads(shown(kernel, "%grym metrics --export json"))
    assert {row["tags"].get("service") for row in told} > {"top", "base"}
    told = json.loads(shown(kernel, "%grym metrics top --export json"))
    assert {row["tags"]["service"] for row in told} == {"top"}
    assert "# TYPE grym_service_call_seconds" in shown(kernel, "%grym metrics top --export prometheus")
    told = json.loads(shown(kernel, "%grym metrics top --since 5m --export json"))
    assert [row["value"]["count"] for row in told if row["name"] == "service.call.seconds"] == [20]
    for time in ("600", "10min", '"10 Minutes"'):
        assert "the last 10 min\n" in shown(kernel, f"%grym metrics --since {time}")
    totals = kernel.run("%grym metrics --since 5m --export prometheus").error
    assert totals is not None and "json or csv" in "".join(totals.traceback)
    for wrong in (
        "--since 2w",
        "--since 0",
        "--since 5months",
        "--export xml f",
        "nobody --export json",
        f"--export csv {tmp_path / 'no' / 'f'}",
    ):
        assert kernel.run(f"%grym metrics {wrong}").error is not None


def test_a_prometheus_may_scrape_what_is_served_until_it_is_off(kernel: Kernel) -> None:
    kernel.run("base.ask()").checked()
    text = shown(kernel, "%grym metrics --serve")
    url, token = re.search(r"http://127.0.0.1:\d+/metrics", text), re.search(r"credentials: (\S+)}", text)
    assert url is not None and token is not None and f'"{url[0][7:-8]}"' in text
    assert shown(kernel, "%grym metrics --serve") == text, "there is one"
    request = urllib.request.Request(url[0], headers={"Authorization": f"Bearer {token[1]}"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        assert b"service_call_seconds" in reply.read()
    assert "nobody can scrape" in shown(kernel, "%grym metrics --serve off")
    with pytest.raises(OSError):
        urllib.request.urlopen(request, timeout=10)
    error = kernel.run("%grym metrics --serve lots").error
    assert error is not None and "a port such as 9100" in "".join(error.traceback)


def test_a_busy_cell_shows_as_the_lag_of_the_kernels_loop(kernel: Kernel) -> None:
    """The loop on which cells run is silent for as long as one does."""
    kernel.run("base.ask()\nlag = grym.current()._oversight.lag").checked()
    kernel.run("pass").checked()
    kernel.run(
        "import time\nuntil = time.monotonic() + 1.5\nwhile time.monotonic() < until: pass\nseen = lag.lag()"
    ).checked()
    assert float(kernel.run("seen").checked().result_text or 0) > 0.3
    assert "kernel_loop_longest_seconds" in shown(kernel, "%grym metrics --export prometheus")


def test_who_needs_and_calls_whom_is_a_table_and_a_picture(kernel: Kernel) -> None:
    kernel.run("top.ask(1); top.ask(2)").checked()
    reply = kernel.run("%grym topology").checked()
    assert "base (2 calls)" in (reply.result_text or "") and "base, base" not in (reply.result_text or "")
    assert (reply.result_text or "").endswith("top needs and calls base")
    html = reply.result["text/html"]
    [data] = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    svg = base64.b64decode(data).decode()
    assert ">base</text>" in svg and ">top</text>" in svg and 'alt="' in html
    assert shown(kernel, "%grym topology base") == "if base fails: top fails with it; nobody suffers"


def test_alerts_fire_are_silenced_and_listed(kernel: Kernel) -> None:
    text = shown(kernel, "%grym alerts --rules")
    assert "nothing fires" in text and "a service is unhealthy" in text
    kernel.run(
        "from grym_nb.health import Rule\n"
        "alerts = grym.current().alerts\n"
        "alerts.add(Rule('many', 'service.call.seconds', figure='count', above=3, suggest='call less'))\n"
        "for n in range(5): base.ask(n)\n"
        "grym.current().history.step()"
    ).checked()
    text = shown(kernel, "%grym alerts")
    assert "many" in text and "call less" in text and "5, above 3" in text
    assert re.search(r"many .* fires +call less", shown(kernel, "%grym alerts --rules"))
    kernel.run("alerts.add(Rule('odd', 'no.such', above=3, inhibited_by='unhealty'))").checked()
    told = "no such series yet; there is no rule 'unhealty'. Did you mean 'unhealthy'?"
    assert told in shown(kernel, "%grym alerts --rules")
    kernel.run("alerts.remove('odd')").checked()
    assert shown(kernel, "%grym alerts --silence many --minutes 5") == "nobody is told of many for 5 min"
    kernel.run("alerts.silence(60, service='base')").checked()
    text = shown(kernel, "%grym alerts")
    assert "silenced" in text and re.search(r"^all \(service=base\) +", text, re.MULTILINE)
    assert shown(kernel, "%grym alerts --unsilence many").startswith("1 silence ended")
    assert shown(kernel, "%grym alerts --unsilence all").startswith("1 silence ended")
    assert "silenced" not in shown(kernel, "%grym alerts")
    assert shown(kernel, "%grym alerts --silence all --minutes inf") == "nobody is told of all for ever"
    told = "0 silences ended: nobody is told of many yet: all is silenced, %grym alerts shows it"
    assert shown(kernel, "%grym alerts --unsilence many") == told
    for line in ("--silence mayn", "--unsilence mayn"):
        error = kernel.run(f"%grym alerts {line}").error
        assert error is not None and "there is no rule 'mayn'" in "".join(error.traceback)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("metrics --export json {file} --serve", "--serve does not go together with --export"),
        ("metrics base --serve", "--serve does not go together with a service"),
        ("metrics --serve off --since 5m", "--serve does not go together with --since"),
        ("alerts --rules --silence failing", "--silence does not go together with --rules"),
        ("alerts --unsilence failing --rules", "--unsilence does not go together with --rules"),
        ("alerts --silence failing --unsilence all", "--silence does not go together with --unsilence"),
        ("alerts --unsilence failing --minutes 5", "--unsilence does not go together with --minutes"),
        ("alerts --minutes 5", "of which rule?"),
        ("alerts --silence failing --minutes 1e300", "--minutes 1e+300: up to a year was expected"),
        ("alerts --silence failing --minutes nan", "--minutes nan: up to a year was expected"),
        ("alerts --silence failing --minutes -3", "up to a year was expected"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    kernel: Kernel, tmp_path: Path, line: str, told: str
) -> None:
    error = kernel.run(f"%grym {line.format(file=tmp_path / 'file')}").error
    assert error is not None and told in "".join(error.traceback)
    assert not (tmp_path / "file").exists()
    assert "silenced" not in shown(kernel, "%grym alerts")


def test_what_fires_is_shown_under_the_cells(kernel: Kernel) -> None:
    kernel.run(
        "from grym_nb.health import Rule\n"
        "alerts = grym.current().alerts\n"
        "alerts.add(Rule('<many>', 'service.call.seconds', figure='count', above=3, severity='critical'))\n"
        "for n in range(5): base.ask(n)\n"
        "grym.current().history.step()"
    ).checked()
    reply = kernel.run("alerts.step()\nprint('done')").checked()
    [display] = reply.displays
    assert display["text/plain"] == "the kernel: <many> (critical): 5, above 3"
    assert "&lt;many&gt;" in display["text/html"] and "#c62828" in display["text/html"]
    assert kernel.run("print('quiet')").checked().displays == []


def test_what_is_ones_own_is_measured_and_shown_before_anything_is_loaded(kernel: Kernel) -> None:
    kernel.run(
        "import time\n"
        "metrics = grym.current().metrics\n"
        "with metrics.track('my step'): pass\n"
        "metrics.counter('my.items', kind='a').add(7)\n"
        "metrics.gauge('my.level').set(3)\n"
        "metrics.record('my.seconds', 0.25)\n"
        "grym.current().history.step()"
    ).checked()
    text = shown(kernel, "%grym metrics")
    assert "no service has been called yet" in text
    assert re.search(r"^my step +1 ", text, re.MULTILINE), "the history began with it"
    assert re.search(r"^my\.items +kind=a +counter +7$", text, re.MULTILINE)
    assert re.search(r"^my\.level +gauge +3 ", text, re.MULTILINE)
    assert re.search(r"^my\.seconds +histogram +1 +2\d\d ms", text, re.MULTILINE)
    assert "my.seconds" in shown(kernel, "metrics")


def test_alerts_show_under_the_cells_of_a_later_runtime_too(kernel: Kernel) -> None:
    kernel.run("grym.current().close()").checked()
    kernel.run(
        "from grym_nb.health import Rule\n"
        "runtime = grym.current()\n"
        "runtime.alerts.add(Rule('mine', 'mine', above=1))\n"
        "runtime.metrics.gauge('mine').set(2)"
    ).checked()
    [display] = kernel.run("runtime.alerts.step()").checked().displays
    assert display["text/plain"] == "the kernel: mine (warning): 2, above 1"
    assert shown(kernel, "runtime._loop is not None") == "True"
    kernel.run("grym.current().close()\n%unload_ext grym_nb\n%load_ext grym_nb").checked()


def test_of_many_reasons_three_are_said_and_the_worst_comes_first() -> None:
    class Base(ModelService):
        @task
        def ask(self, x: int = 1) -> int:
            if x < 0:
                raise ValueError("not below nought")
            return x

    clock = FakeClock(100.0)
    with Runtime(clock=clock) as runtime:
        services = [runtime.registry.register(f"many{n}", Base) for n in range(6)]
        for second in range(20):
            for one in services:
                with suppress(TaskFailed):
                    one.ask(-1 if one is not services[0] and second > 4 else 1)
            clock.advance(1.0)
            runtime.history.step()
            runtime.health.step()
        first, *rest = health(runtime, Namespace(service=None)).text().splitlines()
    assert first.count("many") == 3 and first.endswith("; and 2 more)")
    rows = [line for line in rest if line.startswith("many")]
    assert len(rows) == 6 and rows[5].startswith("many0"), rows
