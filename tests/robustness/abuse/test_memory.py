"""What a refused request leaves in memory: nothing."""

import hashlib
from collections import Counter
from pathlib import Path

import grpc
import pytest

from tests.robustness.abuse.attacker import attack, begin
from tests.support.access_file import write_access_file
from tests.support.databases import sqlite_only
from tests.support.server_process import MIB, ServerProcess

pytestmark = [sqlite_only, pytest.mark.slow]  # none of it reaches a database

ACCESS = f"""
[[caller]]
name = "good"
token_sha256 = "{hashlib.sha256(b"good-token").hexdigest()}"
roles = ["owner", "worker"]
users = ["*"]
job_types = ["*"]
"""

EMPTY_ASSETS = b"\x2a\x00" * 500_000
"""A mebibyte, which takes some hundred times as much once it is parsed."""


def send(target: str, *, count: int, token: str, tail: str, times: int) -> object:
    """Send `count` large requests, each compressed to some kilobytes; return their codes."""
    begin()
    codes: Counter[str] = Counter()
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(target, compression=grpc.Compression.Gzip) as channel:
        method = channel.unary_unary("/jobledger.v1.WorkerService/MarkCompleted")
        for _ in range(count):
            try:
                method(EMPTY_ASSETS + bytes.fromhex(tail) * times, metadata=metadata, timeout=20)
            except grpc.RpcError as error:
                codes[error.code().name] += 1
    return codes


@pytest.mark.parametrize(
    ("token", "tail", "times", "code"),
    [
        ("", "", 0, "UNAUTHENTICATED"),
        ("good-token", "", 0, "INVALID_ARGUMENT"),
        ("good-token", "ff", 1, "INVALID_ARGUMENT"),
        ("good-token", "2a00", 60_000, "RESOURCE_EXHAUSTED"),
    ],
    ids=["no token", "too many assets", "malformed", "too large"],
)
async def test_a_refused_request_leaves_nothing_in_memory(
    database_url: str, tmp_path: Path, token: str, tail: str, times: int, code: str
) -> None:
    access = tmp_path / "access.toml"
    write_access_file(access, ACCESS)
    access.chmod(0o600)
    arguments = ["--access", str(access)]
    async with ServerProcess(tmp_path, database=database_url, arguments=arguments) as server:
        options = {"token": token, "tail": tail, "times": times}
        async with attack(send, server.target, count=2, **options) as attacker:
            await attacker.report()
        before = server.peak_memory
        async with attack(send, server.target, count=100, **options) as attacker:
            assert await attacker.report() == {code: 100}
        assert server.peak_memory - before < 64 * MIB


def gzip_bombs(target: str, *, count: int, size: int) -> object:
    """Send messages that are a thousandth of their size until they are unpacked."""
    begin()
    codes: Counter[str] = Counter()
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(target, options, compression=grpc.Compression.Gzip) as channel:
        method = channel.unary_unary("/jobledger.v1.JobService/CreateJob")
        for _ in range(count):
            try:
                method(bytes(size), timeout=20)
            except grpc.RpcError as error:
                codes[error.code().name] += 1
    return codes


async def test_a_gzip_bomb_is_not_unpacked_beyond_the_limit(server: ServerProcess) -> None:
    before = server.peak_memory
    async with attack(gzip_bombs, server.target, count=5, size=100 * MIB) as attacker:
        assert await attacker.report() == {"RESOURCE_EXHAUSTED": 5}
    assert server.peak_memory - before < 150 * MIB
