"""The ledger runs on the store in memory too: what it promises needs more of the store than its own
tests do.
"""

import pytest

from tests.support.databases import run_in_memory_too


@pytest.hookimpl(tryfirst=True)  # before the fixtures' own parameters are used
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    run_in_memory_too(metafunc)
