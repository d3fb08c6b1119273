"""`%grym doctor`: what this environment is, and what is wrong with it. It measures, and never raises."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Literal

from grym_nb.notebook.sheet import Sheet
from grym_nb.notebook.surroundings import Probe, extras, front_end, probe_threads, version_of
from grym_nb.render import Table, size

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["Finding", "Look", "Report", "examine"]

_VERSIONS = (
    "ipython ipykernel jupyter-client jupyterlab notebook ipywidgets anywidget nbclient nbval numpy torch "
    "torchaudio transformers diffusers librosa soundfile"
).split()
_IMPORT_SECONDS = 90.0  # torch from a cold disk
_SLOW = 0.1  # seconds between two turns of a thread, from which on panels stutter


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be: what, why it matters, and the cure.

    `kind` is ``"broken"`` (something does not work), ``"warning"`` (it may bite) or ``"note"``.
    """

    kind: Literal["broken", "warning", "note"]
    what: str
    why: str
    cure: str

    def text(self) -> str:
        """Return the finding as three lines."""
        return f"{self.kind}: {self.what}\n  {self.why}\n  → {self.cure}"


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """What was found: tables of what there is, and what is wrong."""

    findings: tuple[Finding, ...]
    tables: tuple[Table, ...]

    @property
    def broken(self) -> bool:
        """Whether something does not work at all."""
        return any(finding.kind == "broken" for finding in self.findings)

    def text(self) -> str:
        """Return the whole report as text."""
        return self._sheet().text()

    def _sheet(self) -> Sheet:
        told = [finding.text() for finding in self.findings]
        return Sheet("", (*self.tables, *(told or ["nothing is wrong"])))

    def __repr__(self) -> str:
        return repr(self._sheet())

    def _repr_html_(self) -> str:
        return self._sheet()._repr_html_()


#: adds what it finds, and yields the rows of its table
Look = Callable[[list[Finding]], Iterator[tuple[str, ...]]]


def examine(shell: InteractiveShell | None = None) -> Report:
    """Return what this environment is and what is wrong with it; takes a second, more where torchaudio is."""
    findings: list[Finding] = []
    tables = []
    looks: tuple[tuple[str, tuple[str, ...], Look], ...] = (
        ("versions", ("package", "version"), _versions),
        ("this kernel", ("what", "is"), lambda found: _kernel(shell, found)),
        ("memory and devices", ("what", "total", "free or used", "more"), _devices),
        ("extras", ("extra", "state", "to install it"), _extras),
    )
    for caption, columns, look in looks:
        rows: list[tuple[str, ...]] = []
        try:
            rows += look(findings)
        except Exception as error:  # a doctor that falls ill says so, and goes on
            told = f"could not be examined: {type(error).__name__}: {error}"
            rows.append((told, *[""] * (len(columns) - 1)))
        tables.append(Table(caption, columns, rows))
    order = ("broken", "warning", "note")
    return Report(tuple(sorted(findings, key=lambda finding: order.index(finding.kind))), tuple(tables))


def _versions(findings: list[Finding]) -> Iterator[tuple[str, ...]]:
    yield "python", f"{sys.version.split()[0]} ({sys.platform})"
    yield "grym_nb", version_of("grym-nb") or "from the source tree"
    versions = {name: version for name in _VERSIONS if (version := version_of(name))}
    yield from versions.items()
    findings += _version_findings(versions)
    if "torchaudio" in versions:
        findings += _torchaudio_findings(versions["torchaudio"])


def _version_findings(versions: Mapping[str, str]) -> Iterator[Finding]:
    if versions.get("ipykernel", "").startswith("7.0."):
        yield Finding(
            "broken",
            f"ipykernel {versions['ipykernel']} cannot send displays from threads",
            "progress and live panels raise LookupError: shell_parent (ipykernel#1450, mended in 7.1)",
            'pip install -U "ipykernel!=7.0.*", then restart the kernel',
        )


