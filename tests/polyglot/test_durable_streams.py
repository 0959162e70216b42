"""The public conformance tests of Durable Streams, of which those run that read.

They are the npm package @durable-streams/server-conformance-tests, and fill their streams by way
of filled_streams.py. What is left out tests writing, or the protocol's mode for JSON, which wraps
the appends of a stream of JSON in an array. Here such a stream is bytes as any other.
"""

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.polyglot.filled_streams import filled_streams
from tests.support.gateway_process import GatewayProcess
from tests.support.server_process import ServerProcess

HERE = Path(__file__).parent / "durable_streams"

READING = (
    "Read Operations",
    "Long-Poll Operations",
    "Long-Poll Edge Cases",
    "HTTP Protocol should (return correct headers on GET|return empty body|read from offset)",
    "Browser Security Headers",
    "Content-Type Validation should return stream content-type on GET",
    "HEAD Metadata should",
    "Offset Validation and Resumability",
    "Protocol Edge Cases",
    "Caching and ETag",
    "Chunking and Large Payloads",
    "Read-Your-Writes Consistency",
    "SSE Mode",
    "Property-Based Tests .* (Byte-Exactness|Operation Sequence|Immutability|Offset Validation)",
    "Property-Based Tests .* (mixed readers and writers|State Hash)",
    "Stream Closure (HEAD|Read|Long-poll|SSE) ",
    "Stream Closure Edge Cases offset-now",
)

OTHERS = (
    "on (PUT|POST) responses",
    "seq ordering",
    "POST body",
    "on POST",
    "PUT without",
    "on 201",
    "JSON (array|SSE|data in|payloads)",
)


@pytest.mark.timeout(300)
async def test_the_gateway_reads_by_the_protocol(tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("in CI no language may be missing: npm")
        pytest.skip("npm is not installed")
    await run("npm", "ci", "--no-audit", "--no-fund")
    arguments = ["--cors-origin", "https://example.com"]
    report = tmp_path / "report.json"
    wanted = f"^(?!.*({'|'.join(OTHERS)}))({'|'.join(READING)})"
    with (
        ServerProcess(tmp_path) as server,
        GatewayProcess(server.target, arguments) as gateway,
    ):
        async with filled_streams(server.target, gateway.target) as url:
            # A long poll without news takes 15 s.
            options = ("--testTimeout=60000", "--reporter=json", f"--outputFile={report}")
            await run("npx", "vitest", "run", "-t", wanted, *options, CONFORMANCE_TEST_URL=url)
    (file,) = json.loads(report.read_text())["testResults"]
    results = {each["fullName"]: each for each in file["assertionResults"]}
    failed = {name: each for name, each in results.items() if each["status"] == "failed"}
    assert failed == {}
    passed = [name for name, each in results.items() if each["status"] == "passed"]
    assert len(passed) == 112


async def run(*command: str, **environment: str) -> None:
    """Run a command, whose exit code the report explains better."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=HERE, env={**os.environ, **environment}
    )
    await process.wait()
