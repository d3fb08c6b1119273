"""`%grym doctor`: it measures what is there, says what is wrong with the cure, and never raises."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from grym_nb.notebook import doctor, surroundings
from grym_nb.notebook.doctor import Finding, Report, examine
from grym_nb.notebook.surroundings import Probe, extras, front_end, probe_threads, version_of
from grym_nb.runtime import Runtime
from tests.kernel import Kernel


def _rows(report: Report, caption: str) -> dict[str, tuple[str, ...]]:
    [table] = [table for table in report.tables if table.caption == caption]
    return {row[0]: tuple(row[1:]) for row in table.rows}


def test_the_report_says_what_is_here(runtime: Runtime) -> None:
    """Versions, front end, threads, memory, devices; the same as text and as HTML."""
    runtime.registry.register("mine", "some.module:Thing")
    report = examine()
    versions = _rows(report, "versions")
    assert versions["python"] == (f"{sys.version.split()[0]} ({sys.platform})",)
    assert versions["ipython"] == (version_of("ipython"),)
    kernel = _rows(report, "this kernel")
    assert kernel["front end"] == ("none: plain Python",)
    names = (*runtime.registry,)
    assert names[0] == "dsp" and names[-1] == "mine"
    assert kernel["services"] == (", ".join(f"{name} (registered)" for name in names),)
    assert {"this process", "cpu"} <= _rows(report, "memory and devices").keys()
    assert repr(report) == report.text()
    assert "<caption>versions</caption>" in report._repr_html_()


def test_what_is_wrong_is_sorted_and_told_with_the_cure() -> None:
    """What does not work comes first; only that makes it broken."""
    note = Finding("note", "n", "why n", "cure n")
    report = Report((Finding("warning", "w", "why w", "cure w"), note), ())
    assert report.text() == "warning: w\n  why w\n  → cure w\n\nnote: n\n  why n\n  → cure n"
    assert not report.broken
    assert Report((Finding("broken", "b", "", ""),), ()).broken
    assert Report((), ()).text() == "nothing is wrong"


@pytest.mark.parametrize(("version", "broken"), [("6.29.5", 0), ("7.0.1", 1), ("7.1.0", 0), ("7.4.0", 0)])
def test_ipykernel_7_0_is_known_to_be_broken(
    monkeypatch: pytest.MonkeyPatch, runtime: Runtime, version: str, broken: int
) -> None:
    """It cannot send anything from a thread."""
    monkeypatch.setattr(doctor, "version_of", {"ipykernel": version}.get)
    found = [f for f in examine().findings if f.what.startswith("ipykernel")]
    assert len(found) == broken
    assert all(f.kind == "broken" and "!=7.0.*" in f.cure for f in found)


def test_a_doctor_that_falls_ill_says_so_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, runtime: Runtime
) -> None:
    """Each part is looked at by itself."""

    def fail(*_: object) -> Any:
        raise OSError("no <such> thing")

    monkeypatch.setattr("grym_nb.devices.process_memory", fail)
    monkeypatch.setattr(doctor, "front_end", fail)
    monkeypatch.setattr(doctor, "extras", fail)
    report = examine()
    assert report.text().count("could not be examined: OSError: no <such> thing") == 3
    assert "no &lt;such&gt; thing" in report._repr_html_()
    assert "ipython" in _rows(report, "versions")


# -- torchaudio ------------------------------------------------------------------------------------


def _install(folder: Path, name: str, version: str, code: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def _doctor_with(folder: Path) -> subprocess.CompletedProcess[str]:
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, "-m", "grym_nb", "doctor"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_torchaudio_that_cannot_be_imported_is_found(tmp_path: Path) -> None:
    """The real thing: installed by its metadata, and its import raises OSError in a process of its own."""
    _install(tmp_path, "torchaudio", "2.11.0", "raise OSError('libcudart.so.12: cannot open shared object')")
    done = _doctor_with(tmp_path)
    assert done.returncode == 1, done.stderr
    assert "broken: torchaudio 2.11.0 is installed" in done.stdout
    assert "cannot be imported: OSError: libcudart.so.12: cannot open shared object" in done.stdout
    assert "→ pip uninstall torchaudio" in done.stdout


def test_a_torchaudio_that_works_is_no_finding(tmp_path: Path) -> None:
    """Nor is what it prints."""
    _install(tmp_path, "torchaudio", "2.11.0", "print('hello'); raise SystemExit(0)")
    done = _doctor_with(tmp_path)
    assert "cannot be imported" not in done.stdout
    assert "torchaudio      2.11.0" in done.stdout


def test_a_torchaudio_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it works is not known then."""

    def hang(*args: Any, timeout: float, **rest: Any) -> Any:
        raise subprocess.TimeoutExpired("python", timeout)

    monkeypatch.setattr(doctor.subprocess, "run", hang)
    [finding] = doctor._torchaudio_findings("2.11.0")
    assert (finding.kind, finding.what) == (
        "warning",
        "importing torchaudio 2.11.0 took more than 90 s and was given up",
    )


