"""The page in Debian's chromium, against a real server and a real gateway."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

try:
    from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright
except ImportError:
    collect_ignore_glob = ["test_*.py"]  # `make test-page` installs it

from jobledger import Client
from tests.support.gateway_process import GatewayProcess
from tests.support.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = f"{Path(__file__).parent}/"
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.page)


SCHEMES = ("http", "https", "javascript")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
SLOW = 20_000  # ms: two cores that others use, too


def chromium() -> str:
    """Return where chromium is: a browser that Debian maintains, never one that is downloaded."""
    path = shutil.which("chromium")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is missing: .ci/toolchains installs it")
        pytest.skip("chromium is not installed")
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Return the browser; each test has a session of its own in it."""
    path = chromium()
    expect.set_options(timeout=SLOW)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*FLAGS])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Return a server that all share: tests use owners and job types of their own.

    Its operator allows URLs that no page should make a link of.
    """
    schemes = [word for scheme in SCHEMES for word in ("--url-scheme", scheme)]
    with ServerProcess(tmp_path_factory.mktemp("server"), arguments=schemes) as process:
        yield process


@pytest.fixture(scope="session")
def gateway(server: ServerProcess) -> Iterator[GatewayProcess]:
    """Return a gateway of the server that all share."""
    with GatewayProcess(server.target) as process:
        yield process


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    """Return a client of the server that all share."""
    with Client(server.target, user_id="ada") as client:
        yield client


@pytest.fixture
def visit(browser: Browser, gateway: GatewayProcess) -> Iterator[Callable[..., Page]]:
    """Open a path of the page. What the page logs as an error fails the test at its end."""
    contexts = []
    problems: list[str] = []

    def visit(
        path: str = "/",
        *,
        base: str | None = None,
        width: int = 1280,
        height: int = 800,
        **options: object,
    ) -> Page:
        size = ViewportSize(width=width, height=height)
        context = browser.new_context(viewport=size, reduced_motion="reduce", **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SLOW)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: problems.extend(_defects(said.type, said.text)))
        page.goto(f"{base or gateway.url}{path}")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert problems == []


def _defects(kind: str, text: str) -> list[str]:
    """Return what is wrong with the page itself: a refused call is no defect of it."""
    return [text] if kind == "error" and "Failed to load resource" not in text else []


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """Return a server that may be killed."""
    with ServerProcess(tmp_path) as process:
        yield process
