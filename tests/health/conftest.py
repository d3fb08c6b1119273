"""Registries for those who judge them."""

from math import inf

import pytest

from grym_nb.health import oversight
from tests.health.house import house
from tests.health.ward import ward
from tests.services.conftest import clock, driven, registry

__all__ = ["clock", "driven", "house", "registry", "ward"]


@pytest.fixture(autouse=True)
def _in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a driven clock a look that is parted, by what the machine can do, would take seconds of it."""
    monkeypatch.setattr(oversight, "_AT_ONCE", inf)
