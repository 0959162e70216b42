"""The lifecycle on Jobledger by its own client, a program: `worker TARGET` or `owners TARGET`."""

import asyncio
import sys

import uvloop

from benchmarks.load import Life
from benchmarks.load.lives import Lives
from benchmarks.peers import answer, in_flight


async def work(target: str) -> None:
    lives = Lives()
    await lives.work(target, slots=in_flight())
    await asyncio.Event().wait()  # until this program is ended


def own(target: str) -> None:
    lives = Lives()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        def live(jobs: int) -> list[Life]:
            reply = runner.run(lives.live(target, jobs, in_flight(), one_watch=True))
            lived: list[Life] = reply["lives"]
            return lived

        answer(live)


if __name__ == "__main__":
    role, server = sys.argv[1:]
    if role == "worker":
        uvloop.run(work(server))
    else:
        own(server)