# -- front ends ------------------------------------------------------------------------------------


def _shell(*, kernel: Any = None, **names: Any) -> Any:
    return SimpleNamespace(kernel=kernel, user_ns=names)


@pytest.mark.parametrize(
    ("shell", "environ", "place"),
    [
        (None, {}, "none: plain Python"),
        (_shell(), {}, "IPython in a terminal"),
        (_shell(kernel=1), {}, "a kernel of something else (console, nbclient, papermill, ...)"),
        (_shell(kernel=1), {"JPY_SESSION_NAME": "a.ipynb"}, "a Jupyter server (JupyterLab or Notebook)"),
        (_shell(kernel=1), {"VSCODE_PID": "1"}, "VS Code"),
        (_shell(kernel=1, __vsc_ipynb_file__="a"), {"JPY_SESSION_NAME": "a"}, "VS Code"),
        (_shell(kernel=1), {"COLAB_RELEASE_TAG": "r"}, "Google Colab"),
        (_shell(kernel=1), {"BINDER_REPO_URL": "u", "JUPYTERHUB_USER": "j"}, "Binder"),
        (
            _shell(kernel=1),
            {"PYTEST_CURRENT_TEST": "t", "JPY_SESSION_NAME": "a"},
            "a test that drives this kernel (nbval, nbclient or the like)",
        ),
    ],
)
def test_a_front_end_is_known_by_what_it_sets(shell: Any, environ: dict[str, str], place: str) -> None:
    """The more particular place wins."""
    assert front_end(shell, environ) == place


# -- threads ---------------------------------------------------------------------------------------


def test_the_thread_probe_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns while this thread computed; the thread is gone afterwards."""
    probe = probe_threads(None)
    assert probe.ran and probe.sent is None and probe.problem == ""
    assert "turns in 150 ms of a busy cell" in probe.told
    assert not [t for t in threading.enumerate() if t.name == "grym-doctor"]


def test_a_thread_that_cannot_send_is_found(runtime: Runtime) -> None:
    """As in ipykernel 7.0: the send raises, and the report says what."""

    def publish(*_: object, **__: object) -> None:
        raise LookupError("shell_parent")

    shell = _shell(kernel=object())
    shell.display_pub = SimpleNamespace(publish=publish)
    report = examine(shell)
    [finding] = [f for f in report.findings if f.kind == "broken"]
    assert finding.what == "a thread could not send anything to the page: LookupError: shell_parent"
    assert report.broken


def test_a_message_that_does_not_leave_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was handed over and nothing sent it."""
    monkeypatch.setattr(surroundings, "_PATIENCE", 0.05)
    kernel = SimpleNamespace(iopub_thread=SimpleNamespace(schedule=lambda job: None))
    shell = _shell(kernel=kernel)
    shell.display_pub = SimpleNamespace(publish=lambda *_, **__: None)
    assert probe_threads(shell).problem == "TimeoutError: it was not on its way within 0.05 s"


