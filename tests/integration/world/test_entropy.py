"""What is drawn by chance in a world: the same again from the same seed."""

import os
import subprocess
import sys
import threading

from jobledger.core.identity import Identity
from jobledger_world.world import World


def drawn(seed: int) -> list[str]:
    """Return ids, secrets and names that the service and the client have made in one run."""

    async def main(world: World) -> list[str]:
        client = world.client("ada")
        job = await client.create_job("render")
        webhook = await client.create_webhook("https://example.com/")
        return [job.id, webhook.webhook.id, webhook.secret, Identity("ada").worker_id]

    return World(seed).run(main)


def test_ids_and_secrets_are_those_of_the_seed() -> None:
    first, same, other = drawn(1), drawn(1), drawn(2)
    assert first == same
    assert not set(first) & set(other)


def test_the_first_run_of_a_program_that_traces_is_that_of_the_seed() -> None:
    program = (
        "import opentelemetry.trace\n"
        "from tests.integration.world.test_entropy import drawn\n"
        "assert drawn(1) == drawn(1)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_other_threads_take_nothing_of_the_seeds() -> None:
    ended = threading.Event()

    def draw() -> None:
        while not ended.wait(0.001):
            os.urandom(16)

    expected = drawn(1)
    drawing = threading.Thread(target=draw)
    drawing.start()
    try:
        assert drawn(1) == expected
    finally:
        ended.set()
        drawing.join()
