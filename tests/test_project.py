"""The project's own files agree with one another: ranges, pins, Binder, the list of changes."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
#: Extras that the constraints do not cover: they are not part of any environment that is tested here.
ELSEWHERE = {"torchaudio", "ray", "api", "all"}


@cache
def _project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


@cache
def _pins() -> dict[str, Version]:
    pins: dict[str, Version] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            [exactly] = pin.specifier
            assert exactly.operator == "==" and pin.url is None, line
            pins[canonicalize_name(pin.name)] = Version(exactly.version)
    return pins


def _wanted() -> list[Requirement]:
    extras = _project()["optional-dependencies"]
    lines = [*_project()["dependencies"]]
    lines += [line for extra, some in extras.items() if extra not in ELSEWHERE for line in some]
    found = [Requirement(line) for line in lines]
    return [one for one in found if one.name not in ("grym-nb", "ray")]


@pytest.mark.parametrize("requirement", _wanted(), ids=lambda requirement: requirement.name)
def test_the_tested_version_is_within_the_stated_range(requirement: Requirement) -> None:
    """Every dependency is pinned for the tests, and the pin is one that users may get."""
    pin = _pins().get(canonicalize_name(requirement.name))
    assert pin is not None, f"{requirement.name} is not in constraints.txt"
    assert requirement.specifier.contains(pin)


def test_pins_have_no_local_versions() -> None:
    """A pin is found in every index: no `+cpu`."""
    assert [name for name, pin in _pins().items() if pin.local] == []


def test_every_dependency_ends_somewhere() -> None:
    """A range says where trying ended; stubs and peers may be any."""
    extras = _project()["optional-dependencies"]
    lines = [*_project()["dependencies"]]
    lines += [line for extra, some in extras.items() if extra != "peers" for line in some]
    ranges = [one for one in map(Requirement, lines) if not one.name.startswith(("grym-nb", "types-"))]
    endless = [str(one) for one in ranges if not any(bound.operator == "<" for bound in one.specifier)]
    assert endless == []


def test_binder_uses_the_same_pins() -> None:
    """Binder installs this package under the constraints, and only extras that exist."""
    lines = (ROOT / "binder/requirements.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    assert lines[0] == "-c ../constraints.txt"
    [extras] = [match[1] for line in lines if (match := re.fullmatch(r"\.\[(.+)\]", line))]
    assert set(extras.split(",")) <= _project()["optional-dependencies"].keys()
    assert (ROOT / "binder/start").read_text(encoding="utf-8").rstrip().endswith('exec "$@"')
    wanted = (ROOT / "binder/runtime.txt").read_text(encoding="utf-8").strip().removeprefix("python-")
    assert f"Programming Language :: Python :: {wanted}" in _project()["classifiers"]


def test_the_installed_package_is_this_one() -> None:
    """The version that pip knows, where pip knows it at all, is the one in pyproject.toml."""
    try:
        installed = version("grym-nb")
    except PackageNotFoundError:
        pytest.skip("runs from the tree, not installed")
    assert installed == _project()["version"]


def test_the_list_of_changes_has_a_place_for_the_next_one() -> None:
    """Keep a Changelog: an Unreleased section first."""
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
