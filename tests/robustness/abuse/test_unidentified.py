"""Callers without an identity do not harm those who have one."""

from pathlib import Path

import pytest

from tests.robustness.abuse.attacker import attack
from tests.robustness.abuse.good_client import LONGEST_P99, good_client
from tests.robustness.abuse.unidentified import TOKEN, batches, server_with_access
from tests.support.databases import sqlite_only
from tests.support.server_process import MIB

pytestmark = [sqlite_only, pytest.mark.slow]


async def test_large_requests_without_an_identity_fail_no_call_of_others(
    database_url: str, tmp_path: Path
) -> None:
    async with server_with_access(tmp_path, database_url) as server:
        before = server.peak_memory
        async with attack(batches, server.target, count=200) as attacker:
            await attacker.begun()
            async with good_client(server.target, token=TOKEN) as good:
                assert await attacker.report() == {"UNAUTHENTICATED": 200}
        assert good.failed == []
        assert good.p50 < LONGEST_P99, good
        # Of one address gRPC waits for 64, and 64 slower ones may be read: see limits.md.
        assert server.peak_memory - before < 128 * MIB