def _torchaudio_findings(version: str) -> Iterator[Finding]:
    """Import torchaudio in a process of its own: what it loads and how it fails stays there."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import torchaudio"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_IMPORT_SECONDS,
            start_new_session=True,  # the stop button is for the kernel's group
        )
    except subprocess.TimeoutExpired:
        yield Finding(
            "warning",
            f"importing torchaudio {version} took more than {_IMPORT_SECONDS:g} s and was given up",
            "whether it works is not known",
            'try it: python -c "import torchaudio"',
        )
        return
    if done.returncode == 0:
        return
    said = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no reason given")
    torch = version_of("torch")
    beside = f" beside torch {torch}" if torch else ""
    yield Finding(
        "broken",
        f"torchaudio {version} is installed{beside} and cannot be imported: {said[:200]}",
        "transformers imports it in every audio feature extractor, and fails there with this error",
        "pip uninstall torchaudio (grym_nb does without it), or install the build that fits torch's",
    )


def _kernel(shell: InteractiveShell | None, findings: list[Finding]) -> Iterator[tuple[str, ...]]:
    yield "front end", front_end(shell)
    probe = probe_threads(shell)
    yield "threads", probe.told
    findings += _thread_findings(probe)
    from grym_nb.runtime import current

    registry = current().registry
    yield "services", ", ".join(f"{handle.name} ({handle.state})" for handle in registry.handles()) or "none"
    for work in registry.ports.pulse.written_off:
        findings.append(
            Finding(
                "warning",
                f"a thread still runs {work.name}, long past its deadline",
                "its memory and whatever it holds cannot be had back while it runs",
                "restart the kernel when it suits you",
            )
        )


def _thread_findings(probe: Probe) -> Iterator[Finding]:
    if not probe.ran:
        yield Finding(
            "broken",
            "a thread did not get a turn while the cell was busy",
            "submitted calls, deadlines and panels need one",
            "look for code that holds the GIL (a C extension, a debugger), and restart the kernel",
        )
    elif probe.widest > _SLOW:
        yield Finding(
            "warning",
            f"a thread waited {probe.widest * 1000:.0f} ms for its turn while the cell was busy",
            "live panels stutter on a machine that is this busy",
            "fewer busy processes, or more cores",
        )
    if probe.problem:
        yield Finding(
            "broken",
            f"a thread could not send anything to the page: {probe.problem}",
            "progress and live panels do not move while a cell is busy",
            "pip install -U ipykernel, then restart the kernel",
        )


def _devices(findings: list[Finding]) -> Iterator[tuple[str, ...]]:
    from grym_nb.devices import devices, memory_limit, process_memory
    from grym_nb.hardening.pressure import WARNED_FROM

    memory = process_memory()
    yield "this process", "", size(memory.rss), ""
    limit = memory_limit()
    if limit is not None:
        used = memory.rss if limit.used is None else limit.used
        yield "limit", size(limit.size), f"{size(used)} used", limit.source
        if used > WARNED_FROM * limit.size:
            findings.append(
                Finding(
                    "warning",
                    f"{size(used)} of {size(limit.size)} are in use",
                    f"at the limit ({limit.source}) the kernel is killed without a word",
                    "%grym unload what is not needed",
                )
            )
    for device in devices():
        yield device.name, size(device.total), size(device.free), device.description


def _extras(findings: list[Finding]) -> Iterator[tuple[str, ...]]:
    try:
        wanted = extras("grym-nb")
    except metadata.PackageNotFoundError:
        yield "grym_nb is not installed", "it runs from the source tree", "pip install -e ."
        return
    for extra, packages in wanted.items():
        missing = [name for name in packages if not version_of(name)]
        line = f'pip install "grym-nb[{extra}]"'
        if not missing:
            yield extra, "complete", ""
            continue
        yield extra, f"missing: {', '.join(missing)}", line
        if extra == "sound":
            findings.append(
                Finding(
                    "note",
                    f"the extra {extra!r} is not complete: {', '.join(missing)}",
                    "clips that are read from files, players and loudness need it",
                    line,
                )
            )
