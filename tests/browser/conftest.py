"""One JupyterLab and one browser for all; each test has a page, a notebook and a kernel of its own.

All tests are in one file, which xdist leaves to one worker: two browsers are too much for two cores.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.lab import CHROMIUM_FLAGS, Lab, Notebook


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    with Lab() as running:
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(CHROMIUM_FLAGS)
        )
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1400, "height": 1100})
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    yield page
    page.close()


@pytest.fixture
def notebook(page: Page, lab: Lab) -> Iterator[Notebook]:
    """What the page complained of fails the test."""
    made = Notebook(page, lab)
    yield made
    lab.end_kernels()
    assert made.errors == []