@pytest.mark.parametrize(
    ("probe", "kinds"),
    [
        (Probe(20, 0.01), []),
        (Probe(20, 0.5), ["warning"]),
        (Probe(1, 0.0), ["broken"]),
        (Probe(0, 0.0, problem="no"), ["broken", "broken"]),
    ],
)
def test_what_the_figures_mean(probe: Probe, kinds: list[str]) -> None:
    """A few turns apart by milliseconds are fine."""
    assert [finding.kind for finding in doctor._thread_findings(probe)] == kinds


def test_a_thread_that_was_written_off_is_named(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it was doing."""
    from grym_nb.pulse import Pulse, WrittenOff

    monkeypatch.setattr(Pulse, "written_off", property(lambda self: (WrittenOff("ping of loudness", 60.0),)))
    [finding] = [f for f in examine().findings if f.kind == "warning"]
    assert "ping of loudness" in finding.what


# -- memory and extras -----------------------------------------------------------------------------


def test_memory_near_its_limit_is_a_warning(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that reaches it is killed without a word."""
    from grym_nb.devices import MemoryLimit

    limit = MemoryLimit(1000, 950, "cgroup v2")
    monkeypatch.setattr("grym_nb.devices.memory_limit", lambda: limit)
    report = examine()
    assert _rows(report, "memory and devices")["limit"] == ("1.0 KB", "950 B used", "cgroup v2")
    assert [f.what for f in report.findings if "in use" in f.what] == ["950 B of 1.0 KB are in use"]


REQUIRES = [
    "ipython<10,>=8.6",
    'soundfile<0.15; extra == "sound"',
    "soxr; extra == 'sound'",
    'grym-nb[sound]; extra == "audio"',
    'torch>=2.6; extra == "audio"',
    'ray; extra == "ray"',
    'pytest; extra == "test"',
    'svcs; extra == "peers"',
]


def test_extras_are_read_from_the_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that a user may want, and not what they take from one another."""
    monkeypatch.setattr(surroundings.metadata, "requires", lambda package: REQUIRES)
    assert extras("grym-nb") == {"sound": ("soundfile", "soxr"), "audio": ("torch",), "ray": ("ray",)}


def test_a_missing_extra_is_told_with_the_line_that_installs_it(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is imported to find out."""
    monkeypatch.setattr(
        doctor, "extras", lambda package: {"sound": ("soundfile", "no-such"), "ray": ("nor-this",)}
    )
    report = examine()
    rows = _rows(report, "extras")
    assert rows["sound"] == ("missing: no-such", 'pip install "grym-nb[sound]"')
    assert rows["ray"] == ("missing: nor-this", 'pip install "grym-nb[ray]"')
    [note] = [f for f in report.findings if f.kind == "note"]
    assert note.cure == 'pip install "grym-nb[sound]"'


def test_in_a_kernel_a_thread_can_send_while_the_cell_is_busy(shared_kernel: Kernel) -> None:
    """The real measurement; nothing of it is seen on the page."""
    shared_kernel.run("%load_ext grym_nb").checked()
    reply = shared_kernel.run("report = %grym doctor").checked()
    assert reply.outputs == []
    assert "update_display_data" in [kind for kind, _ in reply.messages]
    text = shared_kernel.run("print(report.text())").checked().stdout
    assert "a message was on its way after" in text
    assert "a test that drives this kernel" in text
    reply = shared_kernel.run(
        "import sys; report.broken, 'torch' in sys.modules, 'ipywidgets' in sys.modules"
    )
    assert reply.result_text == "(False, False, False)"


def test_in_a_terminal_nothing_is_sent(shell: InteractiveShell, runtime: Runtime) -> None:
    """There is no page."""
    shell.kernel = None
    assert _rows(examine(shell), "this kernel")["front end"] == ("IPython in a terminal",)
