"""What it costs before anything is done: the import, and the extension in a real kernel."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

from tests.kernel import Kernel

from .frame import Effort, Row, benchmark, side_by_side

_FIRST_SERVICE = """
import grym_nb as grym
class Noop(grym.ModelService):
    '''Does nothing.'''
    @grym.task("test.noop")
    def noop(self):
        return None
grym.Runtime().registry.register("noop", Noop)
import os
os._exit(0)
"""
_NOTHING = "import os; os._exit(0)"


def _python(code: str) -> None:
    # Without what a measuring parent adds to its children.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    subprocess.run([sys.executable, "-c", code], check=True, env=env, timeout=60)


@benchmark
def imports(effort: Effort) -> Iterator[Row]:
    """A fresh interpreter, the import, a runtime and a first service."""
    _python(_FIRST_SERVICE)  # compiled files are written once, by whoever comes first
    figures = side_by_side(
        {"ours": lambda: _python(_FIRST_SERVICE), "bare": lambda: _python(_NOTHING)},
        rounds=2 * effort.slow_rounds + 1,
    )
    beyond = f"{(figures['ours'] - figures['bare']) * 1e3:.0f} ms beyond it"
    yield Row(
        "import grym_nb; Runtime(); register()",
        figures["ours"],
        "bare Python",
        figures["bare"],
        "ms",
        "<= 120 ms beyond",
        beyond,
    )


@benchmark
def extension(effort: Effort) -> Iterator[Row]:
    """`%load_ext` in a kernel that has just started, beside an extension that comes with IPython."""
    taken: dict[str, list[float]] = {"grym_nb": [], "autoreload": []}
    for _ in range(effort.slow_rounds):
        for name, figures in taken.items():
            with Kernel() as kernel:
                reply = kernel.run(
                    "import time as _time\n"
                    "_begun = _time.perf_counter()\n"
                    f"%load_ext {name}\n"
                    "print(_time.perf_counter() - _begun)"
                ).checked()
            figures.append(float(reply.stdout))
    ours, theirs = (statistics.median(figures) for figures in taken.values())
    yield Row("%load_ext grym_nb", ours, "%load_ext autoreload", theirs, "ms", "<= 150 ms")


@benchmark
def completion(effort: Effort) -> Iterator[Row]:
    """What Tab costs in a real kernel, there and back, beside what IPython offers for `%` alone."""
    setup = "%load_ext grym_nb\nimport grym_nb as gn\nclip, clap = 1, 2"
    with Kernel() as kernel, Kernel() as bare:
        kernel.run(setup).checked()
        bare.run("clip, clap = 1, 2").checked()
        figures = side_by_side(
            {
                "ours": lambda: kernel.complete("%grym run dsp loudness $cl"),
                "a name": lambda: kernel.complete('gn.get("'),
                "bare": lambda: bare.complete("%tim"),
            },
            rounds=10 * effort.slow_rounds + 1,
        )
    yield Row("Tab in %grym run", figures["ours"], "IPython: Tab in %tim", figures["bare"], "ms", "<= 50 ms")
    yield Row('Tab in get("', figures["a name"], "IPython: Tab in %tim", figures["bare"], "ms", "<= 50 ms")
