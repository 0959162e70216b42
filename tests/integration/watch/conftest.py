"""Watches see of a database what its store yields; `tests/integration/store` tests that of both."""

from pathlib import Path

import pytest

from tests.support.databases import empty_database


@pytest.fixture(params=["sqlite"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return empty_database(request, tmp_path)
