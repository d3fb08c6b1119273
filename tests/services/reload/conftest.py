"""What the tests of reloading share."""

from __future__ import annotations

import pytest

from grym_nb.services.reload import smoke
from tests.services.reload.files import edited

__all__ = ["edited", "patient"]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try new code for as long as that takes here: on a busy machine a moment is soon over."""
    monkeypatch.setattr(smoke, "_ALL", 30.0)
