"""What every test may ask for, and which tests a machine cannot run."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator

import hypothesis
import pytest

from tests.kernel import Kernel

# The same examples in each run; with GRYM_FULL=1 others are looked for each time.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=os.environ.get("GRYM_FULL") != "1")
hypothesis.settings.load_profile("suite")


def _accelerator() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available() or torch.backends.mps.is_available())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, by name, what this machine or this run has no means for."""
    missing = {
        "full": lambda: "" if os.environ.get("GRYM_FULL") == "1" else "runs with GRYM_FULL=1",
        "browser": lambda: "" if shutil.which("chromium") else "needs chromium",
        "gpu": lambda: "" if _accelerator() else "needs an accelerator",
    }
    for marker, means in missing.items():
        marked = [item for item in items if item.get_closest_marker(marker)]
        if marked and (reason := means()):
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="module")
def small_heap() -> Iterator[None]:
    """Have the collector look at what the tests of a module make alone, and not at all that others left.

    For those that have memory given back again and again: each time all of the heap would be looked at.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    """A kernel of the test's own."""
    with Kernel() as running:
        yield running


@pytest.fixture(scope="module")
def shared_kernel() -> Iterator[Kernel]:
    """One kernel for a module's tests, which see each other's variables."""
    with Kernel() as running:
        yield running
