"""A headless Chromium for the tests of the page, started once; pages that asked elsewhere or logged an error fail."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
READY = "() => Panes.list.length > 0 && Panes.list.every((pane) => pane.ready)"


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The system's Chromium; without it, tests that need it are skipped."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"none of {', '.join(PROGRAMS)} is on the PATH")
    arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Open an exported page's file or an address; ``hash`` is its part after #, the rest are options of the context.

    At the end of the test no page may have asked another origin, or have logged an error that is not ``expected``.
    """
    contexts, requests, problems, expected = [], [], [], []

    def open_(page: Path | str, hash: str = "", expect: tuple[str, ...] = (), **options: Any) -> Any:
        address = page.as_uri() if isinstance(page, Path) else page
        context = chromium.new_context(
            **{"viewport": {"width": 1400, "height": 900}, "reduced_motion": "reduce", **options}
        )
        context.set_default_timeout(90_000)  # ms: machines may be busy
        contexts.append(context)
        expected.extend(expect)
        tab = context.new_page()
        tab.on("request", lambda request: requests.append((address, request.url)))
        tab.on("console", lambda said: problems.append(said.text) if said.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.goto(address + (f"#{hash}" if hash else ""))
        tab.wait_for_function(READY)
        return tab

    yield open_
    for context in contexts:
        context.close()
    assert [url for address, url in requests if not _own(address, url)] == []
    assert [text for text in problems if not any(part in text for part in expected)] == []


def _own(address: str, url: str) -> bool:
    """Tell whether a request stays with the page's origin; of a file, in its folder."""
    own, asked = urlsplit(address), urlsplit(url)
    if asked.scheme == "data":
        return True
    inside = own.scheme != "file" or asked.path.startswith(own.path.rpartition("/")[0])
    return (asked.scheme, asked.netloc) == (own.scheme, own.netloc) and inside
