"""Importing grym_nb, making a runtime and registering a service costs little and changes nothing.

What it costs in time is measured beside bare Python in tests/benchmarks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest

HEAVY = (
    "IPython anywidget asyncio diffusers ipykernel ipywidgets librosa matplotlib matplotlib.pyplot numpy "
    "pandas pydantic pydantic_settings scipy soundfile torch torchaudio transformers watchdog yaml"
).split()

_PROBE = """
import atexit, gc, json, logging, os, signal, sys, threading, warnings

def surroundings():
    return {
        "excepthook": repr(sys.excepthook),
        "threading.excepthook": repr(threading.excepthook),
        "unraisablehook": repr(sys.unraisablehook),
        "displayhook": repr(sys.displayhook),
        "root handlers": repr(logging.root.handlers),
        "root level": logging.root.level,
        "environment": dict(os.environ),
        "signals": {str(s): repr(signal.getsignal(s)) for s in signal.valid_signals()},
        "warning filters": repr(warnings.filters),
        "meta path": repr(sys.meta_path),
        "path": list(sys.path),
        "path hooks": repr(sys.path_hooks),
        "gc callbacks": repr(gc.callbacks),
        "gc thresholds": gc.get_threshold(),
        "switch interval": sys.getswitchinterval(),
        "trace": repr((sys.gettrace(), sys.getprofile())),
        "directory": os.getcwd(),
        "stdout": repr(sys.stdout),
        "threads": sorted(t.name for t in threading.enumerate()),
    }

before = surroundings()
CODE
after = surroundings()
changed = {k: [before[k], after[k]] for k in before if before[k] != after[k]}
print(json.dumps({"changed": changed, "modules": sorted(sys.modules)}))
"""

IMPORT = "import grym_nb"
EVERY_MODULE_OF_THE_CORE = "import grym_nb.errors, grym_nb.events, grym_nb.settings, grym_nb.runtime"
FIRST_SERVICE = """
import grym_nb

class Probe(grym_nb.ModelService):
    '''Answers with what it is given.'''

    def load(self):
        raise AssertionError("registering loads nothing")

    @grym_nb.task("probe.echo")
    def echo(self, value):
        return value

runtime = grym_nb.Runtime()
handle = runtime.registry.register("probe", Probe)
"""
FIRST_CALL = """
import grym_nb

class Probe(grym_nb.ModelService):
    '''Answers with what it is given.'''

    @grym_nb.task("probe.echo")
    def echo(self, value):
        return value

runtime = grym_nb.Runtime()
assert runtime.registry.register("probe", Probe).echo(7) == 7
"""


@cache
def _after(code: str) -> Mapping[str, Any]:
    # A coverage run measures child processes, and changes what they import.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTEST"))}
    probe = _PROBE.replace("CODE", code)
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=False, env=env
    )
    assert done.returncode == 0, done.stderr
    told: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.parametrize(
    "code",
    [IMPORT, EVERY_MODULE_OF_THE_CORE, FIRST_SERVICE, FIRST_CALL],
    ids=["import", "core", "service", "call"],
)
def test_nothing_heavy_is_imported(code: str) -> None:
    """Neither the import nor a first service and its call bring in a heavy package."""
    assert [name for name in HEAVY if name in _after(code)["modules"]] == []


@pytest.mark.parametrize(
    "code", [IMPORT, EVERY_MODULE_OF_THE_CORE, FIRST_SERVICE], ids=["import", "core", "service"]
)
def test_nothing_around_it_is_changed(code: str) -> None:
    """No thread, hook, handler, filter, signal or environment variable is there that was not before."""
    assert _after(code)["changed"] == {}


def test_importing_the_root_imports_next_to_nothing_of_it() -> None:
    """Names at the root are looked up when they are first used."""
    ours = [name for name in _after(IMPORT)["modules"] if name.startswith("grym_nb")]
    assert ours == ["grym_nb"]


def test_the_probe_sees_what_it_looks_for() -> None:
    """A module that does all of this is caught doing it."""
    told = _after(
        "import asyncio, sys, threading, logging, os\n"
        "sys.excepthook = print\n"
        "logging.basicConfig()\n"
        "os.environ['GRYM_PROBE'] = '1'\n"
        "threading.Thread(target=threading.Event().wait, name='left', daemon=True).start()"
    )
    assert {"excepthook", "root handlers", "environment", "threads"} <= told["changed"].keys()
    assert "asyncio" in told["modules"]
